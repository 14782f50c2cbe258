//! What a trace costs in a storm of resets, beside no reader, tcpdump and bpftrace.
//!
//! Two threads connect to a closed port over loopback as fast as they can: each refused connect is one RST sent and one
//! received. The readers take turns, so that a slow moment of the machine hits all of them; a reader's ratio is to the run
//! without in the same round. The trace is the real program, its lines go to /dev/null. Everything sent and received, and what
//! the trace says it lost, must add up to what the kernel counted.
//!
//! ```text
//! RSTDOCTOR_BENCH_SECONDS=5 RSTDOCTOR_BENCH_ROUNDS=3 cargo bench --bench trace
//! ```

use std::io::{self, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "RSTDOCTOR_BENCH_INSIDE";
const THREADS: u16 = 2;

fn main() {
    // `cargo test --benches` starts it too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return eprintln!("skipped: a benchmark runs with cargo bench");
    }
    if std::env::var_os(INSIDE).is_some() {
        return compare();
    }
    const ENTER: &str = "mount -t tracefs tracefs /sys/kernel/tracing && ip link set lo up && exec \"$@\"";
    let isolated = || {
        let mut command = Command::new("unshare");
        command.args(["-mn", "sh", "-c", ENTER, "sh"]);
        command
    };
    if !isolated().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: needs root, for a network namespace and a tracefs of its own");
    }
    let exe = std::env::current_exe().expect("own path");
    let status = isolated().arg(exe).arg("--bench").env(INSIDE, "1").status().expect("runs");
    assert!(status.success());
}

struct Reader {
    name: &'static str,
    command: &'static [&'static str],
    /// Until it looks; nothing on a pipe says so.
    starts: Duration,
}

const READERS: [Reader; 4] = [
    Reader { name: "no reader", command: &[], starts: Duration::ZERO },
    Reader {
        name: "rstdoctor trace",
        command: &[env!("CARGO_BIN_EXE_rstdoctor"), "trace"],
        starts: Duration::from_millis(1_000),
    },
    Reader {
        name: "tcpdump",
        command: &["tcpdump", "-i", "lo", "-n", "-q", "tcp[tcpflags] & tcp-rst != 0"],
        starts: Duration::from_millis(1_500),
    },
    Reader {
        name: "bpftrace",
        command: &[
            "bpftrace",
            "-e",
            "tracepoint:tcp:tcp_send_reset,tracepoint:tcp:tcp_receive_reset { printf(\"%d %d %d %s\\n\", args->sport, args->dport, pid, comm); }",
        ],
        starts: Duration::from_millis(4_000),
    },
];

struct Run {
    /// Microseconds of one thread per refused connect.
    micros: f64,
    connects: u64,
    cpu: f64,
    peak_mib: f64,
    said: String,
}

fn compare() {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let seconds = Duration::from_secs(number("RSTDOCTOR_BENCH_SECONDS", 5));
    let rounds = number("RSTDOCTOR_BENCH_ROUNDS", 3) as usize;
    let present = |reader: &&Reader| match reader.command.first() {
        None => true,
        Some(program) => {
            let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if found.is_err() {
                eprintln!("skipped: {program} is not installed");
            }
            found.is_ok()
        }
    };
    let readers: Vec<&Reader> = READERS.iter().filter(present).collect();
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); readers.len()];
    for round in 1..=rounds {
        println!("round {round}");
        let mut without = 0.0;
        for (reader, ratios) in readers.iter().zip(&mut ratios) {
            let sent = out_rsts();
            let run = run(reader, seconds);
            let sent = out_rsts() - sent;
            assert_eq!(sent, run.connects, "each refused connect is one RST");
            if reader.command.is_empty() {
                without = run.micros;
            }
            ratios.push(run.micros / without);
            println!(
                "  {:16} {:7.0} resets/s  {:6.2} us per connect and thread  x{:.2}  reader {:5.2} s CPU, {:5.1} MiB peak",
                reader.name,
                2.0 * run.connects as f64 / seconds.as_secs_f64(),
                run.micros,
                run.micros / without,
                run.cpu,
                run.peak_mib
            );
            if reader.name == "rstdoctor trace" {
                accounted(&run, sent);
            } else {
                let lines = run.said.lines().filter(|line| line.contains("captured") || line.contains("ropped"));
                lines.for_each(|line| println!("    {line}"));
                let lost = run
                    .said
                    .lines()
                    .filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok());
                let lost: u64 = lost.sum();
                if lost > 0 {
                    println!("    lost {lost}");
                }
            }
        }
    }
    println!("median of {rounds}");
    for (reader, ratios) in readers.iter().zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        println!("  {:16} x{:.2}", reader.name, ratios[ratios.len() / 2]);
    }
}

