//! The settings of `agent`, and where its store is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Live, UsageError, netns, tick_interval};
use crate::command::cli::AgentArgs;
use crate::store::Limits;

const INTERVAL: Duration = Duration::from_secs(2);
const KEEP: Duration = Duration::from_secs(7 * 86_400);
const SIZE: u64 = 500 << 20;
/// With less, not even the index of a day fits.
const LEAST_SIZE: u64 = 8 << 20;
/// Files go as a whole, and one of the index is of an hour.
const LEAST_KEEP: Duration = Duration::from_secs(3600);
const LONGEST_KEEP: Duration = Duration::from_secs(10 * 365 * 86_400);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub store: PathBuf,
    pub limits: Limits,
    pub interval: Duration,
    /// `duration` is without an end.
    pub live: Live,
    pub redact: bool,
    /// Where metrics are served.
    pub listen: Option<SocketAddr>,
    /// Where metrics are written.
    pub textfile: Option<PathBuf>,
    /// Program and arguments that are run when something happens.
    pub exec: Option<Vec<String>>,
}

/// What the environment says about where a user keeps state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Home {
    pub is_root: bool,
    pub xdg_state_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

/// Validates the arguments of `agent`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn agent(args: &AgentArgs, home: &Home) -> Result<Agent, UsageError> {
    let keep = args.keep.as_deref().map(|text| span("--keep", text)).transpose()?.unwrap_or(KEEP);
    if keep < LEAST_KEEP {
        let given = args.keep.clone().unwrap_or_default();
        return Err(UsageError::KeepTooShort { given });
    }
    let size = args.max_size.as_deref().map(bytes).transpose()?.unwrap_or(SIZE);
    let netns = netns(&args.place)?;
    let listen = args.listen.as_deref().map(address).transpose()?;
    Ok(Agent {
        store: store(args.store.as_ref(), home)?,
        limits: Limits { keep, size },
        interval: tick_interval(args.interval.as_ref())?.unwrap_or(INTERVAL),
        live: Live { duration: Duration::MAX, netns, events: !args.no_events, unattended: true },
        redact: args.redact,
        listen,
        textfile: args.textfile.clone(),
        exec: args.exec.as_deref().map(command).transpose()?,
    })
}

/// Where the store is: as given, or where this user keeps state (XDG Base Directory Specification).
///
/// # Errors
/// [`UsageError`]: nothing says where.
pub fn store(given: Option<&PathBuf>, home: &Home) -> Result<PathBuf, UsageError> {
    if let Some(path) = given {
        return Ok(path.clone());
    }
    if home.is_root {
        return Ok(PathBuf::from("/var/lib/rstdoctor"));
    }
    // The specification ignores a path that is not absolute.
    let state = home.xdg_state_home.clone().filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(home.home.as_ref().filter(|path| path.is_absolute())?.join(".local/state")));
    state.map(|state| state.join("rstdoctor")).ok_or(UsageError::NoStore)
}

/// A time of days and more.
///
/// # Errors
/// [`UsageError`]: it is none.
pub fn span(option: &'static str, text: &str) -> Result<Duration, UsageError> {
    let span = match super::plain_seconds(text.trim()) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => humantime::parse_duration(text.trim()).ok(),
    };
    let given = || text.to_owned();
    match span {
        None => Err(UsageError::Span { option, given: given() }),
        Some(span) if span > LONGEST_KEEP => Err(UsageError::SpanTooLong { option, given: given() }),
        Some(span) => Ok(span),
    }
}

/// `500M`, `2GiB`, `1000000`; multiples of 1024.
fn bytes(text: &str) -> Result<u64, UsageError> {
    let wrong = || UsageError::Size { given: text.to_owned() };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let size = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if size < LEAST_SIZE {
        return Err(UsageError::TooSmall { given: text.to_owned() });
    }
    Ok(size)
}

