use super::numbers::slow_reader as numbers;
use super::place::{self, Place};
use super::{EvidenceItem, Finding, Judgement, Remedy, Verify};
use super::{commands, exchange, severity, wording};
use crate::evidence::Evidence;
use crate::reset::Exchange;
use crate::source::reset_events::Direction;
use crate::value::words;

cause! {
    /// ## What happens
    ///
    /// A client asks for more than it reads, or subscribes and does not read at all. Its receive window closes, the answers pile
    /// up in the server, and the server cuts it off: redis at `client-output-buffer-limit` ("overcoming of output buffer
    /// limits"), others at a send timeout. The client's next request is answered by a RST.
    ///
    /// ## How it shows
    ///
    /// The connection that is reset has much data that was written and not acknowledged; the kernel counted time in which only the
    /// peer's window held it back (tcpi_rwnd_limited).
    ///
    /// ## How to confirm
    ///
    /// `ss -tni` shows such connections before they die: a large Send-Q, `rwnd_limited`; on the client a large Recv-Q.
    ///
    /// ## What to change
    ///
    /// Let the client read as fast as it is sent to, in a thread of its own, or ask for less. A higher limit on the server only
    /// helps where the client catches up.
    ///
    /// ## Look-alikes
    ///
    /// A path that loses packets also leaves data unacknowledged, but there the sender retransmits and the window stays open.
    SLOW_READER {
        id: "slow-reader",
        title: "Cut off because it does not read",
        explains: ["late-data-after-close", "close-with-unread-data", "abortive-close", "peer-reset"],
        needs: [Window, ResetEvents],
        judge: judge,
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let otherwise = "no connection was reset while much waited for its reader";
    place::in_both_directions(
        e,
        SLOW_READER.id,
        [Direction::Sent, Direction::Received],
        |place, direction| finding(e, place, direction),
        otherwise,
    )
}

fn finding(e: &Evidence<'_>, place: Place<'_>, direction: Direction) -> Finding {
    let here = direction == Direction::Received;
    let how_far = if here { Exchange::UnreadHere } else { Exchange::HeldBack };
    let resets = exchange::resets(e, &place, how_far);
    let sockets = || resets.iter().filter_map(|reset| reset.ended.as_deref());
    let waiting = |socket: &crate::source::destroyed_sockets::DestroyedSocket| {
        u64::from(if here { socket.unread } else { socket.unacknowledged })
    };
    let most = sockets().map(waiting).max().unwrap_or(0);
    let window = words::seconds(e.window());
    let harm = place.harm(e);
    let connections = harm.counted("connection");
    let summary = match (here, place.called) {
        (true, Some(called)) => {
            format!("{called} reset {connections} of a program here that did not read what it was sent, in {window}")
        }
        (true, None) => {
            format!("{} did not read what clients sent: they reset {connections} in {window}", place.who(e))
        }
        (false, _) => format!("{} cut off {connections} whose clients did not read, in {window}", place.who(e)),
    };
    let (severity, confidence) = match here {
        true if place.called.is_some() => (severity::to_callers(e, &harm), numbers::UNREAD_HERE),
        true => (severity::by_clients(e, &harm), numbers::UNREAD_HERE),
        false => (severity::to_clients(e, &harm), numbers::HELD_BACK),
    };
    let where_it_lies = if here { "unread here" } else { "not acknowledged" };
    let mut finding =
        wording::doubted(&place, wording::active(e, severity, confidence, place.count, "resets", summary))
            .subjects(place.subjects(e))
            .evidence(EvidenceItem::value(
                "destroyed_sockets",
                if here { "unread" } else { "unacknowledged" },
                most as f64,
                format!("up to {} bytes were {where_it_lies} when the RST came", words::thousands(most)),
            ));
    let held = sockets().filter_map(|socket| socket.held_back).max().filter(|time| !here && !time.is_zero());
    finding = finding.evidence_if(held.map(|held| {
        let text = format!("the peer's closed window held back sending for up to {}", words::seconds(held));
        EvidenceItem::value("destroyed_sockets", "rwnd_limited", held.as_secs_f64(), text)
    }));
    let finding = finding.harm(harm);
    let verify = Verify::scan("shows nobody cut off");
    let finding = finding.remedy(
        Remedy::new(
            "Let the client read as fast as it is sent to (a thread of its own), or ask for less",
            verify.clone(),
        )
        .command(commands::ss_of("ss -tni", place.port)),
    );
    let output = exchange::server(e, &place).filter(|_| !here).and_then(|server| server.output.as_ref());
    match place.port {
        Some(port) => exchange::with_setting(
            finding,
            "If it catches up by itself, allow more to wait for it".to_owned(),
            output,
            port,
            &verify,
        ),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::late_data_after_close::LATE_DATA_AFTER_CLOSE;
    use super::*;
    use crate::observation::testing::{Case, process};
    use crate::value::TcpState;

    fn cut_off(unacknowledged: u32, held_back: Duration) -> Case {
        let ends = ["10.0.0.9:6379", "10.0.3.7:0"];
        Case::new()
            .counter("Tcp.OutRsts", 0, 20)
            .counter("Tcp.PassiveOpens", 0, 20)
            .listener("0.0.0.0:6379", 511, 0, 0, &process(977, "redis-server"))
            .sent(20, "TCP_ABORT_ON_DATA", Some(TcpState::FinWait1), ends, None)
            .destroyed_sockets(20, ends, 300, 0)
            .each_destroyed(|socket| {
                (socket.unacknowledged, socket.unsent) = (unacknowledged, Some(unacknowledged / 2));
                socket.held_back = Some(held_back);
            })
    }

    #[test]
    fn a_reader_that_does_not_read_is_told_with_what_waited_for_it() {
        let case = cut_off(120_184, Duration::from_millis(900));
        let finding = case.finding(&SLOW_READER);
        assert!(
            finding.summary.contains("redis-server (pid 977) on port 6379 cut off all 20 connections"),
            "{finding:?}"
        );
        assert!(finding.evidence[0].text.contains("120,184 bytes"), "{finding:?}");
        let lines: Vec<_> = finding.remedies.iter().filter_map(|remedy| remedy.line()).collect();
        assert!(lines.iter().any(|line| line.starts_with("client-output-buffer-limit")), "{lines:?}");
        assert!(case.is_ruled_out(&LATE_DATA_AFTER_CLOSE));
    }

    #[test]
    fn little_in_flight_or_an_open_window_is_not_this() {
        assert!(cut_off(600, Duration::from_millis(900)).is_ruled_out(&SLOW_READER));
        assert!(cut_off(120_184, Duration::ZERO).is_ruled_out(&SLOW_READER));
    }
}
