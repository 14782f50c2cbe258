//! Namespaces and sockets for tests that provoke real resets, and the account of tests that could not be run.

pub mod forge;
pub mod skips;

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use skips::skipped;

/// Names, to the process inside, the test that it runs.
const INSIDE: &str = "RSTDOCTOR_TEST_ISOLATED";

/// The arguments of a live run, restricted to the network namespace of the test: what else this machine does is none of it.
pub fn here<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    const LIVE: [&str; 4] = ["scan", "watch", "trace", "record"];
    const ELSEWHERE: [&str; 3] = ["--from", "--netns", "--this-netns"];
    let live = arguments.first().is_some_and(|command| LIVE.contains(command));
    let elsewhere = arguments.iter().any(|argument| ELSEWHERE.contains(argument));
    let mut arguments = arguments.to_vec();
    if live && !elsewhere {
        arguments.insert(1, "--this-netns");
    }
    arguments
}

/// A shell that starts a job in the background lets it ignore INT and QUIT: so will the commands until they take them.
pub fn is_ignored(signal: rustix::process::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() & (1 << (signal.as_raw() - 1)) != 0
}

/// The name of the test that runs on this thread.
pub fn test_name() -> String {
    let here = std::thread::current().name().unwrap_or("a test").to_owned();
    std::env::var(INSIDE).unwrap_or(here)
}

/// For what must not run beside a test that floods: the tracepoints see the whole host, so one test's flood is in the
/// tallies of all.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the calling test, whose body this is, again in a process with a network and mount namespace of its own, so that
/// nothing outside changes and all ends with it. A process, because the namespace of an event is that of the process
/// behind it.
pub fn isolated<T: FnOnce()>(test: T) {
    isolated_as::<T>(test);
}

/// As [`isolated`], for helpers that wrap the body `T` of the test.
pub fn isolated_as<T>(test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        test();
        return skips::passed_inside();
    }
    // "it::MODULE::TEST::{{closure}}"
    let path = std::any::type_name::<T>();
    let name = path.split_once("::").and_then(|(_, path)| path.strip_suffix("::{{closure}}"));
    let name = name.unwrap_or_else(|| panic!("{path} is no closure in a test"));
    let _turn = one_at_a_time();
    const ENTER: &str = "{ grep -q ' /sys/kernel/tracing tracefs ' /proc/self/mounts || \
                         mount -t tracefs tracefs /sys/kernel/tracing; } && ip link set lo up && exec \"$@\"";
    match Command::new("unshare").args(["-mn", "sh", "-c", ENTER, "sh", "true"]).output() {
        Ok(tried) if tried.status.success() => {}
        tried => {
            let why =
                tried.map_or_else(|error| error.to_string(), |it| String::from_utf8_lossy(&it.stderr).into_owned());
            return skipped(format!("needs root, for a network namespace and a tracefs of its own ({})", why.trim()));
        }
    }
    let mut inside = Command::new("unshare");
    inside.args(["-mn", "sh", "-c", ENTER, "sh"]).arg(std::env::current_exe().unwrap());
    inside.args([name, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]).env(INSIDE, name);
    let status = skips::collect(inside);
    assert!(status.success(), "{name} failed inside its namespace");
}

/// Established connections over loopback: client, server.
pub fn pairs(count: usize) -> Vec<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (0..count).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect()
}

/// Makes the next close of this socket a reset.
pub fn linger_0(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of_val(&linger) as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: the value is a linger of the stated size.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size) };
    assert_eq!(result, 0);
}

/// Tcp.OutRsts of this thread's namespace.
pub fn out_rsts() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let index = names.split(' ').position(|name| name == "OutRsts").unwrap();
    values.split(' ').nth(index).unwrap().parse().unwrap()
}

/// Sends single SYNs over loopback, faster than connect(2) can.
pub struct RawSender {
    fd: i32,
}

impl RawSender {
    pub fn open() -> Self {
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        Self { fd }
    }

    pub fn syn(&self, to: u16, from: u16) {
        let mut tcp = [0u8; 20];
        tcp[..2].copy_from_slice(&from.to_be_bytes());
        tcp[2..4].copy_from_slice(&to.to_be_bytes());
        tcp[12..14].copy_from_slice(&[0x50, 0x02]);
        // Of the pseudo header only the addresses, the protocol and the length are not zero.
        let mut sum: u32 = 2 * (0x7f00 + 1) + 6 + 20;
        sum += tcp.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        // SAFETY: sockaddr_in is plain data, for which zero is valid.
        let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        address.sin_family = libc::AF_INET as u16;
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the segment and the address live longer than the call and have the stated sizes.
        let sent =
            unsafe { libc::sendto(self.fd, tcp.as_ptr().cast(), tcp.len(), 0, (&raw const address).cast(), size) };
        assert_eq!(sent, 20, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for RawSender {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this one's own and is not used again.
        unsafe { libc::close(self.fd) };
    }
}

/// Processes, zombies excepted, that carry this mark in their environment.
pub fn marked(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc is readable");
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

/// What a tracer could leave behind: instances, probes, enabled events, filters.
pub fn tracefs() -> Vec<(String, String)> {
    let root = std::path::Path::new("/sys/kernel/tracing");
    let list = |name: &str| {
        let mut names: Vec<_> = std::fs::read_dir(root.join(name)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        (name.to_owned(), format!("{names:?}"))
    };
    const FILES: [&str; 6] =
        ["set_event", "kprobe_events", "uprobe_events", "dynamic_events", "current_tracer", "tracing_on"];
    const EVENTS: [&str; 3] = ["tcp/tcp_send_reset", "tcp/tcp_receive_reset", "sock/inet_sock_set_state"];
    let events =
        EVENTS.iter().flat_map(|event| ["enable", "filter", "trigger"].map(|file| format!("events/{event}/{file}")));
    let files = FILES.map(str::to_owned).into_iter().chain(events);
    let read = |name: String| std::fs::read_to_string(root.join(&name)).ok().map(|text| (name, text));
    std::iter::once(list("instances")).chain(files.filter_map(read)).collect()
}
