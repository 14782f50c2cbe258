//! Sockets by local port and state, and which local ports are services of this host.

use std::collections::HashSet;

use super::super::heavy_hitters::FastHash;
use super::super::listeners::Listener;
use super::super::sock_diag::{Address, from_ip};

/// One word for each of the 65,536 ports. The kernel's walk over its sockets leaves little in the caches, so what is needed
/// of a port lies together: a local port of an outgoing connection holds one socket, rarely several, and hardly ever
/// several states, so only ports with several states get a row of their own.
pub(super) struct Ports {
    /// [`SERVICE`] bits and the count: 0 no socket; [`ROW`] set, the number of the row; else all sockets have one state,
    /// state << 24 | count.
    words: Vec<u32>,
    rows: Vec<[u32; STATES]>,
    listened: HashSet<(Address, u16), FastHash>,
    addresses: HashSet<Address, FastHash>,
}

const ROW: u32 = 1 << 31;
/// A listener on this port is bound to 0.0.0.0, to ::, to some address.
const ANY_V4: u32 = 1 << 28;
const ANY: u32 = 1 << 29;
const SOME: u32 = 1 << 30;
const SERVICE: u32 = ANY_V4 | ANY | SOME;
const COUNT: u32 = (1 << 24) - 1;
/// Sockets on one port as far as [`Ports::foremost`] tells them apart.
const COUNT_MAX: u64 = (1 << 40) - 1;
/// One more than the largest state number.
const STATES: usize = 13;

impl Ports {
    pub fn new(listeners: &[Listener]) -> Self {
        let mut ports = Self {
            words: vec![0; 1 << 16],
            rows: Vec::new(),
            listened: HashSet::default(),
            addresses: HashSet::default(),
        };
        for listener in listeners {
            let bit = match listener.address {
                ip if !ip.is_unspecified() => {
                    let address = from_ip(ip);
                    ports.listened.insert((address, listener.port));
                    ports.addresses.insert(address);
                    SOME
                }
                ip if ip.is_ipv4() => ANY_V4,
                // IPv4 connections arrive here too unless IPV6_V6ONLY is set, which a dump does not tell everywhere.
                _ => ANY,
            };
            ports.words[usize::from(listener.port)] |= bit;
        }
        ports
    }

    /// Counts a socket, whose state number must be below 13, and tells whether a listener of this host accepted it.
    pub fn add(&mut self, address: Address, port: u16, state: u8) -> bool {
        let word = &mut self.words[usize::from(port)];
        let (service, body) = (*word & SERVICE, *word & !SERVICE);
        let single = u32::from(state) << 24;
        // One branch that nearly always goes the same way: the word is often not in the cache, and a wrong guess about it
        // would cost the whole wait.
        if ((body == 0) | (body & !COUNT == single)) & (body & COUNT < COUNT) {
            *word = service | single | ((body & COUNT) + 1);
        } else {
            if body & ROW == 0 {
                let mut row = [0; STATES];
                if let Some(count) = row.get_mut((body >> 24) as usize) {
                    *count = body & COUNT;
                }
                *word = service | ROW | self.rows.len() as u32;
                self.rows.push(row);
            }
            let row = self.rows.get_mut((*word & COUNT) as usize);
            if let Some(count) = row.and_then(|row| row.get_mut(usize::from(state))) {
                *count += 1;
            }
        }
        service != 0
            && (service & ANY != 0
                || service & ANY_V4 != 0 && is_v4(address)
                || service & SOME != 0 && self.listened.contains(&(address, port)))
    }

    /// The `cap` ports to report and how many have sockets. Services first: what is asked of the others is only which of
    /// them are busy.
    pub fn foremost(&self, cap: usize) -> (Vec<u16>, usize) {
        let in_use = (0..=u16::MAX).zip(&self.words).filter(|(_, word)| **word & !SERVICE != 0);
        // All that ranks a port in one number: an ephemeral range in full use is 64,512 ports.
        let mut ranks: Vec<u64> = in_use
            .map(|(port, word)| {
                let total = self.states(port).map(|(_, count)| u64::from(count)).sum::<u64>();
                u64::from(*word & SERVICE == 0) << 63 | (COUNT_MAX - total.min(COUNT_MAX)) << 16 | u64::from(port)
            })
            .collect();
        let used = ranks.len();
        if used > cap {
            ranks.select_nth_unstable(cap);
            ranks.truncate(cap);
        }
        (ranks.into_iter().map(|rank| rank as u16).collect(), used)
    }

    /// Which ports have sockets and are no service: bit N of word N / 64.
    pub fn used(&self) -> Vec<u64> {
        let mut used = vec![0; self.words.len() / 64];
        let in_use = self.words.iter().enumerate().filter(|(_, word)| **word & SERVICE == 0 && **word != 0);
        for (port, _) in in_use {
            used[port / 64] |= 1_u64 << (port % 64);
        }
        used
    }

    /// State numbers and how many sockets of this port are in them.
    pub fn states(&self, port: u16) -> impl Iterator<Item = (u8, u32)> {
        let body = self.words[usize::from(port)] & !SERVICE;
        let row = if body & ROW == 0 { None } else { self.rows.get((body & COUNT) as usize) };
        let single = (body != 0 && body & ROW == 0).then_some(((body >> 24) as u8, body & COUNT));
        let row = (0u8..).zip(row.into_iter().flatten().copied());
        row.filter(|(_, count)| *count > 0).chain(single)
    }

    /// The peer is this host too, as far as sockets tell: no network device lies between that could forget a connection.
    pub fn is_this_host(&self, local: Address, peer: Address) -> bool {
        let loopback_v4 = is_v4(peer) && peer as u32 >> 24 == 127;
        peer == local || peer == 1 || loopback_v4 || self.addresses.contains(&peer)
    }
}

fn is_v4(address: Address) -> bool {
    address >> 32 == 0xffff
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(sockets in proptest::collection::vec((0u16..6, 1u8..13), 0..200)) {
            let mut counts = Ports::new(&[]);
            let mut exact = BTreeMap::new();
            for (port, state) in sockets {
                counts.add(0, port, state);
                *exact.entry((port, state)).or_insert(0u32) += 1;
            }
            let mut found = BTreeMap::new();
            for port in 0..6 {
                found.extend(counts.states(port).map(|(state, count)| ((port, state), count)));
            }
            prop_assert_eq!(found, exact);
        }
    }

    #[test]
    fn services_come_first_then_busy_ports() {
        let address = "0.0.0.0".parse().unwrap();
        let listener = Listener {
            address,
            port: 80,
            recv_q: 0,
            backlog: 1,
            drops: None,
            inode: 1,
            uid: 0,
            device: 0,
            v6_only: false,
            cookie: 1,
        };
        let mut ports = Ports::new(&[listener]);
        for port in [5000, 5001, 5001, 80] {
            ports.add(0, port, 1);
        }
        let (mut foremost, used) = ports.foremost(2);
        foremost.sort();
        assert_eq!((foremost, used), (vec![80, 5001], 3));
    }

    #[test]
    fn a_count_that_outgrows_its_word_moves_to_a_row() {
        let mut counts = Ports::new(&[]);
        counts.words[80] = 6 << 24 | COUNT;
        counts.add(0, 80, 6);
        assert_eq!(counts.states(80).collect::<Vec<_>>(), [(6, 1 << 24)]);
    }
}
