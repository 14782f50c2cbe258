//! A server with one chosen fault.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::lab::net;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    pub backlog: i32,
    pub reuse_port: bool,
    pub accept: Accept,
    pub then: Then,
    /// Soft and hard RLIMIT_NOFILE.
    pub open_files: Option<u64>,
}

/// How connections leave the accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accept {
    AtOnce,
    /// One every so many milliseconds.
    Every(u64),
    Never,
}

/// What becomes of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// Closed at once, unread.
    Close,
    /// As `Echo` for so many at once; each further one is told so and closed, unread.
    Limit { most: usize },
    /// A greeting, and whatever comes is read until the peer ends it.
    Greet,
    /// After a request, a part of an endless answer every 20 ms until the peer takes no more; its end of the stream is no reason
    /// to stop.
    Stream,
    /// Kept open, never read.
    Hold,
    /// Every read is answered with as many bytes, until the peer closes or has been idle for so many milliseconds.
    Echo { idle_ms: Option<u64> },
    /// Reads at most `read` bytes once, pauses, writes `write` bytes, then ends.
    Answer { read: usize, pause_ms: u64, write: usize, ending: Ending },
    /// As `Echo`, but at its end of the connection it says goodbye first, as TLS does with close_notify.
    Goodbye { idle_ms: Option<u64> },
    /// Reads to the end and keeps the descriptor for ever.
    Leak,
    /// Connects to a backend and, where that fails, closes with the request unread.
    Proxy { to: SocketAddr },
}

/// How a program ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    Close,
    /// SO_LINGER{1,0}.
    Abort,
    /// shutdown(SHUT_RDWR), the descriptor stays open.
    ShutdownBoth,
    /// shutdown(SHUT_WR), read to the end, close: the right way.
    Drain,
    /// Kept in a pool for so many milliseconds, then closed.
    Retire(u64),
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            backlog: 511,
            reuse_port: false,
            accept: Accept::AtOnce,
            then: Then::Echo { idle_ms: None },
            open_files: None,
        }
    }
}

impl Server {
    /// Commands: `exit`, `abort`, `close-listener`, `backlog N`. Ends with standard input.
    pub fn run(self, commands: &Receiver<String>) -> io::Result<()> {
        let mut listeners = self
            .listen
            .iter()
            .map(|address| net::listen(*address, self.backlog, self.reuse_port))
            .collect::<io::Result<Vec<_>>>()?;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        if let Some(limit) = self.open_files {
            setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })?;
        }
        super::ready()?;
        let mut held = Vec::new();
        loop {
            let wait = match self.accept {
                Accept::AtOnce => Duration::ZERO,
                Accept::Every(pause) => Duration::from_millis(pause),
                Accept::Never => Duration::from_secs(3600),
            };
            match next(commands, wait) {
                Ok(Some(command)) => obey(&command, &mut listeners)?,
                Ok(None) => {}
                Err(()) => return Ok(()),
            }
            if self.accept == Accept::Never {
                continue;
            }
            if self.accept == Accept::AtOnce {
                wait_readable(&listeners, Duration::from_millis(20));
            }
            // Accept::Every takes one connection per pause; AtOnce takes all there are.
            for listener in &listeners {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(false)?;
                    self.treat(stream, &mut held);
                    if self.accept != Accept::AtOnce {
                        break;
                    }
                }
            }
            // A program that retries accept() at once after EMFILE burns a CPU; most pause as this one.
            if self.open_files.is_some() {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn treat(&self, stream: TcpStream, held: &mut Vec<TcpStream>) {
        match self.then {
            Then::Close => drop(stream),
            Then::Limit { most } => limit(stream, most),
            Then::Greet => spawn(move || {
                let mut stream = stream;
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
                let _ = net::drain(&mut stream);
            }),
            Then::Stream => spawn(move || {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 4096]);
                while stream.write_all(&[b'.'; 1000]).is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            }),
            Then::Hold => held.push(stream),
            Then::Echo { idle_ms } => spawn(move || drop(echo(stream, idle_ms))),
            Then::Goodbye { idle_ms } => spawn(move || {
                let mut stream = echo(stream, idle_ms);
                let _ = stream.write_all(&[b'.'; 31]);
            }),
            Then::Answer { read, pause_ms, write, ending } => {
                spawn(move || answer(stream, read, pause_ms, write, ending));
            }
            Then::Proxy { to } => spawn(move || {
                if let Ok(backend) = net::connect(to) {
                    drop(echo(backend, None));
                }
                thread::sleep(Duration::from_millis(2));
                drop(stream);
            }),
            Then::Leak => spawn(move || {
                let mut stream = stream;
                let _ = net::drain(&mut stream);
                std::mem::forget(stream);
            }),
        }
    }
}

/// A thread that may fail to start when the limits are low; the connection is then closed, as any program would.
fn spawn(work: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().stack_size(64 * 1024).spawn(work);
}

fn limit(mut stream: TcpStream, most: usize) {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    if OPEN.fetch_add(1, Ordering::Relaxed) >= most {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        let _ = stream.write_all(b"too many connections\r\n");
        return;
    }
    spawn(move || {
        drop(echo(stream, None));
        OPEN.fetch_sub(1, Ordering::Relaxed);
    });
}

fn echo(mut stream: TcpStream, idle_ms: Option<u64>) -> TcpStream {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(idle_ms.map(Duration::from_millis));
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
            break;
        }
    }
    stream
}

fn answer(mut stream: TcpStream, read: usize, pause_ms: u64, write: usize, ending: Ending) {
    let mut buffer = vec![0; read];
    let _ = stream.read(&mut buffer);
    thread::sleep(Duration::from_millis(pause_ms));
    let _ = stream.write_all(&vec![b'.'; write]);
    end(stream, ending);
}

/// Ends a connection in the way asked for.
pub fn end(mut stream: TcpStream, ending: Ending) {
    match ending {
        Ending::Close => {}
        Ending::Abort => {
            let _ = net::linger_zero(&stream);
        }
        Ending::ShutdownBoth => {
            let _ = stream.shutdown(Shutdown::Both);
            std::mem::forget(stream);
        }
        Ending::Drain => {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.set_read_timeout(Some(net::PATIENCE));
            let _ = net::drain(&mut stream);
        }
        Ending::Retire(ms) => thread::sleep(Duration::from_millis(ms)),
    }
}

fn obey(command: &str, listeners: &mut Vec<TcpListener>) -> io::Result<()> {
    match command.split_once(' ').unwrap_or((command, "")) {
        ("exit", _) => std::process::exit(0),
        ("abort", _) => std::process::abort(),
        ("close-listener", _) => listeners.clear(),
        ("backlog", number) => {
            for listener in listeners.iter() {
                net::listen_again(listener, number.parse().map_err(io::Error::other)?)?;
            }
        }
        _ => return Err(io::Error::other(format!("unknown command {command}"))),
    }
    Ok(())
}

/// The next command, waiting at most so long; `Err` when there will be none.
fn next(commands: &Receiver<String>, wait: Duration) -> Result<Option<String>, ()> {
    if wait.is_zero() {
        return match commands.try_recv() {
            Ok(command) => Ok(Some(command)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        };
    }
    match commands.recv_timeout(wait) {
        Ok(command) => Ok(Some(command)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(()),
    }
}

fn wait_readable(listeners: &[TcpListener], limit: Duration) {
    let mut polled: Vec<PollFd<'_>> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
    // A signal or a timeout: the listeners are looked at all the same.
    let _ = poll(&mut polled, Timespec::try_from(limit).ok().as_ref());
}
