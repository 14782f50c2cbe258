//! sock_diag messages: dumps, and the last words of destroyed sockets.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::names::Pseudonyms;

impl Pseudonyms {
    /// Redacts whole netlink messages in place. False if something was not understood; it and all behind it is cut off.
    pub fn messages(&mut self, bytes: &mut Vec<u8>) -> bool {
        const HEADER: usize = 16;
        let mut at = 0;
        while let Some(header) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
            let [l0, l1, l2, l3, k0, k1, ..] = *header;
            let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let understood = len >= HEADER
                && match (
                    u16::from_ne_bytes([k0, k1]),
                    at.checked_add(len).and_then(|end| bytes.get_mut(at + HEADER..end)),
                ) {
                    // NOOP, ERROR (an errno and our own request), DONE.
                    (1..=3, Some(_)) => true,
                    // TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY.
                    (18 | 20, Some(body)) => self.socket(body).is_some(),
                    _ => false,
                };
            if !understood {
                bytes.truncate(at);
                return false;
            }
            at = (at + len).next_multiple_of(4);
        }
        let rest = bytes.len() > at;
        bytes.truncate(at);
        !rest
    }

    /// `struct inet_diag_msg` and its attributes, include/uapi/linux/inet_diag.h.
    fn socket(&mut self, body: &mut [u8]) -> Option<()> {
        const MESSAGE: usize = 72;
        const ADDRESSES: [usize; 2] = [8, 24];
        let family = i32::from(*body.first()?);
        let (message, attributes) = body.split_at_mut_checked(MESSAGE)?;
        for at in ADDRESSES {
            let field = message.get_mut(at..)?.first_chunk_mut::<16>()?;
            *field = match family {
                libc::AF_INET => {
                    let [a, b, c, d, ..] = *field;
                    let mut new = [0; 16];
                    new.first_chunk_mut::<4>()?.copy_from_slice(&self.v4(Ipv4Addr::new(a, b, c, d)).octets());
                    new
                }
                libc::AF_INET6 => self.v6(Ipv6Addr::from(*field)).octets(),
                _ => return None,
            };
        }
        blank_attributes(attributes);
        Some(())
    }
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
