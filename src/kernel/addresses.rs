//! The addresses of a network namespace, rtnetlink(7).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Those of the calling thread's network namespace.
///
/// # Errors
/// The kernel refuses netlink sockets, or an answer is not understood.
pub fn local() -> io::Result<BTreeSet<IpAddr>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = BTreeSet::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            // NLMSG_ALIGN; a length of 0 would never end the walk.
            rest = rest.get((message.header.length as usize).next_multiple_of(4).max(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => found.extend(own(&address)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_addresses() {
        let found = local().expect("anyone may ask");
        assert!(found.contains(&"127.0.0.1".parse().expect("an address")), "{found:?}");
    }
}
