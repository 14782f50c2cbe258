//! All `unsafe` of the lab: processes and namespaces, for which neither std nor rustix has calls that are safe by themselves.
#![allow(unsafe_code, reason = "the one file of this room that has any")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// unshare(2) of namespaces: of the calling thread those of network, mount, UTS and control group, of its children that of
/// processes.
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    if namespaces.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only a file descriptor table of its own could break what other threads rely on.
    Ok(unsafe { unshare_unsafe(namespaces) }?)
}

/// The two sides of a fork(2).
pub enum Forked {
    Child,
    Parent(Pid),
}

/// fork(2) of a process that has one thread.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("other threads run already"));
    }
    // SAFETY: there is no other thread that could hold a lock, so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        child => Pid::from_raw(child).map(Forked::Parent).ok_or_else(io::Error::last_os_error),
    }
}

/// The process gets SIGKILL when the thread that starts it ends (PR_SET_PDEATHSIG(2const)).
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl(2) is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// The process starts in this network namespace.
pub fn start_in(command: &mut Command, namespace: Arc<OwnedFd>) {
    // SAFETY: setns(2) is async-signal-safe, and its descriptor stays open in the child until exec.
    unsafe {
        command.pre_exec(move || Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?));
    }
}

/// Closes without a word to the peer: a socket in TCP_REPAIR mode sends nothing (net/ipv4/tcp.c __tcp_close). Needs CAP_NET_ADMIN
/// in its network namespace.
pub fn repair(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (level, option, size) = (libc::IPPROTO_TCP, libc::TCP_REPAIR, size_of_val(&on) as libc::socklen_t);
    // SAFETY: the value lives through the call and its size is given.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
