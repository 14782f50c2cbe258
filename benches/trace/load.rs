//! What makes connections and resets.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rstdoctor::lab::net;

const THREADS: u16 = 2;

/// Refused connects: how many, and the microseconds of one thread for each.
pub struct Refused {
    pub connects: u64,
    pub micros: f64,
}

/// As fast as possible, or so many connects a second, for that long.
pub fn refused(seconds: Duration, rate: Option<f64>) -> Refused {
    let start = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let rate = rate.map(|rate| rate / f64::from(THREADS));
            std::thread::spawn(move || refused_by_one(81 + thread, start, seconds, rate))
        })
        .collect();
    let connects: u64 = threads.into_iter().map(|thread| thread.join().expect("connects")).sum();
    Refused { connects, micros: seconds.as_secs_f64() * 1e6 * f64::from(THREADS) / connects as f64 }
}

fn refused_by_one(port: u16, start: Instant, seconds: Duration, rate: Option<f64>) -> u64 {
    let mut count = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= seconds {
            return count;
        }
        let due = rate.map_or(count + 16, |rate| (elapsed.as_secs_f64() * rate) as u64);
        if due == count {
            std::thread::sleep(Duration::from_millis(1));
        }
        while count < due && start.elapsed() < seconds {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
            count += 1;
        }
    }
}

/// Connections that are accepted and closed by both ends, one after the other: microseconds for each.
pub fn regular(seconds: Duration) -> f64 {
    // The server closes first and keeps the TIME_WAIT, so that the client's ports stay free.
    ended(seconds, drop)
}

/// Connections that the server aborts (SO_LINGER 0), one after the other: microseconds for each.
pub fn aborted(seconds: Duration) -> f64 {
    ended(seconds, |server| net::abort(server).expect("SO_LINGER"))
}

fn ended(seconds: Duration, end: impl Fn(TcpStream)) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < seconds {
        for _ in 0..16 {
            let client = TcpStream::connect(address).expect("connects");
            let (server, _) = listener.accept().expect("accepts");
            end(server);
            drop(client);
            count += 1;
        }
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

/// CPU time of this process so far, in microseconds.
pub fn cpu() -> f64 {
    // SAFETY: the structure is written by the call and lives until after it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// Tcp.OutRsts of this namespace.
pub fn out_rsts() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("readable");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (tcp.next().expect("names"), tcp.next().expect("values"));
    let index = names.split(' ').position(|name| name == "OutRsts").expect("OutRsts");
    values.split(' ').nth(index).and_then(|value| value.parse().ok()).expect("a number")
}
