//! The programs that look at resets.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::few;

pub struct Reader {
    pub name: &'static str,
    command: Vec<String>,
    /// Until it looks; nothing on a pipe says so.
    starts: Duration,
}

const TRACE: &str = env!("CARGO_BIN_EXE_rstdoctor");
/// Path of another build, to compare with.
const OTHER: &str = "RSTDOCTOR_BENCH_OTHER";
pub const TEXT: &str = "rstdoctor trace";
/// The same without call chains and errors.
pub const FEW: &str = "trace, few details";
pub const JSON: &str = "trace --json";
pub const JSON_OF_OTHER: &str = "other --json";
/// The two tracepoints have different fields.
const BPFTRACE: &str = r#"
tracepoint:tcp:tcp_send_reset { printf("%r %r %d %s\n", buf(args->saddr, 8), buf(args->daddr, 8), pid, comm); }
tracepoint:tcp:tcp_receive_reset { printf("%d %d %d %s\n", args->sport, args->dport, pid, comm); }
"#;

/// Those that are installed; the others are named. Another build of this program is one of them, if its path is given.
pub fn present() -> Vec<Reader> {
    let reader = |name, command: &[&str], starts| Reader {
        name,
        command: command.iter().map(|&word| word.to_owned()).collect(),
        starts: Duration::from_millis(starts),
    };
    let other = std::env::var(OTHER).ok();
    let this = std::env::current_exe().expect("own path").to_string_lossy().into_owned();
    let mut readers = vec![
        reader("no reader", &[], 0),
        reader(TEXT, &[TRACE, "trace"], 1_000),
        reader(FEW, &[&this, "--bench"], 1_000),
        reader(JSON, &[TRACE, "trace", "--json"], 1_000),
    ];
    readers.extend(other.as_deref().map(|other| reader(JSON_OF_OTHER, &[other, "trace", "--json"], 1_000)));
    readers.extend([
        reader("tcpdump", &["tcpdump", "-i", "lo", "-n", "-q", "tcp[tcpflags] & tcp-rst != 0"], 1_500),
        reader("bpftrace", &["bpftrace", "-e", BPFTRACE], 4_000),
    ]);
    let installed = |reader: &Reader| {
        let Some(program) = reader.command.first().filter(|_| reader.name != FEW) else { return true };
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            eprintln!("skipped: {program} is not installed");
        }
        found.is_ok()
    };
    readers.retain(installed);
    readers
}

/// What a reader used and said.
#[derive(Default)]
pub struct Used {
    pub cpu: f64,
    pub peak_mib: f64,
    /// Lines on standard output, and the last ones of them.
    pub lines: u64,
    pub tail: String,
    pub stderr: String,
}

/// Counts the lines, keeps the last ones.
type Output = JoinHandle<(u64, Vec<u8>)>;

pub struct Running {
    child: Option<(Child, Output)>,
}

impl Reader {
    pub fn is_none(&self) -> bool {
        self.command.is_empty()
    }

    /// Starts it and waits until it looks. Its output is read and its lines counted.
    pub fn start(&self) -> Running {
        let child = self.command.split_first().map(|(program, arguments)| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            // One encoding for all that write text.
            command.env("LC_ALL", "C");
            if self.name == FEW {
                command.env(few::SELECTED, "1");
            }
            let mut child = command.spawn().expect("the reader starts");
            let stdout = child.stdout.take().expect("piped");
            (child, std::thread::spawn(move || count_lines(stdout)))
        });
        std::thread::sleep(self.starts);
        Running { child }
    }
}

fn count_lines(mut from: impl Read) -> (u64, Vec<u8>) {
    const TAIL: usize = 64 << 10;
    let (mut lines, mut tail, mut buffer) = (0, Vec::new(), vec![0; 256 << 10]);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        lines += buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        tail.extend_from_slice(&buffer[length.saturating_sub(TAIL)..length]);
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    (lines, tail)
}

impl Running {
    /// Interrupts the reader once what is on the way has arrived.
    pub fn end(self) -> Used {
        std::thread::sleep(Duration::from_millis(300));
        self.child.map_or_else(Used::default, |(child, output)| end(child, output).expect("the reader ends"))
    }
}

fn end(mut child: Child, output: Output) -> io::Result<Used> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let pid = child.id() as i32;
    // SAFETY: plain call on our own child, which was not waited for.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let mut stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let start = Instant::now();
    let usage = loop {
        // SAFETY: status and usage are written by the call and live until after it.
        let (waited, usage) = unsafe {
            let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
            (libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage), usage)
        };
        match waited {
            0 if start.elapsed() > PATIENCE => {
                // SAFETY: as above.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                return Err(io::Error::other("it does not end on SIGINT"));
            }
            0 => std::thread::sleep(Duration::from_millis(10)),
            _ if waited == pid => break usage,
            _ => return Err(io::Error::last_os_error()),
        }
    };
    let (lines, tail) = output.join().map_err(|_| io::Error::other("its output cannot be read"))?;
    let stderr = said.join().map_err(|_| io::Error::other("what it says cannot be read"))??;
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Used {
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_mib: usage.ru_maxrss as f64 / 1024.0,
        lines,
        tail: String::from_utf8_lossy(&tail).into_owned(),
        stderr,
    })
}
