//! What a service tells the one who started it, sd_notify(3): a datagram to a socket that the environment names. Without one,
//! nobody is told.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The service manager.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// It restarts a service that it does not hear of for so long.
    watchdog: Option<Duration>,
    alive: Option<Instant>,
}

impl ServiceManager {
    /// Finds it in the environment.
    pub fn new() -> Self {
        let variable = |name| std::env::var(name).ok();
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|_| ours);
        let address = variable("NOTIFY_SOCKET").and_then(|path| match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(path).ok(),
        });
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // It never holds up the service.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        Self { socket, watchdog: watchdog.map(Duration::from_micros), alive: None }
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // Who does not listen is not waited for.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }

    /// It does what it is for. `status` is a line for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// It works: told twice as often as it has to be.
    pub fn alive(&mut self) {
        let Some(watchdog) = self.watchdog else { return };
        if self.alive.is_none_or(|told| told.elapsed() >= watchdog / 4) {
            self.alive = Some(Instant::now());
            self.tell("WATCHDOG=1");
        }
    }
}
