//! Servers: their default accept backlog, the setting that changes it, and the setting of their open-files limit.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::cause::Restart;
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

/// One line of configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The line to write; `{backlog}`, `{port}`, `{address}` (with port) and `{listen}` (the port alone if it is bound to
    /// every IPv4 address, else with its address) are filled in.
    pub line: String,
    /// Where it goes: `nginx.conf, server block`.
    pub place: String,
    /// `reload`, `service`: what makes it take effect.
    pub restart: RestartKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartKind {
    Reload,
    Service,
}

impl From<RestartKind> for Restart {
    fn from(kind: RestartKind) -> Self {
        match kind {
            RestartKind::Reload => Restart::Reload,
            RestartKind::Service => Restart::Service,
        }
    }
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

impl Server {
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
