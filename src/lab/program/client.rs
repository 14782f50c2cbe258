//! A client that runs as a process of its own, for the faults whose subject is the caller.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

use super::server::{Ending, end};
use crate::lab::net;
use crate::lab::tally::Tally;
use crate::runtime::thread::start;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Client {
    /// Tried one after the other, as a program does with the addresses of a name.
    pub to: Vec<SocketAddr>,
    pub from: Option<IpAddr>,
    pub talk: Talk,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Talk {
    /// After `go`: a connection every so many milliseconds, kept open if `hold`.
    Connect { every_ms: u64, hold: bool },
    /// After `go`: on each connection a request of `bytes`, one answer, then the ending, and a pause.
    Request { bytes: usize, every_ms: u64, ending: Ending },
    /// After `go`: a request of `bytes` and its answer, a pause, and a second request on the same connection, whether or not
    /// the server has closed it.
    Reuse { bytes: usize, after_ms: u64, every_ms: u64 },
    /// After `go`: a connection every two milliseconds, aborted (SO_LINGER {1, 0}) within so many microseconds, another moment
    /// each time, so that every stage of the peer's own close is met. Before that a request of `bytes`, if any, and one read.
    Abort { bytes: usize, within_us: u64 },
    /// `count` connections from the start. After `go` each is read (and written) until it fails.
    Keep { count: usize, keepalive: bool, user_timeout_ms: Option<u32>, write_every_ms: Option<u64> },
}

impl Client {
    /// Commands: `go`, `stop`, `exit`. Ends with standard input.
    pub fn run(self, commands: &Receiver<String>, tally: &Tally) -> io::Result<()> {
        let kept = match self.talk {
            Talk::Keep { count, keepalive, user_timeout_ms, .. } => {
                (0..count).map(|_| self.keep(keepalive, user_timeout_ms)).collect::<io::Result<Vec<_>>>()?
            }
            _ => Vec::new(),
        };
        super::ready()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut kept = Some(kept);
        while let Ok(command) = commands.recv() {
            match command.as_str() {
                "go" => self.go(kept.take().unwrap_or_default(), tally, &stop)?,
                "stop" => stop.store(true, Ordering::Relaxed),
                "exit" => return Ok(()),
                _ => return Err(io::Error::other(format!("unknown command {command}"))),
            }
        }
        Ok(())
    }

    fn go(&self, kept: Vec<TcpStream>, tally: &Tally, stop: &Arc<AtomicBool>) -> io::Result<()> {
        if let Talk::Keep { write_every_ms, .. } = self.talk {
            for stream in kept {
                let tally = tally.clone();
                start("connection", move || use_until_broken(stream, write_every_ms, &tally))?;
            }
            return Ok(());
        }
        let client = self.clone();
        let (tally, stop) = (tally.clone(), Arc::clone(stop));
        start("client", move || {
            let mut held = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                client.once(&tally, &mut held);
            }
        })
        .map(|_| ())
    }

    fn once(&self, tally: &Tally, held: &mut Vec<TcpStream>) {
        let stream = tally.note("connect", self.connect());
        match self.talk {
            Talk::Connect { every_ms, hold } => {
                held.extend(stream.filter(|_| hold));
                thread::sleep(Duration::from_millis(every_ms));
            }
            Talk::Request { bytes, every_ms, ending } => {
                if let Some(mut stream) = stream
                    && tally.note("request", net::exchange(&mut stream, &vec![b'?'; bytes])).is_some()
                {
                    end(stream, ending);
                }
                thread::sleep(Duration::from_millis(every_ms));
            }
            Talk::Reuse { bytes, after_ms, every_ms } => {
                let Some(mut stream) = stream else { return };
                let request = vec![b'?'; bytes];
                if tally.note("request", net::exchange(&mut stream, &request)).is_some() {
                    thread::sleep(Duration::from_millis(after_ms));
                    tally.note("request after a pause", stream.write_all(&request));
                    thread::sleep(Duration::from_millis(every_ms));
                }
            }
            Talk::Abort { bytes, within_us } => {
                let Some(mut stream) = stream else { return };
                if bytes > 0 {
                    tally.note("request", net::exchange(&mut stream, &vec![b'?'; bytes]));
                }
                // Each connection has another port, so no state is needed to vary the moment.
                let port = stream.local_addr().map_or(0, |local| u64::from(local.port()));
                let until = Instant::now() + Duration::from_micros(port % within_us.max(1));
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                tally.note("abort", net::abort(stream));
                thread::sleep(Duration::from_millis(2));
            }
            Talk::Keep { .. } => {}
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut result = Err(io::ErrorKind::InvalidInput.into());
        for to in &self.to {
            result = match self.from {
                Some(from) => net::connect_from(from, *to),
                None => net::connect(*to),
            };
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn keep(&self, keepalive: bool, user_timeout_ms: Option<u32>) -> io::Result<TcpStream> {
        let stream = self.connect()?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        if keepalive {
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, Duration::from_secs(1))?;
            sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(1))?;
            sockopt::set_tcp_keepcnt(&stream, 1)?;
        }
        if let Some(limit) = user_timeout_ms {
            sockopt::set_tcp_user_timeout(&stream, limit)?;
        }
        Ok(stream)
    }
}

fn use_until_broken(mut stream: TcpStream, write_every_ms: Option<u64>, tally: &Tally) {
    let mut buffer = [0; 4096];
    loop {
        if let Some(pause) = write_every_ms {
            if let Err(error) = stream.write_all(b"?") {
                tally.note::<()>("write", Err(error));
                return;
            }
            thread::sleep(Duration::from_millis(pause));
            // The answer is of no interest, but a pending error is.
            let _ = stream.set_nonblocking(true);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return tally.add("read: end of file", 1),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                tally.note::<()>("read", Err(error));
                return;
            }
            _ => {}
        }
    }
}
