//! One window out of a recorded row. It begins and ends at any tick; sweeps lie in some of them only, so what the latest one before
//! it showed is known in it, and is as old as it is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{NothingObserved, Plan, Session, Step};
use crate::ask::{Ask, Frame, Host, What};
use crate::observation::{HostSnapshot, HostWindow, NetnsWindow, Observation, Snapshot};
use crate::source::socket_dump;
use crate::value::{Failure, FailureKind, Moment, NetnsId, Observed};

/// Observes what a recording holds from its tick at `from` (CLOCK_BOOTTIME) to its end, as one window.
///
/// # Errors
/// The recording holds no such window.
pub fn observe_from(host: &mut dyn Host, plan: &Plan, from: Duration) -> Result<Observation, NothingObserved> {
    // Of a recording the frames decide how long a tick is.
    let ticks = Plan { interval: Some(plan.length), ..plan.clone() };
    let mut session = Session::open(host, &ticks)?;
    while session.now.mono < from {
        match session.step(host) {
            Step::Over => return Err(NothingObserved("it ends before what was asked for")),
            Step::Window(mut window) => {
                session.dump_again(host, &mut window.observation);
                session.remember(window.observation);
            }
            Step::Looked => {}
        }
    }
    session.plan.interval = None;
    let (poll, tick) = (
        Frame::Poll { due: Duration::ZERO, end: Duration::MAX },
        Frame::Tick { due: Duration::ZERO, end: Duration::MAX },
    );
    let mut begin = None;
    loop {
        if let Some(at) = host.frame(poll) {
            session.now = at;
        } else if let Some(at) = host.frame(tick) {
            session.now = at;
            session.look_between(host);
            session.sweep_within(host, at, &mut begin);
        } else {
            break;
        }
        session.look(host, session.now);
    }
    let at = host.frame(Frame::After { end: plan.length }).ok_or(NothingObserved("no closing snapshot"))?;
    session.settings_next();
    let mut observation = session.end_window(host, at, true);
    let begin = begin.unwrap_or_else(|| Begin::of(&observation));
    session.dump_again(host, &mut observation);
    begin.restore(&mut observation);
    Ok(observation)
}

/// The frame that is open looked at all sockets of this namespace.
fn is_swept(host: &mut dyn Host, id: NetnsId) -> bool {
    let answer = host.ask(&Ask::netns(id, What::SockDiag(socket_dump::QUERY)), &mut |_| {});
    !matches!(answer.result, Err(Failure { kind: FailureKind::NotCollected, .. }))
}

/// The dumps with which a window began: each sweep within it would move them up.
struct Begin {
    netns: Vec<(NetnsId, Snapshot)>,
    host: HostSnapshot,
}

impl Begin {
    fn of(observation: &Observation) -> Self {
        let netns = observation.netns.iter().map(|(id, of)| (*id, of.after.clone())).collect();
        Self { netns, host: observation.host.after.clone() }
    }

    fn restore(&self, observation: &mut Observation) {
        for (id, snapshot) in &self.netns {
            observation.netns.get_mut(id).into_iter().for_each(|of| of.before.carry_dump(snapshot));
        }
        observation.host.before.carry_owners(&self.host);
    }
}

impl Session {
    /// Takes the sweep of the tick that is open, if it has one; the first time what was known before is noted.
    fn sweep_within(&mut self, host: &mut dyn Host, at: Moment, begin: &mut Option<Begin>) {
        let mut observation = self.as_it_stands(at);
        let before = Begin::of(&observation);
        if !self.dump_again(host, &mut observation) {
            return;
        }
        begin.get_or_insert(before);
        for (id, seen) in &observation.netns {
            self.netns.get_mut(id).into_iter().for_each(|of| of.previous.carry_dump(&seen.after));
        }
        self.host.carry_owners(&observation.host.after);
    }

    /// Takes the sweep of the frame that is open of those namespaces that it looked at: of many it does not look at all, and the
    /// others keep what they have.
    fn dump_again(&self, host: &mut dyn Host, observation: &mut Observation) -> bool {
        let swept: BTreeSet<NetnsId> = observation.netns.keys().copied().filter(|id| is_swept(host, *id)).collect();
        !swept.is_empty() && self.dump(host, observation, &|id| swept.contains(&id))
    }

    /// What is known so far of the window that is open, as far as a sweep asks for it.
    fn as_it_stands(&self, at: Moment) -> Observation {
        let netns = self.netns.iter().map(|(id, of)| {
            let mut after = of.previous.clone();
            after.at = at;
            after.listeners = Observed::Full(of.looks.seen().cloned().collect());
            let window = NetnsWindow {
                name: of.name.clone(),
                gone: false,
                came: of.came,
                before: of.earlier.clone(),
                after,
                listener_traces: Default::default(),
                resets: Default::default(),
                reset_packets: Observed::not_asked(),
                endings: Observed::not_asked(),
                errors: Observed::not_asked(),
            };
            (*id, window)
        });
        let host = HostWindow {
            before: self.host_earlier.clone(),
            after: self.host.clone(),
            between: None,
            reset_events: Observed::not_asked(),
            node: self.node.clone(),
            totals_only: false,
        };
        Observation { host, netns: netns.collect(), covers: self.plan.covers.clone() }
    }
}
