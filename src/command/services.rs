//! Names of services as ports: /etc/services, services(5).

use std::fs;

use super::cli::{Command, Look};
use super::config::UsageError;

const FILE: &str = "/etc/services";

/// Puts numbers in the place of the names of services that a command was given.
///
/// # Errors
/// [`UsageError`]: a name that /etc/services does not have.
pub fn resolve(command: &mut Command) -> Result<(), UsageError> {
    let (Command::Scan(super::cli::ScanArgs { look: Look { port: ports, .. }, .. })
    | Command::Watch(super::cli::WatchArgs { look: Look { port: ports, .. }, .. })
    | Command::History(super::cli::HistoryArgs { port: ports, .. })
    | Command::Trace(super::cli::TraceArgs { port: ports, .. })) = command
    else {
        return Ok(());
    };
    let mut services = None;
    for port in ports.iter_mut().filter(|port| is_name(port)) {
        // Without the file no name is known.
        let text = services.get_or_insert_with(|| fs::read_to_string(FILE).unwrap_or_default());
        match number(text, port) {
            Some(number) => *port = number.to_string(),
            None => return Err(UsageError::NoService { given: port.clone(), file: FILE }),
        }
    }
    Ok(())
}

/// A service has a letter in its name (RFC 6335, 5.1).
fn is_name(text: &str) -> bool {
    text.chars().any(|letter| letter.is_ascii_alphabetic())
}

/// The TCP port of the service with this name or alias.
fn number(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (official, port) = (words.next()?, words.next()?);
        let number = port.strip_suffix("/tcp")?.parse().ok()?;
        (official == name || words.any(|alias| alias == name)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_of_tcp_services_are_known() {
        let services = "domain 53/udp\nhttp\t\t80/tcp\t\twww   # WorldWideWeb HTTP\n# rest\nhttps 443/tcp\nbad x/tcp\n";
        for (name, port) in [("http", Some(80)), ("www", Some(80)), ("https", Some(443))] {
            assert_eq!(number(services, name), port, "{name}");
        }
        for name in ["domain", "WorldWideWeb", "bad", "rest", ""] {
            assert_eq!(number(services, name), None, "{name}");
        }
    }
}
