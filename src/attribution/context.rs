//! What surrounds the resets of a window: who listens where, which listeners went away, who scans and who probes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{GoneListener, GoneProcesses, Grouped, SCAN_PORTS, SCAN_TRIES, by_packets};
use crate::observation::{ListenerTrace, View, delta};
use crate::reset::{Aborts, Answered, Exchange, Mark, Moved, Reset, Surroundings, Traced};
use crate::source::listeners::Bound;
use crate::source::reset_events::{Direction, ResetTally};
use crate::source::sysctl;
use crate::value::Observed;

/// The change of a counter, `None` where it was not read.
pub(super) fn moved(view: View<'_>, metric: &str) -> Option<u64> {
    delta::counter(view, metric).ok().map(|reading| reading.delta)
}

/// Who listens on which port, and on which addresses, at any time of the window, for what comes in by any device.
pub(super) fn listening(view: View<'_>) -> BTreeMap<u16, Vec<Bound>> {
    let mut listening: BTreeMap<u16, Vec<Bound>> = BTreeMap::new();
    for trace in view.netns.listener_traces.values().filter(|trace| trace.last.device == 0) {
        listening.entry(trace.last.port).or_default().push(trace.last.bound());
    }
    listening
}

/// Ports on which somebody listens, at any time of the window, for what comes in by one device.
fn device_ports(view: View<'_>) -> BTreeSet<u16> {
    let bound = view.netns.listener_traces.values().filter(|trace| trace.last.device != 0);
    bound.map(|trace| trace.last.port).collect()
}

