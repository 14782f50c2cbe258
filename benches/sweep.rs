//! The cost of a full socket sweep: receive and fold, against a receive loop that parses nothing. The bar is 1.1x.
//!
//! As root it makes a network namespace of its own and fills it with connected loopback sockets, so the figures are the
//! kernel's and not those of a replay:
//!
//! ```text
//! RSTDOCTOR_BENCH_SOCKETS=200000 cargo bench --bench sweep
//! ```
//!
//! The default is 20,000 sockets. The two readers take turns, so that a slow moment of the machine hits both.
//! Without the right to make a namespace only the fold of recorded bytes is measured, and it says so.

#![allow(unsafe_code, reason = "measures system calls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot measure ends")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use rstdoctor::kernel::netlink::DiagSocket;
use rstdoctor::source::listeners;
use rstdoctor::source::sock_diag::{Walker, request_both_families};
use rstdoctor::source::socket_dump::{Fold, QUERY};

mod load;

use load::check;

const BUFFER: usize = 64 << 10;

fn main() {
    if load::hold_if_asked() {
        return;
    }
    let sockets: usize = match std::env::var("RSTDOCTOR_BENCH_SOCKETS") {
        Ok(text) => text.parse().expect("RSTDOCTOR_BENCH_SOCKETS is a number of sockets"),
        Err(_) => 20_000,
    };
    match load::load(sockets) {
        Ok(holders) => {
            compare(sockets);
            whole_scan(sockets);
            without_window("nothing wrong", 1.4);
            // With five sixths of the ports in use towards one destination that is a finding, which names who.
            let last = 1023 + load::ports_in_use(sockets).expect("the limit was read before") * 6 / 5;
            let range = format!("1024 {last}");
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).expect("the namespace is ours");
            without_window("local ports exhausted", 2.5);
            drop(holders);
        }
        Err(error) => eprintln!("skipped: live sweep of {sockets} sockets: {error}"),
    }
    divan::main();
}

/// The program as a person runs it, on the same load: wall time beyond its window, CPU time and peak memory.
fn whole_scan(sockets: usize) {
    const WINDOW: Duration = Duration::from_secs(1);
    let started = std::time::Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
        .args(["scan", "--duration", "1s", "--json"])
        .stdout(Stdio::null())
        .status()
        .expect("the program starts");
    // SAFETY: rusage is plain data that getrusage(2) fills. The holders still run, so the scan is the only child so far.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        check(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage)).expect("getrusage");
        usage
    };
    let took = started.elapsed().saturating_sub(WINDOW);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    println!(
        "whole scan of {sockets} sockets (two sweeps, owners of what findings name): {status}, {:.2} s beyond its window, \
         {:.2} s of CPU, peak memory {:.1} MB (bar: 20 MB)",
        took.as_secs_f64(),
        seconds(usage.ru_utime) + seconds(usage.ru_stime),
        usage.ru_maxrss as f64 / 1024.0,
    );
}

/// `scan -d 0s`, from its start to its end, against a receive loop that parses nothing. They take turns.
fn without_window(what: &str, bar: f64) {
    const ROUNDS: usize = 7;
    let request = request_both_families(&QUERY);
    let mut buffer = vec![0; BUFFER];
    let (mut floor, mut scan) = (Vec::new(), Vec::new());
    let mut report = Vec::new();
    for _ in 0..ROUNDS {
        let start = Clock::start();
        receive(&request, &mut buffer, |_| {});
        floor.push(start.elapsed().wall());

        let start = Clock::start();
        let output = Command::new(env!("CARGO_BIN_EXE_rstdoctor"))
            .args(["scan", "-d", "0s", "--json"])
            .output()
            .expect("it starts");
        scan.push(start.elapsed().wall());
        report = output.stdout;
    }
    let (floor, scan) = (Spread::of(floor), Spread::of(scan));
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    let causes = report["causes"].as_array().expect("causes");
    let named = report["causes"].to_string().contains("\"pid\"");
    println!(
        "scan -d 0s, {what} ({} findings, processes named: {named}): {:.1?} against {:.1?} to receive only, ratio min {:.2}, \
         median {:.2} (the bar is {bar})",
        causes.len(),
        scan.median,
        floor.median,
        scan.min.as_secs_f64() / floor.min.as_secs_f64(),
        scan.median.as_secs_f64() / floor.median.as_secs_f64(),
    );
}

/// The fold alone, over bytes in memory: what the sweep adds to the kernel's own work.
#[divan::bench(args = [2_000, 20_000])]
fn fold_recorded(bencher: divan::Bencher, sockets: usize) {
    let datagrams = synthetic(sockets);
    bencher.counter(divan::counter::ItemsCount::new(sockets)).bench_local(|| {
        let (mut walker, mut fold) = (Walker::default(), Fold::new(&[]));
        for datagram in &datagrams {
            walker.feed(datagram, |socket| fold.add(socket));
        }
        fold.finish()
    });
}

