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
    /// From one to the next, on the whole.
    pub every: Duration,
    /// From the first to the last.
    pub over: Duration,
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

/// Who asked for a port on which it met no socket: the port, its address, and whether it is a program of this host.
type Asker = (u16, IpAddr, bool);

/// Connects that were refused in a window, by who asked.
#[derive(Debug, Clone, Default)]
pub struct Refused(BTreeMap<Asker, Asked>);

#[derive(Debug, Clone, Default)]
struct Asked {
    connects: u64,
    /// The first ones of each occasion: where from, and when. A SYN that is sent again comes from the same port.
    first: Vec<(SocketAddr, Duration)>,
}

impl Refused {
    /// Askers and occasions of a window that are remembered.
    const MOST: usize = 256;
    const MOST_OCCASIONS: usize = 8;

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Evidence<'_> {
    /// Who asked for this port, on which they met no socket, and had asked in the windows before.
    pub fn asked_in_vain(&self, port: u16) -> impl Iterator<Item = AskedInVain> {
        let refused = self.refused(|asker| asker.0 == port);
        refused.into_iter().map(|(asker, mut refused)| {
            let (_, peer, here) = asker;
            let now = occasions(refused.values().copied());
            let mut since = self.before().at.mono;
            let mut connects = refused.len() as u64;
            for (from, before) in self.refused_before() {
                if let Some(asked) = before.0.get(&asker) {
                    since = since.min(from);
                    connects = connects.saturating_add(asked.connects);
                    refused.extend(asked.first.iter().copied());
                }
            }
            let (first, last) = (refused.values().min(), refused.values().max());
            let spread = first.zip(last).map_or(Duration::ZERO, |(first, last)| last.saturating_sub(*first));
            let occasions = occasions(refused.into_values());
            let every = u32::try_from(occasions.saturating_sub(1)).ok().and_then(|gaps| spread.checked_div(gaps));
            AskedInVain {
                peer,
                here,
                connects,
                occasions,
                now,
                every: every.unwrap_or(Duration::MAX),
                over: spread,
                since,
            }
        })
    }

    /// What the next windows are to know. A scanner comes back for no port.
    pub(super) fn refused_now(&self) -> Refused {
        let scanned =
            |(port, peer, _): &Asker| self.surroundings.scanned.get(peer).is_some_and(|ports| ports.contains(port));
        let all = self.refused(|asker| !scanned(asker)).into_iter().take(Refused::MOST);
        Refused(all.map(|(asker, connects)| (asker, asked(connects))).collect())
    }

    fn refused(&self, wanted: impl Fn(&Asker) -> bool) -> BTreeMap<Asker, BTreeMap<SocketAddr, Duration>> {
        let mut refused: BTreeMap<Asker, BTreeMap<SocketAddr, Duration>> = BTreeMap::new();
        for reset in self.resets().iter().filter(|reset| refuses(reset)) {
            let (Some(local), Some(peer)) = (reset.local(), reset.peer()) else { continue };
            let here = peer.ip().is_loopback() || peer.ip() == local.ip();
            let here = here || reset.packet.as_ref().is_some_and(|packet| packet.peer_here);
            let asker = (local.port(), peer.ip(), here);
            if wanted(&asker) {
                refused.entry(asker).or_default().entry(peer).or_insert(reset.at());
            }
        }
        refused
    }
}

fn asked(connects: BTreeMap<SocketAddr, Duration>) -> Asked {
    let count = connects.len() as u64;
    let mut all: Vec<_> = connects.into_iter().collect();
    all.sort_unstable_by_key(|(_, at)| *at);
    all.dedup_by(|(_, later), (_, first)| *later < *first + APART);
    all.truncate(Refused::MOST_OCCASIONS);
    Asked { connects: count, first: all }
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