/// `127.0.0.1:9469`, `[::1]:9469`, or a port of 127.0.0.1.
fn address(text: &str) -> Result<SocketAddr, UsageError> {
    // `::1` is an address, and its last number no port.
    let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>().ok();
    let address = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).or_else(|| text.parse().ok());
    address.ok_or_else(|| UsageError::Address { given: text.to_owned() })
}

/// A command line as words; no shell sees it.
///
/// # Errors
/// [`UsageError`]: a quote is not closed, or nothing is to be run.
pub fn command(text: &str) -> Result<Vec<String>, UsageError> {
    let words = shlex::split(text).filter(|words| words.first().is_some_and(|program| !program.is_empty()));
    words.ok_or_else(|| UsageError::Command { given: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent_with(change: impl FnOnce(&mut AgentArgs)) -> Result<Agent, UsageError> {
        let mut args = AgentArgs::default();
        change(&mut args);
        agent(&args, &Home { is_root: true, ..Home::default() })
    }

    #[test]
    fn sizes_and_times_have_units() {
        let size = |text: &str| agent_with(|args| args.max_size = Some(text.into())).map(|agent| agent.limits.size);
        assert_eq!(size("500M"), Ok(500 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("1g"), Ok(1 << 30));
        assert_eq!(size("8388608"), Ok(8 << 20));
        for bad in ["", "M", "1X", "-1", "99999999999999999999", "1M", "1.5G", "20000000T"] {
            let error = size(bad).expect_err(bad);
            assert!(error.to_string().contains("--max-size"), "{error}");
        }
        let keep = |text: &str| agent_with(|args| args.keep = Some(text.into())).map(|agent| agent.limits.keep);
        assert_eq!(keep("7d"), Ok(KEEP));
        assert_eq!(keep("36h"), Ok(Duration::from_secs(36 * 3600)));
        assert_eq!(keep("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "0", "soon", "100years", "59min", "5"] {
            assert!(keep(bad).expect_err(bad).to_string().contains("--keep"));
        }
        assert!(keep("30min").expect_err("half an hour").to_string().contains("at least 1h"));
    }

    #[test]
    fn metrics_are_served_to_this_host_unless_told_otherwise() {
        let listen = |text: &str| agent_with(|args| args.listen = Some(text.into())).map(|agent| agent.listen);
        assert_eq!(listen("9469"), Ok(Some("127.0.0.1:9469".parse().unwrap())));
        assert_eq!(listen(":9469"), Ok(Some("127.0.0.1:9469".parse().unwrap())));
        assert_eq!(listen("[::1]:9469"), Ok(Some("[::1]:9469".parse().unwrap())));
        assert!(listen("localhost").is_err() && listen("1.2.3.4").is_err());
        for bad in ["::1", "::9469", "fe80::1", "[::1]"] {
            assert!(listen(bad).expect_err(bad).to_string().contains("[::1]:9469"));
        }
    }

    #[test]
    fn a_store_is_where_the_user_keeps_state() {
        let home = |xdg: Option<&str>, home: Option<&str>| {
            store(None, &Home { is_root: false, xdg_state_home: xdg.map(Into::into), home: home.map(Into::into) })
        };
        assert_eq!(home(Some("/state"), Some("/home/me")), Ok("/state/rstdoctor".into()));
        assert_eq!(home(Some("relative"), Some("/home/me")), Ok("/home/me/.local/state/rstdoctor".into()));
        assert!(home(None, None).is_err() && home(None, Some("relative")).is_err());
        assert_eq!(agent_with(|_| ()).map(|agent| agent.store), Ok("/var/lib/rstdoctor".into()));
    }

    #[test]
    fn a_command_is_words() {
        assert_eq!(
            command("/bin/notify 'two words' $HOME"),
            Ok(vec!["/bin/notify".into(), "two words".into(), "$HOME".into()])
        );
        assert!(command("").is_err() && command("'open").is_err() && command("''").is_err());
    }
}