/// ESTABLISHED sockets with tcp_info, each with another peer: the dearest for the fold.
fn synthetic(sockets: usize) -> Vec<Vec<u8>> {
    let message = |n: usize| {
        let mut bytes = vec![0; 16 + 72 + 4 + 248];
        let length = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&20u16.to_ne_bytes());
        bytes[16..20].copy_from_slice(&[2, 1, 0, 0]);
        bytes[20..22].copy_from_slice(&(1024 + (n % 60_000) as u16).to_be_bytes());
        bytes[22..24].copy_from_slice(&443u16.to_be_bytes());
        bytes[24..28].copy_from_slice(&[10, 0, 0, 1]);
        bytes[40..44].copy_from_slice(&(0x0a01_0000 + n as u32).to_be_bytes());
        bytes[88..90].copy_from_slice(&252u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&2u16.to_ne_bytes());
        bytes
    };
    let messages: Vec<_> = (0..sockets).map(message).collect();
    messages.chunks(90).map(|chunk| chunk.concat()).collect()
}

fn compare(sockets: usize) {
    const ROUNDS: usize = 15;
    let request = request_both_families(&QUERY);
    let mut buffer = vec![0; BUFFER];
    let mut listeners_answer = Vec::new();
    receive(&request_both_families(&listeners::QUERY), &mut buffer, |datagram| listeners_answer.extend(datagram));
    let listeners = listeners::parse(&listeners_answer);
    let listeners = listeners.value().expect("the holders listen");
    let (mut floor, mut sweep) = (Vec::new(), Vec::new());
    let mut socket = DiagSocket::default();
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let start = Clock::start();
        receive(&request, &mut buffer, |_| {});
        floor.push(start.elapsed());

        let start = Clock::start();
        let (mut walker, mut fold) = (Walker::default(), Fold::new(listeners));
        let dumped = socket.dump(&QUERY, &mut |datagram| walker.feed(datagram, |socket| fold.add(socket)));
        let socket_dump = fold.finish();
        sweep.push(start.elapsed());
        seen = socket_dump.by_state.values().sum();
        assert_eq!(dumped.and(walker.finish()), Ok(()), "the dump is whole");
    }
    assert!(seen as usize >= sockets, "{seen} sockets seen of {sockets}");
    println!("{seen} sockets of both families, {ROUNDS} rounds each, taking turns:");
    for (clock, pick) in [("wall", Clock::wall as fn(&Clock) -> Duration), ("CPU", Clock::cpu)] {
        let [floor, sweep] = [&floor, &sweep].map(|times| Spread::of(times.iter().map(pick).collect()));
        println!("  {clock:<4} receive only      min {:>9.1?}  median {:>9.1?}", floor.min, floor.median);
        println!("       sweep of a scan   min {:>9.1?}  median {:>9.1?}", sweep.min, sweep.median);
        println!(
            "       ratio             min {:>9.3}  median {:>9.3}  (the bar is 1.1)",
            sweep.min.as_secs_f64() / floor.min.as_secs_f64(),
            sweep.median.as_secs_f64() / floor.median.as_secs_f64(),
        );
    }
}

/// Time by the wall and CPU time of this thread, which works in the kernel's dump too: the second does not count the
/// moments in which another process had the processor.
struct Clock {
    wall: Duration,
    cpu: Duration,
}

impl Clock {
    fn start() -> Self {
        let read = |clock| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the pointer is that of `time`.
            check(unsafe { libc::clock_gettime(clock, &mut time) }).expect("the clock is readable");
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        Self { wall: read(libc::CLOCK_MONOTONIC), cpu: read(libc::CLOCK_THREAD_CPUTIME_ID) }
    }

    fn elapsed(&self) -> Self {
        let now = Self::start();
        Self { wall: now.wall - self.wall, cpu: now.cpu - self.cpu }
    }

    fn wall(&self) -> Duration {
        self.wall
    }

    fn cpu(&self) -> Duration {
        self.cpu
    }
}

struct Spread {
    min: Duration,
    median: Duration,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self { min: times[0], median: times[times.len() / 2] }
    }
}

/// Sends the request and hands every datagram over, until the dump has ended.
fn receive(request: &[u8], buffer: &mut [u8], mut each: impl FnMut(&[u8])) {
    // SAFETY: no pointers; the descriptor is new and ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG);
        OwnedFd::from_raw_fd(check(fd).expect("netlink socket"))
    };
    // SAFETY: pointer and length are those of `request`; an unconnected netlink socket sends to the kernel.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    assert_eq!(sent, request.len() as isize, "send: {}", io::Error::last_os_error());
    loop {
        // SAFETY: pointer and length are those of `buffer`.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert!(got > 0, "recv: {}", io::Error::last_os_error());
        let datagram = &buffer[..got as usize];
        each(datagram);
        // NLMSG_DONE comes in a datagram of its own or as its last message, 20 bytes long.
        let last = datagram.len().saturating_sub(20);
        let kind = |at: usize| u16::from_ne_bytes([datagram[at + 4], datagram[at + 5]]);
        assert_ne!(kind(0), 2, "the kernel refused the dump");
        if kind(0) == 3 || (datagram[last..last + 4] == 20u32.to_ne_bytes() && kind(last) == 3) {
            break;
        }
    }
}
