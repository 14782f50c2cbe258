//! Servers: their default accept backlog, the setting that changes it, and the setting of their open-files limit.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::source::owners::Process;

/// One server program.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// As people call it.
    pub name: String,
    /// Process names (comm) that are this server; a trailing `*` matches any rest.
    #[serde(default)]
    pub process: Vec<String>,
    /// Text in the command line that tells this server from others under the same process name (`java`, `node`).
    #[serde(default)]
    pub command_line: Vec<String>,
    pub backlog: Backlog,
    /// Raises its open-files limit, if the server has a setting of its own.
    pub open_files: Option<Setting>,
    /// How many connections it takes before it turns further ones away.
    pub connections: Option<Setting>,
    /// What else of its settings turns connections away as they come: who may connect.
    pub admission: Option<String>,
    /// How many it serves at once; those beyond wait in the accept queue.
    pub capacity: Option<Setting>,
    /// How much output it keeps for a client that does not read.
    pub output: Option<Setting>,
    /// For how long it keeps a connection on which no request comes.
    pub idle: Option<Setting>,
}

/// What the server passes to listen().
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// The default; absent when it depends on other settings.
    pub default: Option<u64>,
    /// The program passes net.core.somaxconn as it was at listen() (Go, Netty): there is no setting of its own.
    #[serde(default)]
    pub follows_somaxconn: bool,
    pub setting: Option<Setting>,
}

/// One line to write, and where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    #[serde(default)]
    pub kind: SettingKind,
    /// The line to write; `{backlog}`, `{port}`, `{address}` (with port) and `{listen}` (the port alone if it is bound to
    /// every IPv4 address, else with its address) are filled in.
    pub line: String,
    /// The file that it belongs into: `nginx.conf`.
    pub file: Option<String>,
    /// Where in the file, or where instead of one: `server block`, `on the uvicorn command line`.
    pub place: Option<String>,
    /// What else to know of it, in plain words.
    pub note: Option<String>,
    /// `reload`, `service`: what makes it take effect.
    pub restart: Restart,
}

/// What a line to write is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingKind {
    #[default]
    Config,
    /// The program's own source.
    Code,
}

/// What has to be restarted for a change to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    None,
    Reload,
    Service,
    Host,
}

#[derive(Deserialize)]
struct File {
    server: Vec<Server>,
}

/// All servers of `servers.toml`, in the order in which they are matched.
pub static SERVERS: LazyLock<Vec<Server>> = LazyLock::new(|| {
    // The file is part of the binary, and a test parses it.
    toml::from_str::<File>(include_str!("servers.toml")).map(|file| file.server).unwrap_or_default()
});

/// The server that this process is, if it is a known one.
pub fn server_of(process: &Process) -> Option<&'static Server> {
    SERVERS.iter().find(|server| server.is(process))
}

/// The server whose processes have this name, where the name alone tells.
pub fn server_named(name: &str) -> Option<&'static Server> {
    server_of(&Process { name: name.to_owned(), ..Process::default() })
}

impl Server {
    /// What is set in source code: how it closes is the program's own.
    pub fn is_programmed(&self) -> bool {
        let settings = [&self.connections, &self.backlog.setting];
        settings.into_iter().flatten().any(|setting| setting.kind == SettingKind::Code)
    }

    fn is(&self, process: &Process) -> bool {
        let named = self.process.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => process.name.starts_with(prefix),
            None => process.name == *pattern,
        });
        named
            && (self.command_line.is_empty()
                || self.command_line.iter().any(|text| process.command_line.contains(text.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, command_line: &str) -> Option<&'static str> {
        let process = Process { name: name.into(), command_line: command_line.into(), ..Process::default() };
        server_of(&process).map(|server| server.name.as_str())
    }

    #[test]
    fn the_file_parses_and_every_server_can_be_recognised() {
        let file: File = toml::from_str(include_str!("servers.toml")).unwrap();
        assert!(file.server.len() >= 25);
        for server in &file.server {
            assert!(!server.name.is_empty() && !server.process.is_empty(), "{server:?}");
            // The kernel cuts comm after 15 bytes (TASK_COMM_LEN): a longer name would never match.
            assert!(server.process.iter().all(|name| (2..=16).contains(&name.len())), "{}", server.name);
        }
    }

    #[test]
    fn every_backlog_setting_carries_the_number_and_its_place() {
        for server in SERVERS.iter() {
            if let Some(setting) = &server.backlog.setting {
                let somewhere = setting.file.is_some() || setting.place.is_some();
                assert!(setting.line.contains("{backlog}") && somewhere, "{}", server.name);
            }
        }
    }

    #[test]
    fn every_limit_is_a_line_with_its_place() {
        let of =
            |server: &'static Server| [&server.connections, &server.capacity, &server.output].into_iter().flatten();
        assert!(SERVERS.iter().flat_map(of).all(|setting| setting.file.is_some() || setting.place.is_some()));
        let limit = |name: &str| {
            let server = SERVERS.iter().find(|server| server.name == name).unwrap();
            server.connections.as_ref().or(server.capacity.as_ref()).map(|setting| setting.line.as_str())
        };
        assert_eq!(limit("sshd"), Some("MaxStartups 100:30:300"));
        assert_eq!(limit("php-fpm"), Some("pm.max_children = 50"));
    }

    #[test]
    fn no_server_is_hidden_by_one_above_it() {
        let server = |name: &str| SERVERS.iter().position(|server| server.name == name).unwrap();
        assert!(["Kafka", "Tomcat", "Jetty", "Netty", "Spring Boot"].iter().all(|name| server(name) < server("Java")));
    }

    #[test]
    fn java_servers_are_told_apart_by_their_command_line() {
        let tomcat = "/usr/bin/java -Dcatalina.base=/opt/tomcat org.apache.catalina.startup.Bootstrap start";
        assert_eq!(named("java", tomcat), Some("Tomcat"));
        assert_eq!(named("java", "java -Xmx1g kafka.Kafka config/server.properties"), Some("Kafka"));
        assert_eq!(named("java", "java -jar /opt/app/app.jar"), Some("Java"));
    }

    #[test]
    fn names_that_only_look_alike_are_not_confused() {
        assert_eq!(named("node", "node server.js"), Some("Node.js"));
        assert_eq!(named("node_exporter", "/usr/bin/node_exporter"), Some("Go"));
        assert_eq!(named("python3", "python3 /srv/own.py"), None);
        assert_eq!(named("python3.11", "python3 -m http.server 8000"), Some("Python socketserver"));
        assert_eq!(named("gunicorn", "/usr/bin/python3 /usr/bin/gunicorn app:app"), Some("gunicorn"));
    }
}
