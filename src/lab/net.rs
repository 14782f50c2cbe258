//! TCP calls that std does not offer, each bounded in time.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// No call of the lab blocks longer.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// listen(2) with a backlog of one's own; std fixes it.
pub fn listen(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = tcp_socket(address)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if reuse_port {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    bind(&socket, address)?;
    listen_again(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

/// listen(2) on a socket that may listen already: that changes its backlog (net/ipv4/af_inet.c inet_listen).
pub fn listen_again(socket: &impl AsRawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: listen(2) takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })
}

/// A connect bounded by [`PATIENCE`], with read and write timeouts set.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    prepared(TcpStream::connect_timeout(&to, PATIENCE)?)
}

/// A connect from a chosen local address.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp_socket(to)?;
    bind(&socket, SocketAddr::new(from, 0))?;
    // connect(2) obeys SO_SNDTIMEO (socket(7)).
    let timeout = libc::timeval { tv_sec: 1, tv_usec: 500_000 };
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, timeout)?;
    let (address, length) = sockaddr(to);
    // SAFETY: the address is initialised for `length` bytes.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    prepared(TcpStream::from(socket))
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// SO_LINGER{1,0}: close(2) then sends a RST (tcp(7), net/ipv4/tcp.c __tcp_close).
pub fn linger_zero(stream: &impl AsRawFd) -> io::Result<()> {
    set(stream, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Closes with a RST.
pub fn abort(stream: TcpStream) -> io::Result<()> {
    linger_zero(&stream)
}

/// Closes without a word to the peer: a socket in TCP_REPAIR mode sends nothing (net/ipv4/tcp.c __tcp_close). Needs
/// CAP_NET_ADMIN in its network namespace.
pub fn forget(stream: TcpStream) -> io::Result<()> {
    set(&stream, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1)
}

/// setsockopt(2) of a plain C value.
pub fn set<T: Copy>(socket: &impl AsRawFd, level: i32, option: i32, value: T) -> io::Result<()> {
    // SAFETY: the value lives through the call and its size is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    })
}

/// Sends `request` and reads one answer of at least a byte; end of file before it is an error.
pub fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<usize> {
    stream.write_all(request)?;
    receive(stream)
}

/// Reads at least a byte; end of file is an error.
pub fn receive(stream: &mut TcpStream) -> io::Result<usize> {
    match stream.read(&mut [0; 4096])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

/// Reads to the end of the stream; the number of bytes.
pub fn drain(stream: &mut TcpStream) -> io::Result<u64> {
    io::copy(stream, &mut io::sink())
}

fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    own(
        // SAFETY: socket(2) takes no pointers.
        unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) },
    )
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (address, length) = sockaddr(address);
    // SAFETY: the address is initialised for `length` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

/// Takes a descriptor that a system call just returned.
pub fn own(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller passes a descriptor fresh from the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

pub fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The C form of an address (ip(7), ipv6(7)) and its length.
pub fn sockaddr(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage, and it is large enough and aligned for both forms.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let form = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: see above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(form) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let form = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: see above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(form) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}
