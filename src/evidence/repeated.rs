//! What happens again and again, and not once in a while: who asks for a port in vain and comes back for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::evidence::Evidence;
use crate::reset::{Answered, Reset};
use crate::source::reset_events::Direction;

/// Closer to each other they are one occasion: a browser opens two or three connections for one click, and Windows sends a SYN
/// that was refused twice more, half a second apart.
const APART: Duration = Duration::from_millis(400);

/// A peer that asked for a port on more than one occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insistent {
    pub peer: IpAddr,
    /// Connects that were refused.
    pub connects: u64,
    pub occasions: u64,
}

/// How many occasions these moments are.
pub fn occasions(moments: impl IntoIterator<Item = Duration>) -> u64 {
    let mut moments: Vec<_> = moments.into_iter().collect();
    moments.sort_unstable();
    let mut latest: Option<Duration> = None;
    let mut count = 0;
    for at in moments {
        if latest.is_none_or(|latest| at >= latest + APART) {
            (latest, count) = (Some(at), count + 1);
        }
    }
    count
}

impl Evidence<'_> {
    /// The peer on another host that came back most often for this port, on which it met no socket.
    pub fn insistent(&self, port: u16) -> Option<Insistent> {
        let mut by_peer: BTreeMap<IpAddr, BTreeMap<SocketAddr, Duration>> = BTreeMap::new();
        for reset in self.resets().iter().filter(|reset| refuses(reset)) {
            let (Some(local), Some(peer)) = (reset.local(), reset.peer()) else { continue };
            let here = peer.ip().is_loopback() || peer.ip() == local.ip();
            let here = here || reset.packet.as_ref().is_some_and(|packet| packet.peer_here);
            if local.port() == port && !here {
                // A SYN that is sent again comes from the same port.
                by_peer.entry(peer.ip()).or_default().entry(peer).or_insert(reset.at());
            }
        }
        let insistent = by_peer.into_iter().map(|(peer, connects)| Insistent {
            peer,
            connects: connects.len() as u64,
            occasions: occasions(connects.into_values()),
        });
        insistent.max_by_key(|insistent| insistent.occasions)
    }
}

/// It answers a SYN that met no socket, as far as is known.
fn refuses(reset: &Reset) -> bool {
    let reason = reset.event.as_ref().and_then(|event| event.reason.as_deref());
    let answers = reset.packet.as_ref().map(Answered::by);
    reset.direction() == Direction::Sent
        && !reset.again
        && reason.is_none_or(|reason| reason == "NO_SOCKET")
        && answers.is_none_or(|answered| answered == Some(Answered::Syn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_once_is_one_occasion() {
        let of = |ms: &[u64]| occasions(ms.iter().map(|ms| Duration::from_millis(*ms)));
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[900, 0, 10, 300]), 2, "in any order");
        assert_eq!(of(&[0, 2_500, 5_000, 7_500]), 4);
        let every_100_ms: Vec<u64> = (0..30).map(|number| number * 100).collect();
        assert_eq!(of(&every_100_ms), 8, "a steady row is many");
    }
}
