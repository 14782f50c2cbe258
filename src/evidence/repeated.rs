//! What happens again and again, and not once in a while: who asks for a port in vain and comes back for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::recent::{Asker, Connects};
use crate::reset::{Answered, Reset};
use crate::source::reset_events::Direction;

/// Closer to each other they are one occasion: a browser opens two or three connections for one click, and Windows sends a SYN
/// that was refused twice more, half a second apart.
const APART: Duration = Duration::from_millis(400);

/// A peer that asked for a port on so many occasions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedInVain {
    pub peer: IpAddr,
    /// It is a program of this host.
    pub here: bool,
    pub occasions: u64,
    /// Connects, of which several may be one occasion.
    pub connects: u64,
    /// Of the occasions, those of the window itself.
    pub now: u64,
    /// When the first window with one of them began, CLOCK_BOOTTIME.
    pub since: Duration,
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
    /// Who asked for this port, on which they met no socket, and had asked in the windows before.
    pub fn asked_in_vain(&self, port: u16) -> impl Iterator<Item = AskedInVain> {
        self.refused(Some(port)).into_iter().map(|(asker, mut connects)| {
            let (_, peer, here) = asker;
            let now = occasions(connects.values().copied());
            let mut since = self.before().at.mono;
            for (from, refused) in self.refused_before() {
                if let Some(before) = refused.get(&asker) {
                    since = since.min(from);
                    connects.extend(before);
                }
            }
            let all = connects.len() as u64;
            AskedInVain { peer, here, connects: all, occasions: occasions(connects.into_values()), now, since }
        })
    }

    /// Who asked for ports on which they met no socket: for this one, or for any.
    pub(super) fn refused(&self, port: Option<u16>) -> BTreeMap<Asker, Connects> {
        let mut refused: BTreeMap<Asker, Connects> = BTreeMap::new();
        for reset in self.resets().iter().filter(|reset| refuses(reset)) {
            let (Some(local), Some(peer)) = (reset.local(), reset.peer()) else { continue };
            let here = peer.ip().is_loopback() || peer.ip() == local.ip();
            let here = here || reset.packet.as_ref().is_some_and(|packet| packet.peer_here);
            if port.is_none_or(|port| local.port() == port) {
                refused.entry((local.port(), peer.ip(), here)).or_default().entry(peer).or_insert(reset.at());
            }
        }
        refused
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
