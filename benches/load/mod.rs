//! A network namespace filled with connected loopback sockets, for the benchmarks.
//!
//! Two sockets, one connection, cost two file descriptors; where the limit is too low for the number, several processes hold
//! them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// What a process that holds sockets is started with; [`hold_if_asked`] takes it.
const HOLD: &str = "--hold";

/// True if this process was one that holds sockets, and has held them.
pub fn hold_if_asked() -> bool {
    let asked = std::env::args().skip_while(|argument| argument != HOLD).nth(1);
    if let Some(sockets) = &asked {
        hold(sockets.parse().expect("--hold takes a number"));
    }
    asked.is_some()
}

/// Enters a new network namespace and starts the processes that fill it.
pub fn load(sockets: usize) -> io::Result<Vec<Holder>> {
    // SAFETY: no pointers; the process has one thread yet.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    link_up()?;
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
    let per_process = per_process()?;
    let mut holders = Vec::new();
    let mut left = sockets;
    while left > 0 {
        let now = left.min(per_process);
        holders.push(Holder::start(now)?);
        left -= now;
    }
    Ok(holders)
}

/// Half of the sockets are the accepted ends, and a process needs some files for itself. A process near its limit would be a
/// finding, which is not what is measured.
fn per_process() -> io::Result<usize> {
    Ok((raise_file_limit()? * 8 / 10 / 2 * 2).min(50_000))
}

/// How many local ports are in use towards the destination that has most of them.
#[allow(dead_code, reason = "one benchmark asks")]
pub fn ports_in_use(sockets: usize) -> io::Result<usize> {
    Ok((sockets.min(per_process()?) / 2).min(PER_DESTINATION))
}

/// Connections to one address.
const PER_DESTINATION: usize = 10_000;

/// Ends the process, and with it the sockets, when it is dropped.
pub struct Holder(Child);

impl Holder {
    fn start(sockets: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([HOLD, &sockets.to_string()])
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
        let now = left.min(PER_DESTINATION);
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

/// The result of a system call.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
