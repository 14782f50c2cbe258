//! What a recording may hold of a socket: everything but its addresses, and no attribute that is not known.

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};

use super::{DIAG_MESSAGE, NLMSG_DONE, NLMSG_ERROR, NLMSG_HEADER, NLMSG_NOOP, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK};
use crate::ask::What;
use crate::source::pseudonyms::Pseudonyms;
use crate::source::redaction::{Redaction, Rule};

pub const REDACTION: Rule =
    Rule { source: "sock_diag", asks: |what| matches!(what, What::SockDiag(_)), redaction: Redaction::Parts(messages) };

/// Whole netlink messages.
pub fn messages(names: &mut Pseudonyms, bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut bytes, mut at) = (bytes.to_vec(), 0);
    while let Some(header) = bytes.get(at..).and_then(<[u8]>::first_chunk::<NLMSG_HEADER>) {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let understood = len >= NLMSG_HEADER
            && match (
                u16::from_ne_bytes([k0, k1]),
                at.checked_add(len).and_then(|end| bytes.get_mut(at + NLMSG_HEADER..end)),
            ) {
                // An error holds an errno and our own request.
                (NLMSG_NOOP | NLMSG_ERROR | NLMSG_DONE, Some(_)) => true,
                (TCPDIAG_GETSOCK | SOCK_DIAG_BY_FAMILY, Some(body)) => socket(names, body).is_some(),
                _ => false,
            };
        if !understood {
            bytes.truncate(at);
            return (bytes, false);
        }
        at = (at + len).next_multiple_of(4);
    }
    let rest = bytes.len() > at;
    bytes.truncate(at);
    (bytes, !rest)
}

/// `struct inet_diag_msg` and its attributes, include/uapi/linux/inet_diag.h.
fn socket(names: &mut Pseudonyms, body: &mut [u8]) -> Option<()> {
    const ADDRESSES: [usize; 2] = [8, 24];
    let family = *body.first()?;
    let (message, attributes) = body.split_at_mut_checked(DIAG_MESSAGE)?;
    for at in ADDRESSES {
        let field = message.get_mut(at..at + 16)?;
        match family {
            AF_INET => {
                let (address, unused) = field.split_at_mut(4);
                names.octets(address)?;
                unused.fill(0);
            }
            AF_INET6 => names.octets(field)?,
            _ => return None,
        }
    }
    blank_attributes(attributes);
    Some(())
}

/// Overwrites with zeros the payload of every attribute that may hold an address or a key (LOCALS, PEERS, MD5SIG, ULP
/// information, BPF storage) or that is not known.
fn blank_attributes(mut rest: &mut [u8]) {
    while let Some([l0, l1, k0, k1]) = rest.first_chunk().copied() {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & 0x3fff;
        if len < 4 || len > rest.len() {
            break;
        }
        if !matches!(kind, 1..=11 | 15..=17 | 21 | 22)
            && let Some(payload) = rest.get_mut(4..len)
        {
            payload.fill(0);
        }
        let next = len.next_multiple_of(4).min(rest.len());
        rest = rest.split_at_mut(next).1;
    }
    rest.fill(0);
}
