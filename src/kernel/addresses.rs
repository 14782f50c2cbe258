//! What a network namespace takes for its own: addresses and local routes, rtnetlink(7).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::sys;

/// Those of the calling thread's network namespace: of its interfaces, and what local routes of any table deliver here
/// (`ip route add local`). A local route to everything is none: transparent proxies have one, and rules that say what it is for.
///
/// # Errors
/// The kernel refuses netlink sockets, or an answer is not understood.
pub fn local() -> io::Result<BTreeSet<IpNet>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Since Linux 4.20 the kernel then leaves out all but local routes: a router may have a million others.
    let _ = socket.set_netlink_get_strict_chk(true);
    let mut found = BTreeSet::new();
    dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()), &mut found)?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut routes = RouteMessage::default();
        (routes.header.address_family, routes.header.kind) = (family, RouteType::Local);
        dump(&socket, RouteNetlinkMessage::GetRoute(routes), &mut found)?;
    }
    Ok(found)
}

fn dump(socket: &Socket, request: RouteNetlinkMessage, found: &mut BTreeSet<IpNet>) -> io::Result<()> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            // NLMSG_ALIGN; a length of 0 would never end the walk.
            rest = rest.get((message.header.length as usize).next_multiple_of(4).max(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    found.extend(own(&address).map(IpNet::from));
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => found.extend(delivered(&route)),
                _ => {}
            }
        }
    }
}

/// IFA_LOCAL is ours; IFA_ADDRESS is the peer of a point-to-point link, and ours where there is no IFA_LOCAL, as in IPv6.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let attribute = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    let address = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    attribute(local).or_else(|| attribute(address))
}

fn delivered(route: &RouteMessage) -> Option<IpNet> {
    if route.header.kind != RouteType::Local || route.header.destination_prefix_length == 0 {
        return None;
    }
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    Some(IpNet::new(address, route.header.destination_prefix_length).ok()?.trunc())
}

/// Tells that local routes came or went in one network namespace. An address that packets reach has one: the kernel adds and
/// removes it with the address.
pub struct Changes(Socket);

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Changes {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel refuses netlink sockets.
    pub fn open() -> io::Result<Self> {
        // include/uapi/linux/rtnetlink.h
        const RTNLGRP_IPV4_ROUTE: u32 = 7;
        const RTNLGRP_IPV6_ROUTE: u32 = 11;
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // Other routes may change thousands of times a second.
        sys::attach_filter(&socket, &mut only_local())?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.add_membership(RTNLGRP_IPV4_ROUTE)?;
        socket.add_membership(RTNLGRP_IPV6_ROUTE)?;
        Ok(Self(socket))
    }

    /// Something changed since the last call.
    pub fn any(&self) -> bool {
        let mut any = false;
        let mut buffer = [0; 64];
        loop {
            match self.0.recv(&mut buffer.as_mut_slice(), libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // More changes than there was room for. Any other error is cleared by being read, too.
                Ok(_) | Err(_) => any = true,
            }
        }
    }
}

/// RTM_NEWROUTE and RTM_DELROUTE whose rtm_type is RTN_LOCAL.
fn only_local() -> [libc::sock_filter; 4] {
    const LD_B_ABS: u16 = 0x30;
    const JEQ: u16 = 0x15;
    const RET: u16 = 0x06;
    const RTN_LOCAL: u32 = 2;
    /// Behind struct nlmsghdr, in struct rtmsg.
    const RTM_TYPE: u32 = 16 + 7;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [op(LD_B_ABS, 0, 0, RTM_TYPE), op(JEQ, 0, 1, RTN_LOCAL), op(RET, 0, 0, u32::MAX), op(RET, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_addresses() {
        let found = local().expect("anyone may ask");
        for wanted in ["127.0.0.1/32", "127.0.0.0/8"] {
            assert!(found.contains(&wanted.parse().expect("a network")), "{wanted} of {found:?}");
        }
    }
}
