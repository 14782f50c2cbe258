//! Metrics of the ledger: resets by what they were, and those that nothing accounts for.

use super::bounded::{Count, Labels, add};
use crate::diagnosis::Diagnosis;
use crate::evidence::ledger::Basis;
use crate::history::{Account, Direction};
use crate::knowledge::reset_kinds::Kind;

/// Attempts that are lost without a reset, and resets that TCP does not send: reason, cause and how it is known.
const BESIDE: [(Direction, &str, &str, Basis); 3] = [
    (Direction::Dropped, "accept-queue-full", "accept-queue-overflow", Basis::Measured),
    (Direction::Dropped, "syn-queue-full", "syn-queue-overflow", Basis::Measured),
    (Direction::Firewall, "rejected", "firewall-reject", Basis::Deduced),
];

/// The families of the ledger.
#[derive(Default)]
pub struct Resets {
    pub counted: Count,
    pub unexplained: Count,
    /// Accounts that have been there.
    seen: Vec<Direction>,
}

impl Resets {
    pub fn window(&mut self, account: &Account, diagnosis: &Diagnosis) {
        self.expect(account, diagnosis);
        for line in &account.resets {
            let cause = line.cause.as_deref().unwrap_or_default();
            add(&self.counted, labels(line.direction, &line.reason, cause, line.basis), Some(line.count));
        }
        let sent = vec![("direction", Direction::Sent.name().to_owned())];
        add(&self.unexplained, sent, account.totals.sent_unexplained);
    }

    /// A series that is born with its first count shows no increase: 0 stands there before, of what would be seen.
    fn expect(&mut self, account: &Account, diagnosis: &Diagnosis) {
        let told = told(diagnosis);
        let seen = [
            (Direction::Sent, told),
            (Direction::Received, told),
            (Direction::Dropped, account.totals.dropped.is_some()),
            (Direction::Firewall, account.totals.firewall.is_some()),
        ];
        for (direction, _) in seen.into_iter().filter(|(_, is_seen)| *is_seen) {
            if self.seen.contains(&direction) {
                continue;
            }
            self.seen.push(direction);
            for kind in Kind::ALL.iter().filter(|kind| usual(**kind) == direction) {
                let cause = kind.cause().unwrap_or_default();
                self.counted.at(labels(direction, kind.name(), cause, Basis::Measured));
            }
            for (_, reason, cause, basis) in BESIDE.into_iter().filter(|(own, ..)| *own == direction) {
                self.counted.at(labels(direction, reason, cause, basis));
            }
        }
    }
}

/// Something tells of single resets what each was, so that none of a kind means that there was none.
pub fn told(diagnosis: &Diagnosis) -> bool {
    let told = diagnosis.sources.iter().filter(|source| ["reset_events", "reset_packets"].contains(&source.name));
    told.into_iter().any(|source| source.failure.is_none() || source.partial)
}

fn labels(direction: Direction, reason: &str, cause: &str, basis: Basis) -> Labels {
    vec![
        ("direction", direction.name().to_owned()),
        ("reason", reason.to_owned()),
        ("cause", cause.to_owned()),
        ("basis", format!("{basis:?}").to_lowercase()),
    ]
}

/// The direction in which a kind is mostly seen.
fn usual(kind: Kind) -> Direction {
    match kind {
        Kind::PeerReset | Kind::HealthCheck | Kind::ClientGone | Kind::SlowHere | Kind::AfterAnswer => {
            Direction::Received
        }
        Kind::GaveUp | Kind::OtherEnd | Kind::UpstreamRefused | Kind::AfterClose => Direction::Received,
        Kind::Forged | Kind::Ignored | Kind::FromPeer => Direction::Received,
        _ => Direction::Sent,
    }
}
