//! Metrics of the recorder: served, and written to a file.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::command::config::Agent;
use crate::history::Account;
use crate::metrics::{self, Metrics, Own};
use crate::output::say;
use crate::runtime::http::{self, Response, Status};
use crate::timeline::Tick;
use crate::value::escape::visible;

/// Windows may come late on a busy host; the agent that is stuck is told from it by so much beyond three of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is told of so far.
#[derive(Debug)]
struct Told {
    metrics: Metrics,
    /// Of the latest window, once somebody has asked for it: most ticks are told to nobody, and who asks all the time must not cost
    /// more than who listens.
    text: Option<String>,
    openmetrics: Option<String>,
    /// When the latest window was taken.
    latest: Option<Instant>,
    /// No window for so long is none any more.
    patience: Duration,
}

impl Told {
    fn new(patience: Duration) -> Self {
        Self { metrics: Metrics::default(), text: None, openmetrics: None, latest: None, patience }
    }

    fn take(&mut self, tick: &Tick, account: &Account, own: Own) {
        self.metrics.tick(tick, account);
        self.metrics.own(own);
        (self.text, self.openmetrics) = (None, None);
        self.latest = Some(Instant::now());
    }

    fn in_openmetrics(&mut self) -> Result<String, fmt::Error> {
        let text = self.openmetrics.take().map_or_else(|| self.metrics.openmetrics(), Ok)?;
        Ok(self.openmetrics.insert(text).clone())
    }

    fn in_text(&mut self) -> Result<String, fmt::Error> {
        let text = self.text.take().map_or_else(|| self.metrics.text(), Ok)?;
        Ok(self.text.insert(text).clone())
    }

    /// Why there is nothing of now to tell, if there is not.
    fn silent(&self, now: Instant) -> Option<String> {
        let Some(latest) = self.latest else { return Some("the first window is not over".to_owned()) };
        let age = now.saturating_duration_since(latest);
        (age > self.patience).then(|| format!("no window was judged for {} s", age.as_secs()))
    }
}

/// Keeps the metrics, if anybody wants them.
pub struct Exporter {
    told: Option<Arc<Mutex<Told>>>,
    textfile: Option<PathBuf>,
}

impl Exporter {
    /// Begins to serve.
    ///
    /// # Errors
    /// The address is in use, or not of this host; the file cannot be written, or something else has its name.
    pub fn start(config: &Agent) -> anyhow::Result<Self> {
        if let Some(path) = &config.textfile {
            can_be_written(path).with_context(|| format!("--textfile {}", path.display()))?;
            if path.extension().is_none_or(|own| own != "prom") {
                let name = path.display();
                say(visible(&format!(
                    "rstdoctor: --textfile {name}: node_exporter reads only files that end in .prom"
                )));
            }
        }
        let patience = PATIENCE + 3 * config.interval;
        let told = Arc::new(Mutex::new(Told::new(patience)));
        if let Some(address) = config.listen {
            let served = Arc::clone(&told);
            let answer = move |path: &str, accept: &str| answer(path, accept, &mut locked(&served));
            let bound = http::serve(address, Arc::new(answer)).with_context(|| format!("--listen {address}"))?;
            say(format_args!("rstdoctor: metrics at http://{bound}/metrics"));
            if !bound.ip().is_loopback() {
                say("rstdoctor: whoever reaches that address can read names of processes and ports of this host");
            }
        }
        let wanted = config.listen.is_some() || config.textfile.is_some();
        Ok(Self { told: wanted.then_some(told), textfile: config.textfile.clone() })
    }

    /// At a clean end: metrics that nobody renews would be taken for those of now.
    pub fn finish(self) {
        if let Some(path) = self.textfile.filter(|path| replaceable(path).is_ok_and(|old| old.is_some()))
            && let Err(error) = fs::remove_file(&path)
        {
            say(visible(&format!("rstdoctor: cannot remove {}: {error}", path.display())));
        }
    }

