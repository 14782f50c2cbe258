//! The few rtnetlink(7) requests that the lab needs, so that it does not depend on the `ip` command.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily as RouteFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Where the kernel looks for what is local (ip-route(8)).
const RT_TABLE_LOCAL: u8 = 255;

/// A netlink socket of the calling thread's network namespace.
pub struct Rtnetlink {
    socket: Socket,
}

impl Rtnetlink {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// A veth pair: `name` here, `peer` in the namespace behind `peer_namespace`.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_namespace: RawFd) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![LinkAttribute::IfName(peer.to_owned()), LinkAttribute::NetNsFd(peer_namespace)];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, "create a veth pair")
    }

    pub fn set_link(&mut self, name: &str, up: bool) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index(name)?;
        link.header.change_mask = LinkFlags::Up;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(RouteNetlinkMessage::SetLink(link), 0, "set a link up or down")
    }

    pub fn add_address(&mut self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index(name)?;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        if address.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, "add an address")
    }

    /// A route through `gateway`, or a blackhole when there is none.
    pub fn add_route(&mut self, destination: IpAddr, prefix: u8, gateway: Option<IpAddr>) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route(destination, prefix, gateway));
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, "add a route")
    }

    /// `ip route add local NETWORK/PREFIX dev NAME`.
    pub fn add_local_route(&mut self, name: &str, network: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = route(network, prefix, None);
        message.header.table = RT_TABLE_LOCAL;
        message.header.scope = RouteScope::Host;
        message.header.kind = RouteType::Local;
        message.attributes.push(RouteAttribute::Oif(index(name)?));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE, "add a local route")
    }

    pub fn delete_blackhole(&mut self, destination: IpAddr, prefix: u8) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelRoute(route(destination, prefix, None)), 0, "delete a route")
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16, what: &str) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let error = error.to_io();
                Err(io::Error::new(error.kind(), format!("cannot {what}: {error}")))
            }
            _ => Ok(()),
        }
    }
}

fn route(destination: IpAddr, prefix: u8, gateway: Option<IpAddr>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = if gateway.is_some() { RouteType::Unicast } else { RouteType::BlackHole };
    message.attributes = vec![RouteAttribute::Destination(destination.into())];
    message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message
}

fn family(address: IpAddr) -> RouteFamily {
    if address.is_ipv4() { RouteFamily::Inet } else { RouteFamily::Inet6 }
}

fn index(name: &str) -> io::Result<u32> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    name_to_index(&any, name).map_err(|error| io::Error::other(format!("no interface {name}: {error}")))
}
