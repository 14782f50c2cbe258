//! Programs of this host that ended their clients' connections because their own connect had been refused: proxies whose
//! backend is down. The kernel does not tie the two together; the time between them does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::source::reset_events::Direction;

/// A proxied service and the destination that refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// Where the clients come in.
    pub port: u16,
    /// The destination that refused.
    pub called: SocketAddr,
    /// Connections of clients that ended right after a refused connect.
    pub requests: u64,
}

/// Part of the pairs, and of the refusals, that must fit: a program that does other things beside is left out.
const MOST: f64 = 0.8;
/// A refusal and what follows from it are closer to each other than refusals are, by this factor: otherwise any two things that
/// happen often look like pairs.
const CLOSER: u32 = 4;
/// The same for fewer pairs than this, which are more easily chance.
const FEW: usize = 4;
const MUCH_CLOSER: u32 = 50;
/// No proxy waits longer before it tells its client.
const LONGEST: Duration = Duration::from_secs(1);

/// How many of `closes` follow a refusal each, where that can be no chance. Both ascend.
fn pairs(refusals: &[Duration], closes: &[Duration], window: Duration) -> Option<u64> {
    let mut gaps = Vec::new();
    let mut next = 0;
    for close in closes {
        // The latest refusal before it that no other close took; those before are of requests that ended in another way.
        let before = refusals.partition_point(|refusal| refusal <= close);
        if before > next {
            gaps.push(close.saturating_sub(refusals[before - 1]));
            next = before;
        }
    }
    gaps.retain(|gap| *gap <= LONGEST);
    gaps.sort_unstable();
    let typical = *gaps.get(gaps.len() / 2)?;
    let apart = window / u32::try_from(refusals.len()).unwrap_or(u32::MAX).max(1);
    let enough = |all: usize| gaps.len() as f64 >= all as f64 * MOST;
    let closer = if gaps.len() < FEW { MUCH_CLOSER } else { CLOSER };
    let fits = enough(closes.len()) && enough(refusals.len()) && typical.saturating_mul(closer) <= apart;
    fits.then_some(gaps.len() as u64)
}

impl Evidence<'_> {
    /// The proxied service of this port whose backend refuses: each connection of a client that its program ended by reset, paired
    /// with the refused connect before it.
    pub fn refused_behind(&self, port: u16) -> Option<Proxied> {
        let mut refused: BTreeMap<SocketAddr, Vec<Duration>> = BTreeMap::new();
        let mut ended: Vec<Duration> = Vec::new();
        for reset in self.resets() {
            let (Some(local), Some(peer)) = (reset.local(), reset.peer()) else { continue };
            // A close with the request unread, or just before it comes.
            let by_call = || reset.event.as_ref().is_some_and(|event| event.active && event.task.is_some());
            let late = || self.is_for_late_data(reset);
            match reset.direction() {
                Direction::Received if reset.is_refused_connect() => {
                    refused.entry(peer).or_default().push(reset.at());
                }
                Direction::Sent if local.port() == port && (by_call() || late()) => ended.push(reset.at()),
                _ => {}
            }
        }
        refused.into_iter().find_map(|(called, refusals)| {
            let requests = pairs(&refusals, &ended, self.window())?;
            Some(Proxied { port, called, requests })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(every_ms: u64, from_ms: u64, count: u64) -> Vec<Duration> {
        (0..count).map(|number| Duration::from_millis(from_ms + number * every_ms)).collect()
    }

    const WINDOW: Duration = Duration::from_secs(3);

    #[test]
    fn closes_that_follow_a_refusal_each_are_its_consequence() {
        assert_eq!(pairs(&times(100, 0, 20), &times(100, 2, 20), WINDOW), Some(20));
        assert_eq!(pairs(&times(1400, 0, 2), &times(1400, 5, 2), WINDOW), Some(2), "a slow one, too");
    }

    #[test]
    fn what_only_happens_as_often_is_none() {
        assert_eq!(pairs(&times(25, 0, 100), &times(25, 12, 100), WINDOW), None, "any close is near a refusal then");
        assert_eq!(pairs(&times(100, 0, 20), &times(10, 2, 200), WINDOW), None, "most closes have another reason");
        assert_eq!(pairs(&times(10, 0, 200), &times(100, 2, 20), WINDOW), None, "most refusals have no consequence");
        assert_eq!(pairs(&times(100, 0, 1), &times(100, 90, 1), WINDOW), None, "one may be chance");
        assert_eq!(pairs(&times(100, 0, 1), &times(100, 2, 1), WINDOW), Some(1), "and not within milliseconds");
        assert_eq!(pairs(&times(100, 50, 20), &times(100, 0, 1), WINDOW), None, "the close came first");
    }
}
