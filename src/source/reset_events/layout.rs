//! Where the fields of the reset tracepoints lie, resolved once per format, and the two ends of a connection in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::format::{Field, Format, Order};

/// `None` for a field that this kernel's tracepoint does not have.
#[derive(Default)]
pub struct Layout {
    pub format: Format,
    pub flags: Option<Field>,
    pub skb: Option<Field>,
    pub sk: Option<Field>,
    pub state: Option<Field>,
    pub old_state: Option<Field>,
    pub new_state: Option<Field>,
    pub reason: Option<Field>,
    pub error: Option<Field>,
    pub cookie: Option<Field>,
    /// Of a signal: its number, its siginfo code, and whom it is sent to.
    pub signal: Option<Field>,
    pub code: Option<Field>,
    pub target: Option<Field>,
    pub sport: Option<Field>,
    pub dport: Option<Field>,
    pub saddr: Option<Field>,
    pub daddr: Option<Field>,
    pub saddr_v6: Option<Field>,
    pub daddr_v6: Option<Field>,
}

impl Layout {
    pub fn new(format: Format) -> Self {
        let field = |name: &str| format.field(name);
        Self {
            flags: field("common_flags"),
            skb: field("skbaddr"),
            sk: field("skaddr"),
            state: field("state"),
            old_state: field("oldstate"),
            new_state: field("newstate"),
            reason: field("reason"),
            error: field("error"),
            cookie: field("sock_cookie"),
            signal: field("sig"),
            code: field("code"),
            target: field("pid"),
            sport: field("sport"),
            dport: field("dport"),
            saddr: field("saddr"),
            daddr: field("daddr"),
            saddr_v6: field("saddr_v6"),
            daddr_v6: field("daddr_v6"),
            format,
        }
    }

    /// Local and peer address. All reset tracepoints call the own side the source, since 6.10 also where the RST answers
    /// a packet (the kernel swaps that packet's addresses).
    pub fn ends(&self, raw: &[u8], order: Order) -> Option<(SocketAddr, Option<SocketAddr>)> {
        let end = |address: Option<Field>, v6: Option<Field>, port: Option<Field>| -> Option<SocketAddr> {
            let bytes = address?.bytes(raw)?;
            if bytes.len() >= 28 {
                return socket_address(bytes, order);
            }
            let port = port?.number(raw, order)? as u16;
            // IPv4 sockets have their address in mapped form in the v6 field too.
            let ip = match v6.and_then(|f| <[u8; 16]>::try_from(f.bytes(raw)?).ok()).map(Ipv6Addr::from) {
                Some(v6) if !v6.is_unspecified() => IpAddr::V6(v6),
                Some(v6) if bytes == [0; 4] => IpAddr::V6(v6),
                _ => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            };
            Some(SocketAddr::new(ip.to_canonical(), port))
        };
        let local = end(self.saddr, self.saddr_v6, self.sport)?;
        let peer = end(self.daddr, self.daddr_v6, self.dport);
        // A listener has no peer: 0.0.0.0:0.
        Some((local, peer.filter(|peer| peer.port() != 0 || !peer.ip().is_unspecified())))
    }
}

/// A struct sockaddr_in or sockaddr_in6: the family in machine order, the port in network order.
fn socket_address(bytes: &[u8], order: Order) -> Option<SocketAddr> {
    const AF_INET: u64 = 2;
    const AF_INET6: u64 = 10;
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let ip = match order.number(bytes.get(..2)?)? {
        AF_INET => IpAddr::from(*bytes.get(4..)?.first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*bytes.get(8..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}
