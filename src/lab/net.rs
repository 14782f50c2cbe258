//! TCP calls that std does not offer, each bounded in time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::sys;

/// No call of the lab blocks longer.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// listen(2) with a backlog of one's own; std fixes it.
pub fn listen(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = tcp_socket(address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    listen_again(&socket, backlog)?;
    Ok(TcpListener::from(socket))
}

/// listen(2) on a socket that may listen already: that changes its backlog (net/ipv4/af_inet.c inet_listen).
pub fn listen_again(socket: impl AsFd, backlog: i32) -> io::Result<()> {
    Ok(rustix::net::listen(socket, backlog)?)
}

/// A connect bounded by [`PATIENCE`], with read and write timeouts set.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    prepared(TcpStream::connect_timeout(&to, PATIENCE)?)
}

/// A connect from a chosen local address.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp_socket(to)?;
    rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    connect_by(socket, to)
}

/// A connect of a client that keeps little of what it does not read, from the handshake on: a buffer that is made smaller
/// afterwards has less room than the window that was offered, and kernels then drop what comes, under an open window.
pub fn connect_with_receive_buffer(to: SocketAddr, bytes: usize) -> io::Result<TcpStream> {
    let socket = tcp_socket(to)?;
    sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    connect_by(socket, to)
}

fn connect_by(socket: OwnedFd, to: SocketAddr) -> io::Result<TcpStream> {
    // connect(2) obeys SO_SNDTIMEO (socket(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &to)?;
    prepared(TcpStream::from(socket))
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// SO_LINGER{1,0}: close(2) then sends a RST (tcp(7), net/ipv4/tcp.c __tcp_close).
pub fn linger_zero(stream: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// Closes with a RST.
pub fn abort(stream: TcpStream) -> io::Result<()> {
    linger_zero(&stream)
}

/// Closes without a word to the peer.
pub fn forget(stream: TcpStream) -> io::Result<()> {
    sys::repair(&stream)
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
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}