/// Every reset that the kernel counted was seen or is known to be lost.
fn accounted(run: &Run, sent: u64) {
    let number = |text: &str| text.replace(',', "").parse::<u64>().unwrap_or(0);
    let labelled = |label: &str| {
        let line = run.said.lines().find_map(|line| line.trim_start().strip_prefix(label));
        line.and_then(|rest| rest.split_whitespace().next()).map_or(0, number)
    };
    let first = run.said.lines().find(|line| line.contains(" resets in ")).unwrap_or_default();
    let total = first.split(' ').next().map_or(0, number);
    let (lost, unread, hidden) = (labelled("lost "), labelled("not read "), labelled("not shown "));
    println!("    {first}; lost {lost}, not read {unread}, not shown {hidden}; the kernel counted {sent} sent");
    for line in run.said.lines().filter(|line| line.contains(": ") || line.contains("packets lost")) {
        println!("      {}", line.trim());
    }
    let seen = total + lost + unread;
    assert!(seen.abs_diff(2 * sent) == 0, "{seen} accounted for of {}:\n{}", 2 * sent, run.said);
}

fn run(reader: &Reader, seconds: Duration) -> Run {
    let child = reader.command.split_first().map(|(program, arguments)| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("the reader starts")
    });
    std::thread::sleep(reader.starts);
    let threads: Vec<_> =
        (0..THREADS).map(|thread| std::thread::spawn(move || connect(81 + thread, seconds))).collect();
    let connects: u64 = threads.into_iter().map(|thread| thread.join().expect("connects")).sum();
    // What is on the way to the reader arrives.
    std::thread::sleep(Duration::from_millis(300));
    let micros = seconds.as_secs_f64() * 1e6 * f64::from(THREADS) / connects as f64;
    let (cpu, peak_mib, said) = child.map_or((0.0, 0.0, String::new()), |child| end(child).expect("the reader ends"));
    Run { micros, connects, cpu, peak_mib, said }
}

fn connect(port: u16, seconds: Duration) -> u64 {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < seconds {
        for _ in 0..16 {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
            count += 1;
        }
    }
    count
}

/// Interrupts the reader: CPU seconds, peak memory in MiB, standard error.
fn end(mut child: Child) -> io::Result<(f64, f64, String)> {
    let pid = child.id() as i32;
    // SAFETY: plain call on our own child, which was not waited for.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let mut said = String::new();
    child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?.read_to_string(&mut said)?;
    // SAFETY: status and usage are written by the call and live until after it.
    let usage = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        if libc::wait4(pid, &mut status, 0, &mut usage) != pid {
            return Err(io::Error::last_os_error());
        }
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok((seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as f64 / 1024.0, said))
}

/// Tcp.OutRsts of this namespace.
fn out_rsts() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("readable");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (tcp.next().expect("names"), tcp.next().expect("values"));
    let index = names.split(' ').position(|name| name == "OutRsts").expect("OutRsts");
    values.split(' ').nth(index).and_then(|value| value.parse().ok()).expect("a number")
}
