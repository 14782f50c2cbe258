//! Network namespaces without names, and the links between them.
//!
//! A namespace here is only an open descriptor of `/proc/thread-self/ns/net` (namespaces(7)). It has no name in
//! `/run/netns` and no mount, so it vanishes with the last process that holds it, whatever ends that process.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::rtnetlink::Rtnetlink;
use super::sys;
use crate::runtime::thread::refused;

/// A network namespace that lives as long as a clone of this value, or a thread inside it.
#[derive(Debug, Clone)]
pub struct Namespace {
    descriptor: Arc<OwnedFd>,
}

impl Namespace {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Ok(Self { descriptor: Arc::new(File::open("/proc/thread-self/ns/net")?.into()) })
    }

    /// A new namespace with its loopback interface up. Needs CAP_SYS_ADMIN (in the user namespace at hand).
    pub fn create() -> io::Result<Self> {
        let created: io::Result<Self> = on_a_thread(|| {
            // Of this short-lived thread.
            sys::unshare(UnshareFlags::NEWNET)?;
            prepare()?;
            Namespace::current()
        });
        created
    }

    /// Moves the calling thread into the namespace; sockets that it opens from now on belong there.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Sets a sysctl of this namespace, by its name in sysctl(8) spelling. Only names below `net.` are accepted: they
    /// are per namespace or refused by the kernel, so the host cannot be changed.
    pub fn sysctl(&self, name: &str, value: impl ToString) -> io::Result<()> {
        let path = sysctl_path(name)?;
        let value = value.to_string();
        self.run(|| fs::write(&path, &value).map_err(|error| describe(error, &path)))
    }

    /// True when the namespace has its own copy of this sysctl that may be written.
    pub fn has_sysctl(&self, name: &str) -> bool {
        let Ok(path) = sysctl_path(name) else { return false };
        self.run(|| fs::OpenOptions::new().write(true).open(&path)).is_ok()
    }

    pub fn route_to(&self, destination: IpAddr, prefix: u8, gateway: IpAddr) -> io::Result<()> {
        self.run(|| Rtnetlink::open()?.add_route(destination, prefix, Some(gateway)))
    }

    /// All addresses of this network belong to the namespace from now on (route type local), without an interface having them.
    pub fn local_route(&self, interface: &str, network: IpAddr, prefix: u8) -> io::Result<()> {
        self.run(|| Rtnetlink::open()?.add_local_route(interface, network, prefix))
    }

    /// Everything to this destination is dropped silently from now on (route type blackhole).
    pub fn blackhole(&self, destination: IpAddr, prefix: u8) -> io::Result<()> {
        self.run(|| Rtnetlink::open()?.add_route(destination, prefix, None))
    }

    pub fn forget_blackhole(&self, destination: IpAddr, prefix: u8) -> io::Result<()> {
        self.run(|| Rtnetlink::open()?.delete_blackhole(destination, prefix))
    }

    /// One more address, on a network that the interface belongs to already.
    pub fn add_address(&self, interface: &str, address: IpAddr) -> io::Result<()> {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        self.run(|| Rtnetlink::open()?.add_address(interface, address, prefix))
    }

    /// A process that this command starts begins there.
    pub fn start(&self, command: &mut Command) {
        sys::start_in(command, Arc::clone(&self.descriptor));
    }

    fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// One end of a link: in which namespace, under which name, with which addresses.
pub struct End<'a> {
    pub namespace: &'a Namespace,
    pub interface: &'static str,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// Joins two namespaces by a veth pair (veth(4)), both ends up, with a /24 and a /64 address each. IPv6 addresses skip
/// duplicate address detection, so that they work at once.
pub fn join(left: &End<'_>, right: &End<'_>) -> io::Result<()> {
    left.namespace.run(|| Rtnetlink::open()?.add_veth(left.interface, right.interface, right.namespace.raw()))?;
    for end in [left, right] {
        end.namespace.run(|| {
            let mut rtnetlink = Rtnetlink::open()?;
            rtnetlink.add_address(end.interface, end.v4.into(), 24)?;
            rtnetlink.add_address(end.interface, end.v6.into(), 64)?;
            rtnetlink.set_link(end.interface, true)
        })?;
    }
    Ok(())
}

/// Makes the calling thread's new namespace what one is on a host where nobody set anything: `lo` up, and no forwarding, which
/// it takes over from the host (net/ipv4/devinet.c devinet_init_net): where Docker has set that, it would answer with ICMP what
/// comes for an invented client.
pub fn prepare() -> io::Result<()> {
    // Not to be written in a container that may make namespaces; then it is as the host's.
    let _ = fs::write("/proc/sys/net/ipv4/ip_forward", "0");
    Rtnetlink::open()?.set_link("lo", true)
}

fn sysctl_path(name: &str) -> io::Result<String> {
    if !name.starts_with("net.") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a network sysctl")));
    }
    Ok(format!("/proc/sys/{}", name.replace('.', "/")))
}

fn describe(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// setns and unshare of a network namespace change one thread only, so each use gets a thread that ends with it.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let started = thread::Builder::new().spawn_scoped(scope, work).map_err(|error| refused(&error))?;
        started.join().unwrap_or_else(|_| Err(io::Error::other("a lab thread panicked")))
    })
}