    /// Takes a tick with its account. What went wrong with the file.
    pub fn tick(&self, tick: &Tick, account: &Account, own: impl FnOnce() -> Own) -> Result<(), String> {
        let Some(told) = &self.told else { return Ok(()) };
        let own = own();
        let mut told = locked(told);
        told.take(tick, account, own);
        let Some(path) = &self.textfile else { return Ok(()) };
        let Ok(text) = told.metrics.textfile() else { return Ok(()) };
        drop(told);
        replace(path, &text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

fn locked(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(path: &str, accept: &str, told: &mut Told) -> Response {
    let text = |content_type, text: Result<String, fmt::Error>| match text {
        Ok(body) => Response { status: Status::Ok, content_type, body },
        Err(_) => Response::plain(Status::Unavailable, "it cannot be told"),
    };
    match path {
        "/metrics" if told.latest.is_none() => Response::plain(Status::Unavailable, "the first window is not over"),
        "/metrics" if http::prefers(accept, "application/openmetrics-text", "text/plain") => {
            text(metrics::OPENMETRICS, told.in_openmetrics())
        }
        "/metrics" => text(metrics::TEXT, told.in_text()),
        "/healthz" => match told.silent(Instant::now()) {
            Some(why) => Response::plain(Status::Unavailable, &why),
            None => Response::plain(Status::Ok, "ok"),
        },
        "/" => Response::plain(Status::Ok, "rstdoctor: /metrics, /healthz"),
        _ => Response::plain(Status::NotFound, "there is /metrics and /healthz"),
    }
}

/// Whoever reads it sees the old text or the new one: written beside it, then renamed. The collector reads `*.prom` only.
/// Its mode and, as far as this user may, its owner stay.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = replaceable(path)?;
    let beside = beside(path);
    // Whoever may write in the directory can guess the name: what stands there goes, and is never written through.
    let written = create(&beside).and_then(|mut file| {
        if let Some(old) = &old {
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        // The collector is another user, and the umask of a service may keep that out.
        let mode = old.map_or(READABLE, |old| old.mode() & 0o777);
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())
    });
    let renamed = written.and_then(|()| fs::rename(&beside, path));
    if renamed.is_err() {
        // Nothing useful can be done about an error here.
        let _ = fs::remove_file(&beside);
    }
    renamed
}

/// Of a new file: what it tells is served to whoever asks, too.
const READABLE: u32 = 0o644;

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(beside)
}

/// Before anything is collected: a name that cannot be written would be told with the first tick only.
fn can_be_written(path: &Path) -> io::Result<()> {
    replaceable(path)?;
    let beside = beside(path);
    create(&beside).and_then(|_| fs::remove_file(&beside))
}

/// The file that will be replaced, if there is one. A rename would take the place of a device or a pipe as well.
fn replaceable(path: &Path) -> io::Result<Option<Metadata>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = metadata.file_type();
    let what = match kind {
        _ if kind.is_file() => return Ok(Some(metadata)),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let text = format!("it is {what}, which is never replaced; name a file, for example {EXAMPLE}");
    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
}

/// Where Debian's node_exporter reads.
const EXAMPLE: &str = "/var/lib/prometheus/node-exporter/rstdoctor.prom";

/// A new file. One of the same name is removed: a link that was planted, or what a killed recorder of the same number left.
fn create(path: &Path) -> io::Result<fs::File> {
    let new = || fs::OpenOptions::new().write(true).create_new(true).open(path);
    new().or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => fs::remove_file(path).and_then(|()| new()),
        _ => Err(error),
    })
}

/// What this process costs, proc_pid_stat(5) and proc_pid_statm(5).
pub fn own() -> Own {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let field = |number: usize| after.split_whitespace().nth(number - 3).and_then(|text| text.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let cpu = field(14).zip(field(15)).map(|(user, system)| user.saturating_add(system) as f64 / ticks as f64);
    let page = rustix::param::page_size() as u64;
    let resident = field(24).map(|pages| pages.saturating_mul(page));
    let fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
    Own { cpu_s: cpu, resident_bytes: resident, open_fds: fds, ..Own::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_of_now() {
        let now = Instant::now();
        let mut told = Told::new(Duration::from_secs(66));
        assert!(told.silent(now).is_some_and(|why| why.contains("first window")));
        told.latest = Some(now);
        assert_eq!(told.silent(now + Duration::from_secs(60)), None);
        assert_eq!(told.silent(now + Duration::from_secs(70)), Some("no window was judged for 70 s".to_owned()));
    }

    /// The umask of the shipped unit would make it 0600, which the user of node_exporter cannot read.
    #[test]
    fn a_new_file_can_be_read_by_the_collector() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rst.prom");
        let old = rustix::process::umask(rustix::fs::Mode::from(0o077));
        let written = replace(&path, "metrics");
        rustix::process::umask(old);
        written.unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_planted_link_is_replaced_and_what_it_points_to_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        let beside = of(&format!("rst.prom.{}.tmp", std::process::id()));
        fs::write(of("victim"), "mine").unwrap();
        std::os::unix::fs::symlink(of("victim"), &beside).unwrap();
        replace(&of("rst.prom"), "metrics").unwrap();
        assert_eq!(fs::read_to_string(of("rst.prom")).unwrap(), "metrics");
        assert!(!beside.is_symlink() && !beside.exists());
        std::os::unix::fs::symlink(of("victim"), of("link.prom")).unwrap();
        replace(&of("link.prom"), "metrics").unwrap_err();
        assert_eq!(fs::read_to_string(of("victim")).unwrap(), "mine");
    }

    /// Not only when it starts: what was a file may be something else by the next tick.
    #[test]
    fn only_a_file_is_replaced_and_its_mode_stays() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        fs::create_dir(of("directory")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, of("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for (name, word) in [("directory", "a directory"), ("pipe", "a pipe")] {
            for error in [can_be_written(&of(name)).unwrap_err(), replace(&of(name), "metrics").unwrap_err()] {
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        assert!(fs::metadata(of("pipe")).unwrap().file_type().is_fifo());
        fs::write(of("rst.prom"), "old").unwrap();
        fs::set_permissions(of("rst.prom"), fs::Permissions::from_mode(0o640)).unwrap();
        can_be_written(&of("rst.prom")).unwrap();
        assert_eq!(fs::read_to_string(of("rst.prom")).unwrap(), "old");
        replace(&of("rst.prom"), "metrics").unwrap();
        assert_eq!(fs::metadata(of("rst.prom")).unwrap().mode() & 0o777, 0o640);
        assert!(can_be_written(&of("absent/rst.prom")).is_err() && !of("absent").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing is left beside them");
    }
}
