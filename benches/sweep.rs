//! The cost of a full socket sweep: receive and fold, against a receive loop that parses nothing. The bar is 1.1x.
//!
//! As root it makes a network namespace of its own and fills it with connected loopback sockets, so the figures are the
//! kernel's and not those of a replay:
//!
//! ```text
//! RSTDOCTOR_BENCH_SOCKETS=200000 cargo bench --bench sweep
//! ```
//!
//! The default is 20,000 sockets. Two of them, one connection, cost two file descriptors; where the limit is too low for
//! the number, several processes hold them. The two readers take turns, so that a slow moment of the machine hits both.
//! Without the right to make a namespace only the fold of recorded bytes is measured, and it says so.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rstdoctor::host::netlink::DiagSocket;
use rstdoctor::source::census::{Fold, QUERY};
use rstdoctor::source::listeners;
use rstdoctor::source::sock_diag::{Walker, request_both_families};

const BUFFER: usize = 64 << 10;

fn main() {
    if let Some(sockets) = std::env::args().skip_while(|argument| argument != "--hold").nth(1) {
        return hold(sockets.parse().expect("--hold takes a number"));
    }
    let sockets: usize = match std::env::var("RSTDOCTOR_BENCH_SOCKETS") {
        Ok(text) => text.parse().expect("RSTDOCTOR_BENCH_SOCKETS is a number of sockets"),
        Err(_) => 20_000,
    };
    match load(sockets) {
        Ok(holders) => {
            compare(sockets);
            whole_scan(sockets);
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

/// Enters a new network namespace and starts the processes that fill it.
fn load(sockets: usize) -> io::Result<Vec<Holder>> {
    // SAFETY: no pointers; the process has one thread yet.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    link_up()?;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
    let limit = raise_file_limit()?;
    // Half of the sockets are the accepted ends, and a process needs some files for itself.
    let per_process = (limit.saturating_sub(64) / 2 * 2).min(50_000);
    let mut holders = Vec::new();
    let mut left = sockets;
    while left > 0 {
        let now = left.min(per_process);
        holders.push(Holder::start(now)?);
        left -= now;
    }
    Ok(holders)
}

struct Holder(Child);

impl Holder {
    fn start(sockets: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--hold", &sockets.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut ready)?;
        match ready.trim() {
            "ready" => Ok(Self(child)),
            _ => Err(io::Error::other("a process that should hold sockets failed")),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It waits for the end of its stdin.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Holds `sockets` sockets, both ends counted, until stdin ends.
fn hold(sockets: usize) {
    raise_file_limit().expect("the file limit is readable");
    // A few services, each with addresses of its own to connect to, so that local ports do not run out.
    let host = (std::process::id() % 200 + 1) as u16;
    let mut kept = Vec::with_capacity(sockets);
    let mut listeners = Vec::new();
    let mut left = sockets / 2;
    for index in 0u16.. {
        let now = left.min(10_000);
        if now == 0 {
            break;
        }
        let port = host * 5 + index;
        let listener = std::net::TcpListener::bind(("0.0.0.0", port)).expect("bind");
        let address = (format!("127.0.{host}.{}", index + 1), port);
        for _ in 0..now {
            kept.push(std::net::TcpStream::connect((address.0.as_str(), address.1)).expect("connect"));
            kept.push(listener.accept().expect("accept").0);
        }
        left -= now;
        listeners.push(listener);
    }
    println!("ready");
    let _ = io::Read::read(&mut io::stdin(), &mut [0]);
    for socket in &kept {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the pointer and the length are those of `linger`. It keeps TIME_WAIT from outliving the benchmark.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as u32,
            )
        };
    }
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
        let census = fold.finish();
        sweep.push(start.elapsed());
        seen = census.by_state.values().sum();
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

fn raise_file_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is that of `limit`.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    for wanted in [1 << 20, limit.rlim_max] {
        let raised = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
        // SAFETY: the pointer is that of `raised`.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            return Ok(wanted as usize);
        }
    }
    Ok(limit.rlim_cur as usize)
}

fn link_up() -> io::Result<()> {
    // SAFETY: the request is zeroed plain data with a terminated name, and lives across both calls.
    unsafe {
        let socket =
            OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request))?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