/// What can be said about the resets of a window without judging them.
pub fn surroundings(
    view: View<'_>,
    grouped: &Grouped,
    gone: &[GoneListener<'_>],
    gone_processes: &GoneProcesses,
) -> Surroundings {
    let full = view.netns.listener_traces.values().filter(|trace| trace.full_samples > 0);
    let full_ports = full.map(|trace| trace.last.port).collect();
    // 127.0.0.1 is another peer in each namespace.
    let unclear_here = grouped.here.iter().any(|(_, tally)| tally.netns.is_none());
    let is_here = |reset: &&Reset| reset.netns().map_or(unclear_here, |netns| netns == view.after().netns);
    let owner_died = |trace: &ListenerTrace| {
        let owners = view.host.before.owners.value();
        let holders = owners.and_then(|owners| owners.by_inode.get(&trace.last.inode));
        holders.is_some_and(|pids| pids.iter().all(|pid| gone_processes.contains(*pid) == Some(true)))
    };
    let left_by_dead = gone.iter().filter(|gone| owner_died(gone.trace)).map(|gone| gone.trace.last.port);
    let here = Some(view.after().netns);
    let exiting = grouped.here.iter().map(|(_, tally)| tally).filter(|tally| tally.exiting && tally.netns == here);
    let exiting = exiting.filter_map(|tally| Some((tally.local_port?, tally.first)));
    // An exit that was seen tells the time better than a listener that went away.
    let mut dead_ports: BTreeMap<u16, Duration> =
        left_by_dead.map(|port| (port, closed_at(view, port).unwrap_or_default())).collect();
    for (port, at) in exiting {
        dead_ports.entry(port).and_modify(|since| *since = (*since).min(at)).or_insert(at);
    }
    let mut around = Surroundings {
        ephemeral: sysctl::ephemeral_ports(&view.after().sysctls),
        traced: traced(view),
        dead_ports,
        gone_ports: gone.iter().map(|gone| gone.trace.last.port).collect(),
        gone_processes: gone_processes.iter().map(|(pid, _)| pid).collect(),
        listening: listening(view),
        device_ports: device_ports(view),
        scanned: BTreeMap::new(),
        probers: probers(view.netns.resets.single.iter().filter(is_here)),
        full_ports,
        moved: Moved {
            on_close: moved(view, "TcpExt.TCPAbortOnClose"),
            on_data: moved(view, "TcpExt.TCPAbortOnData"),
            on_memory: moved(view, "TcpExt.TCPAbortOnMemory"),
            on_linger: moved(view, "TcpExt.TCPAbortOnLinger"),
            on_timeout: moved(view, "TcpExt.TCPAbortOnTimeout"),
            embryonic: moved(view, "TcpExt.EmbryonicRsts"),
            paws_active: moved(view, "TcpExt.PAWSActive"),
            time_wait_overflow: moved(view, "TcpExt.TCPTimeWaitOverflow"),
            listen_overflows: moved(view, "TcpExt.ListenOverflows"),
            cookies_failed: moved(view, "TcpExt.SyncookiesFailed"),
        },
        resets_on_overflow: resets_on_overflow(view),
        alone: grouped.alone.map(|(alone, _)| alone).unwrap_or_default(),
        closes_known: matches!(view.netns.endings, Observed::Full(_)),
        asked_in_vain: asked_in_vain(&grouped.here),
        usual_close: BTreeMap::new(),
        aborts: Aborts::default(),
    };
    around.scanned = scanned(&around, &grouped.here);
    around.aborts = Aborts::new(&around, &grouped.here);
    around.usual_close = usual_close(&around, &grouped.here);
    around
}

/// Of the resets of this namespace alone: many have 127.0.0.1, and what nobody answered in another one has an event here too.
fn scanned(around: &Surroundings, resets: &[(Mark, ResetTally)]) -> BTreeMap<IpAddr, BTreeSet<u16>> {
    let tries = |(mark, tally): &&(Mark, ResetTally)| {
        let to_nobody = tally.direction == Direction::Sent
            && !mark.again
            && match mark.packet_alone {
                true => !tally.active,
                false => tally.reason.as_deref() == Some("NO_SOCKET"),
            };
        // Without its packet a late answer of a service to a connection of ours is one by both its ports.
        let to_a_syn = match mark.answered {
            Some(answered) => answered == Answered::Syn,
            None => !mark.packet_alone && !around.is_rest_of_own(tally),
        };
        to_nobody && to_a_syn
    };
    let mut closed_ports: BTreeMap<IpAddr, BTreeMap<u16, u64>> = BTreeMap::new();
    for (_, tally) in resets.iter().filter(tries) {
        if let (Some(port), Some(peer)) = (tally.local_port, tally.peer_addr) {
            *closed_ports.entry(peer).or_default().entry(port).or_default() += tally.count;
        }
    }
    let few = |(peer, ports): (IpAddr, BTreeMap<u16, u64>)| {
        let mut rounds: Vec<u64> = ports.values().copied().collect();
        rounds.sort_unstable();
        // Nobody calls so many services; who goes over them again and again is a scanner that does.
        let rounds = rounds.get(rounds.len() / 2).filter(|_| rounds.len() >= 10 * SCAN_PORTS).copied().unwrap_or(1);
        let tried = ports.into_iter().filter(|(_, tries)| *tries <= SCAN_TRIES * rounds).map(|(port, _)| port);
        (peer, tried.collect::<BTreeSet<u16>>())
    };
    closed_ports.into_iter().map(few).filter(|(_, ports)| ports.len() >= SCAN_PORTS).collect()
}

fn asked_in_vain(resets: &[(Mark, ResetTally)]) -> Option<BTreeSet<u16>> {
    let answers = || resets.iter().filter(|(_, tally)| tally.direction == Direction::Sent && !tally.active);
    let mut seen = answers().filter(|(mark, _)| mark.answered.is_some()).peekable();
    seen.peek()?;
    let asked = seen.filter(|(mark, _)| mark.answered == Some(Answered::Syn)).filter_map(|(_, tally)| tally.local_port);
    Some(asked.collect())
}

/// By port, where nearly all of those that were seen are alike and nearly all were seen.
fn usual_close(around: &Surroundings, resets: &[(Mark, ResetTally)]) -> BTreeMap<u16, Exchange> {
    #[derive(Default)]
    struct Closes {
        seen: BTreeMap<Option<Exchange>, u64>,
        unseen: u64,
    }
    let mut ports: BTreeMap<u16, Closes> = BTreeMap::new();
    let sent = resets.iter().filter(|(_, tally)| tally.direction == Direction::Sent);
    for (mark, tally) in sent.filter(|(mark, tally)| around.reason(tally, *mark) == Some("TCP_ABORT_ON_CLOSE")) {
        let Some(port) = tally.local_port else { continue };
        let closes = ports.entry(port).or_default();
        match mark.left_unread {
            true => *closes.seen.entry(mark.exchange).or_default() += tally.count,
            false => closes.unseen += tally.count,
        }
    }
    let usual = |closes: &Closes| {
        let seen: u64 = closes.seen.values().sum();
        let nearly_all = |part: u64, whole: u64| part.saturating_mul(10) >= whole.saturating_mul(9);
        let (exchange, most) = closes.seen.iter().max_by_key(|(_, count)| **count)?;
        (nearly_all(*most, seen) && nearly_all(seen, seen + closes.unseen)).then_some((*exchange)?)
    };
    ports.iter().filter_map(|(port, closes)| Some((*port, usual(closes)?))).collect()
}

fn resets_on_overflow(view: View<'_>) -> bool {
    let sysctl = view.after().sysctls.get("net.ipv4.tcp_abort_on_overflow").and_then(Observed::value);
    sysctl.is_some_and(|text| text.trim() == "1")
}

/// When the last socket of this port stopped listening, CLOCK_BOOTTIME.
fn closed_at(view: View<'_>, port: u16) -> Option<Duration> {
    let here = view.after().netns;
    let closed = view.host.reset_events.value()?.listeners_closed.iter();
    closed
        .filter(|closed| closed.local.port() == port && closed.netns.is_none_or(|netns| netns == here))
        .map(|closed| closed.at)
        .max()
}

pub(super) fn traced(view: View<'_>) -> Traced {
    let Some(account) = view.host.reset_events.value() else { return Traced::NONE };
    let kernel = view.host.after.facts.kernel.as_deref().unwrap_or_default();
    Traced::new(kernel, &account.missing, by_packets(view) && account.lost == 0)
}

/// Peers whose resets come at regular intervals of a quarter second or more: three at least, each within 30 % of the
/// median. People and failing clients are not that regular; a check that asks something leaves with its answer.
fn probers<'a>(resets: impl Iterator<Item = &'a Reset>) -> BTreeSet<(IpAddr, u16)> {
    let mut times: BTreeMap<(IpAddr, u16), Vec<f64>> = BTreeMap::new();
    let received = |reset: &&Reset| reset.direction() == Direction::Received && reset.event.is_some();
    let checks = |reset: &&Reset| {
        let asked = reset.ended.as_ref().is_some_and(|socket| socket.bytes_received > Some(0));
        !asked || Exchange::of(reset) == Some(Exchange::Answered)
    };
    for reset in resets.filter(received).filter(checks) {
        if let (Some(local), Some(peer)) = (reset.local(), reset.peer()) {
            times.entry((peer.ip(), local.port())).or_default().push(reset.at().as_secs_f64());
        }
    }
    let regular = |times: &Vec<f64>| {
        let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        let Some(median) = gaps.get(gaps.len() / 2).copied().filter(|_| gaps.len() >= 2) else { return false };
        median >= 0.25 && gaps.iter().all(|gap| (0.7 * median..=1.3 * median).contains(gap))
    };
    times.into_iter().filter(|(_, times)| regular(times)).map(|(prober, _)| prober).collect()
}
