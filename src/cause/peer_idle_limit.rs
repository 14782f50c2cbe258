use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::numbers::peer_idle_limit as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Subject, Verdict};
use super::{exchange, place, severity, wording};
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::knowledge::idle_timeouts::{Role, near};
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A pool of this host keeps connections open for later. The server closes those that are idle for as long as it allows, and
    /// the pool uses one that was closed a moment before, or did not look: the request is answered by a RST, "Connection reset
    /// by peer" or "The target server failed to respond" (NoHttpResponseException). It is the caller's side of
    /// late-data-after-close.
    ///
    /// ## How it shows
    ///
    /// Own connections are reset after the peer's FIN had come (CLOSE_WAIT), each FIN after the same time without data.
    ///
    /// ## How to confirm
    ///
    /// `nc SERVER PORT`, one request, and wait: the server closes after that time.
    ///
    /// ## What to change
    ///
    /// Let the pool drop idle connections sooner than the server, or let the server keep them longer than the pool. Retry
    /// requests that are safe to repeat.
    ///
    /// ## Look-alikes
    ///
    /// A device on the path forgets the connection without a FIN (idle-timeout). A server that is stopped or restarted closes
    /// all connections at once, whatever their age.
    PEER_IDLE_LIMIT {
        id: "peer-idle-limit",
        title: "The peer closes idle connections that a pool still uses",
        explains: ["peer-reset", "idle-timeout"],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

/// For how long each connection had been silent when the peer closed it, seconds.
type Closed = BTreeMap<SocketAddr, Vec<f64>>;

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    e.reset_events()?;
    let mut closed = Closed::new();
    for ended in e.ended()?.iter() {
        if let Some((called, idle)) = ended.called.zip(ended.closed_by_peer_after()) {
            closed.entry(called).or_default().push(idle.as_secs_f64());
        }
    }
    let findings = closed.into_iter().filter_map(|(called, idle)| finding(e, called, idle)).collect();
    Ok(Verdict::from_findings(findings, "no pooled connection was used after its peer had closed it for being idle"))
}

fn finding(e: &Evidence<'_>, called: SocketAddr, idle: Vec<f64>) -> Option<Finding> {
    let (limit, regular) = exchange::typical(idle.iter().copied())?;
    let known: Vec<_> = near(limit)
        .into_iter()
        .filter(|known| known.role == Role::Server && limit >= numbers::OF_KNOWN * known.seconds as f64)
        .collect();
    let confidence = match (regular, known.is_empty()) {
        _ if limit < numbers::SHORTEST_S => return None,
        (true, _) => numbers::ONE_LIMIT,
        (false, false) if idle.len() == 1 => numbers::ONE_NEAR_KNOWN,
        (false, _) => return None,
    };
    let count = idle.len() as u64;
    let harm = severity::lately(e, PEER_IDLE_LIMIT.id, e.harm(Target::Called(called), count, None));
    let summary = format!(
        "{called} closes connections that are idle for {limit:.1} s: {} of this host met that, in {}",
        words::counted(count, "request"),
        words::seconds(e.window())
    );
    let mut finding = wording::active(e, severity::to_callers(e, &harm), confidence, count, "resets", summary)
        .subject(Subject::peer(called.ip(), Some(called.port())).counted(count))
        .subjects(place::callers(e, called))
        .evidence(EvidenceItem::value(
            "destroyed_sockets",
            "idle_s",
            limit,
            format!("the peer's FIN came {limit:.1} s after the last data, the request after that was reset"),
        ));
    if !known.is_empty() {
        let names: Vec<_> = known.iter().map(|known| format!("{} ({} s)", known.name, known.seconds)).collect();
        finding = finding.evidence(EvidenceItem::fact(
            "knowledge",
            "idle_timeouts",
            format!("servers whose default is near that: {}", names.join(", ")),
        ));
    }
    Some(
        finding
            .harm(harm)
            .remedy(Remedy::new(
                format!(
                    "Let the pool drop connections that are idle for more than {:.1} s",
                    limit * numbers::POOL_LIMIT
                ),
                "the first request after a pause succeeds",
            ))
            .remedy(Remedy::new(
                format!("Or let {called} keep idle connections longer than the pool does"),
                "the first request after a pause succeeds",
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::super::idle_timeout::IDLE_TIMEOUT;
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::TcpState;

    const ENDS: [&str; 2] = ["10.0.0.9:0", "10.0.7.1:8080"];

    /// The last answer, the FIN so many ms after it, and a request 20 ms later.
    fn pooled(count: u16, idle_ms: impl Fn(u32) -> u32) -> Case {
        let mut number = 0;
        Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("Tcp.ActiveOpens", 0, 20)
            .received(count, TcpState::CloseWait, ENDS)
            .destroyed_sockets(count, ENDS, 0, 0)
            .each_destroyed(|socket| {
                number += 1;
                let idle = idle_ms(number);
                (socket.data_received_ms, socket.ack_received_ms, socket.data_sent_ms) = (idle + 25, 25, 5);
            })
    }

    #[test]
    fn the_limit_is_measured_and_the_advice_lies_below_it() {
        let case = pooled(6, |n| 1_000 + n);
        let finding = case.finding(&PEER_IDLE_LIMIT);
        assert!(finding.summary.starts_with("10.0.7.1:8080 closes connections that are idle for 1.0 s"), "{finding:?}");
        assert!(finding.remedies[0].text.ends_with("idle for more than 0.8 s"), "{finding:?}");
        assert!(case.is_ruled_out(&IDLE_TIMEOUT), "not the path");
    }

    #[test]
    fn without_idle_time_or_at_all_ages_it_is_another_reason() {
        assert!(pooled(6, |_| 3).is_ruled_out(&PEER_IDLE_LIMIT), "busy connections");
        assert!(pooled(6, |n| n * n * 900).is_ruled_out(&PEER_IDLE_LIMIT), "a restart");
    }
}
