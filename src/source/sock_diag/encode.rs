//! Listeners as the kernel would dump them (struct inet_diag_msg, include/uapi/linux/inet_diag.h), where they are known from a
//! text.

use std::net::{IpAddr, SocketAddr};

use super::{AF_INET, AF_INET6};
use crate::value::TcpState;

const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_MULTI: u16 = 2;

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    const HEAD: u32 = 16;
    let length = HEAD + u32::try_from(body.len()).unwrap_or(0);
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_MULTI.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// A dump of listeners: each with its address, the connections that wait, and the limit of its accept queue.
pub fn listeners(all: impl Iterator<Item = (SocketAddr, u32, u32)>) -> Vec<u8> {
    let mut dump = Vec::new();
    for (number, (local, waiting, limit)) in (1u32..).zip(all) {
        let (family, octets) = match local.ip() {
            IpAddr::V4(address) => (AF_INET, [&address.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
        };
        let mut body = vec![family, TcpState::Listen as u8, 0, 0];
        body.extend(local.port().to_be_bytes());
        body.extend([0; 2]);
        body.extend(octets);
        body.extend([0; 16 + 4]);
        for word in [number, 0, 0, waiting, limit, 0, number] {
            body.extend(word.to_ne_bytes());
        }
        dump.extend(message(SOCK_DIAG_BY_FAMILY, &body));
    }
    dump.extend(message(NLMSG_DONE, &0i32.to_ne_bytes()));
    dump
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::listeners::parse;
    use crate::value::Observed;

    #[test]
    fn what_was_encoded_is_read_again() {
        let all = [("0.0.0.0:80", 3, 511), ("[::1]:631", 0, 128)];
        let dump = listeners(all.iter().map(|(local, waiting, limit)| (local.parse().unwrap(), *waiting, *limit)));
        let Observed::Full(read) = parse(&dump) else { panic!("not read") };
        let read: Vec<_> =
            read.iter().map(|it| (SocketAddr::new(it.address, it.port).to_string(), it.recv_q, it.backlog)).collect();
        assert_eq!(read.len(), 2);
        assert!(read.contains(&("0.0.0.0:80".to_owned(), 3, 511)) && read.contains(&("[::1]:631".to_owned(), 0, 128)));
    }
}
