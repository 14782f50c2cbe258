use super::numbers::health_check_resets as numbers;
use super::place::{self, Place};
use super::wording;
use super::{EvidenceItem, Finding, Judgement, Remedy, Verdict};
use crate::evidence::Evidence;
use crate::source::reset_events::Direction;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A load balancer or monitor connects to see whether the port is open, and ends the check with a RST; scanners take the
    /// greeting and leave. It explains the numbers and is no fault, though applications log "connection reset by peer".
    ///
    /// ## How it shows
    ///
    /// RSTs of peers that asked nothing; or of the same few peers, as regular as a clock, each with the answer to its check.
    ///
    /// ## How to confirm
    ///
    /// `rstdoctor trace --received --port PORT` as root shows the same peer at regular intervals.
    ///
    /// ## What to change
    ///
    /// Nothing. To quiet the log, let the prober make an HTTP check, or end its TCP check with FIN.
    ///
    /// ## Look-alikes
    ///
    /// A client with a timer that fails at each try (peer-reset). A half-open probe shows as handshake-reset.
    HEALTH_CHECK_RESETS {
        id: "health-check-resets",
        title: "Health checks that end with RST",
        explains: [],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let groups = e.resets_of(HEALTH_CHECK_RESETS.id, Direction::Received)?;
    let findings = place::places(e, &groups).into_iter().map(|place| finding(e, place)).collect();
    Ok(Verdict::from_findings(
        findings,
        "no peer that asked nothing reset its connection, and none did so at regular intervals",
    ))
}

fn finding(e: &Evidence<'_>, place: Place<'_>) -> Finding {
    let peers = place.peers();
    let by = match peers.as_slice() {
        [(peer, _)] => peer.to_string(),
        peers => words::counted(peers.len() as u64, "prober"),
    };
    let port = place.port.map_or_else(String::new, |port| format!(" of port {port}"));
    let summary = format!(
        "{}{port} by {by} ended with RST in {}: harmless",
        words::counted(place.count, "check"),
        words::seconds(e.window())
    );
    wording::benign(e, numbers::REGULAR, place.count, "resets", summary)
        .subjects(place.subjects(e))
        .evidence(EvidenceItem::value(
            "reset_events",
            "received",
            place.count as f64,
            format!("{} by {by}: nothing was asked, or each check was answered", words::counted(place.count, "RST")),
        ))
        .remedy(Remedy::new("Nothing to change; to quiet the log let the prober use an HTTP check", "the log is quiet"))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::peer_reset::PEER_RESET;
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::source::reset_events::Direction;
    use crate::value::{Observed, TcpState};
    use std::time::Duration;

    fn every(gaps_ms: &[u64]) -> Case {
        let mut case = Case::new().listener("0.0.0.0:80", 128, 0, 0, &process(1, "nginx")).received(
            gaps_ms.len() as u16,
            TcpState::Established,
            ["10.0.0.9:80", "10.0.0.5:0"],
        );
        if let Observed::Full(events) = &mut case.events {
            let mut at = Duration::from_secs(1000);
            for (event, gap) in events.iter_mut().zip(gaps_ms) {
                at += Duration::from_millis(*gap);
                event.at = at;
            }
        }
        case
    }

    #[test]
    fn a_prober_is_benign_and_not_a_peer_reset() {
        let case = every(&[500, 505, 495, 500, 500]);
        assert_eq!(case.finding(&HEALTH_CHECK_RESETS).state, State::Benign);
        assert!(case.is_ruled_out(&PEER_RESET));
    }

    /// Its like in another namespace, of which no event tells, comes at other times.
    #[test]
    fn a_prober_of_another_namespace_makes_this_one_no_less_regular() {
        let other = every(&[700, 500, 500, 500, 500]);
        let Observed::Full(mut strangers) = other.events else { panic!("events") };
        for event in &mut strangers {
            (event.netns, event.cookie) = (None, event.cookie.map(|cookie| cookie + 100));
            event.peer = event.peer.map(|peer| (peer.ip(), peer.port() + 100).into());
        }
        let mut case =
            every(&[500, 505, 495, 500, 500]).packets(5, Direction::Received, 0x04, 64, ["10.0.0.9:80", "10.0.0.5:0"]);
        let Observed::Full(events) = &mut case.events else { panic!("events") };
        let times: Vec<_> = events.iter().map(|event| event.at).collect();
        events.extend(strangers);
        events.sort_by_key(|event| event.at);
        let mut times = times.into_iter();
        let case = case.each_packet(|packet| packet.at = times.next().unwrap_or(packet.at));
        assert_eq!(case.finding(&HEALTH_CHECK_RESETS).impact.events, 5);
    }

    #[test]
    fn irregular_resets_are_not_this() {
        assert!(every(&[100, 900, 30, 500, 1200]).is_ruled_out(&HEALTH_CHECK_RESETS));
    }

    #[test]
    fn without_events_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&HEALTH_CHECK_RESETS), Some("reset_events"));
    }
}
