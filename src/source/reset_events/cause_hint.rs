//! Which root cause a reset points to by itself: its reason, state and caller, before counters and other events refine it.

use super::{Caller, Direction, ResetEvent, ResetTally};
use crate::source::tcp_state::TcpState;

/// What of a reset the hint depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetTraits<'a> {
    pub direction: Direction,
    pub reason: Option<&'a str>,
    /// In the record.
    pub state: Option<TcpState>,
    /// Before the reset.
    pub state_before: Option<TcpState>,
    pub active: bool,
    pub caller: Option<Caller>,
    pub exiting: bool,
}

impl<'a> From<&'a ResetEvent> for ResetTraits<'a> {
    fn from(event: &'a ResetEvent) -> Self {
        Self {
            direction: event.direction,
            reason: event.reason.as_deref(),
            state: event.state,
            state_before: event.state_before(),
            active: event.active,
            caller: event.caller,
            exiting: event.exiting,
        }
    }
}

impl<'a> From<&'a ResetTally> for ResetTraits<'a> {
    fn from(tally: &'a ResetTally) -> Self {
        Self {
            direction: tally.direction,
            reason: tally.reason.as_deref(),
            state: tally.state,
            state_before: tally.state_before(),
            active: tally.active,
            caller: tally.caller,
            exiting: tally.exiting,
        }
    }
}

/// The cause id that the event alone suggests; `None` where it needs more than the event (TCP_FLAGS has five causes, told
/// apart by what happened before) or where no cause has that shape.
///
/// | sent: reason | caller, state | cause |
/// |---|---|---|
/// | any active | do_exit | process-exit |
/// | TCP_ABORT_ON_CLOSE | | close-with-unread-data |
/// | TCP_STATE | inet_csk_listen_stop | listener-closed |
/// | TCP_STATE | tcp_abort, or state still ESTABLISHED etc. | socket-destroyed |
/// | TCP_STATE, TCP_DISCONNECT_WITH_DATA | __tcp_close, tcp_disconnect | abortive-close |
/// | TCP_ABORT_ON_LINGER | | abortive-close |
/// | TCP_ABORT_ON_DATA, TCP_TIMEWAIT_SOCKET | | late-data-after-close |
/// | TCP_ABORT_ON_MEMORY | | `None`: orphan-limit or tcp-memory-exhausted, by sockstat |
/// | TCP_KEEPALIVE_TIMEOUT | | keepalive-timeout |
/// | NO_SOCKET | | port-without-listener (a stray ACK looks the same: see `TcpExt` and the packet) |
/// | TCP_FLAGS | LISTEN | stale-connection, unless the accept queue, cookies or a restart explain it |
/// | INVALID_SYN | LISTEN | accept-queue-overflow if tcp_abort_on_overflow is 1 |
/// | TCP_INVALID_ACK_SEQUENCE | SYN_SENT | stale-connection |
/// | received in | SYN_SENT | upstream-refused |
/// | received in | ESTABLISHED, CLOSE_WAIT | peer-reset |
pub fn cause_hint<'a>(reset: impl Into<ResetTraits<'a>>) -> Option<&'static str> {
    let reset: ResetTraits<'_> = reset.into();
    match reset.direction {
        Direction::Sent if reset.active => sent_by_socket(&reset),
        Direction::Sent => sent_in_answer(&reset),
        Direction::Received => match reset.state_before {
            Some(TcpState::SynSent) => Some("upstream-refused"),
            Some(TcpState::Established | TcpState::CloseWait) => Some("peer-reset"),
            _ => None,
        },
    }
}

fn sent_by_socket(reset: &ResetTraits<'_>) -> Option<&'static str> {
    // A listener that its process left behind by exiting is the restart or crash of a server: listener-closed says which
    // connections died and why, process-exit would hide that they were never accepted.
    if reset.caller == Some(Caller::ListenerStop) {
        return Some("listener-closed");
    }
    if reset.exiting {
        return Some("process-exit");
    }
    match reset.reason {
        Some("TCP_ABORT_ON_CLOSE") => Some("close-with-unread-data"),
        Some("TCP_ABORT_ON_LINGER") => Some("abortive-close"),
        Some("TCP_ABORT_ON_DATA") => Some("late-data-after-close"),
        Some("TCP_KEEPALIVE_TIMEOUT") => Some("keepalive-timeout"),
        // Linux 6.10 and 6.11 have the field, but give no reason for active resets.
        Some("TCP_STATE" | "TCP_DISCONNECT_WITH_DATA" | "NOT_SPECIFIED") | None => match reset.caller {
            Some(Caller::Destroy) => Some("socket-destroyed"),
            Some(Caller::Disconnect) => Some("abortive-close"),
            // With the reason unread data is told apart; without, both end here.
            Some(Caller::Close) if reset.reason == Some("TCP_STATE") => Some("abortive-close"),
            None if reset.reason == Some("TCP_STATE") => match reset.state {
                // Only tcp_abort() sends before it leaves the state.
                Some(TcpState::Established | TcpState::CloseWait) => Some("socket-destroyed"),
                _ => None,
            },
            _ => None,
        },
        Some(_) => None,
    }
}

fn sent_in_answer(reset: &ResetTraits<'_>) -> Option<&'static str> {
    match (reset.reason?, reset.state) {
        ("NO_SOCKET", _) => Some("port-without-listener"),
        ("TCP_FLAGS", Some(TcpState::Listen)) => Some("stale-connection"),
        ("TCP_INVALID_ACK_SEQUENCE", Some(TcpState::SynSent)) => Some("stale-connection"),
        ("INVALID_SYN", Some(TcpState::Listen | TcpState::NewSynRecv)) => Some("accept-queue-overflow"),
        ("TCP_TIMEWAIT_SOCKET" | "TCP_ABORT_ON_DATA", _) => Some("late-data-after-close"),
        ("TCP_RFC7323_PAWS", _) => Some("timestamp-rejected"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TcpState::*;

    fn active(reason: &str, state: TcpState, caller: Option<Caller>, exiting: bool) -> Option<&'static str> {
        let before = (state != Close).then_some(state);
        cause_hint(ResetTraits {
            direction: Direction::Sent,
            reason: Some(reason).filter(|r| !r.is_empty()),
            state: Some(state),
            state_before: before,
            active: true,
            caller,
            exiting,
        })
    }

    fn answer(reason: &str, state: Option<TcpState>) -> Option<&'static str> {
        cause_hint(ResetTraits {
            direction: Direction::Sent,
            reason: Some(reason),
            state,
            state_before: state,
            active: false,
            caller: None,
            exiting: false,
        })
    }

    /// Measured on Linux 6.18: what each fault looks like in the tracepoint.
    #[test]
    fn a_socket_that_resets_tells_its_cause() {
        let close = Some(Caller::Close);
        assert_eq!(active("TCP_ABORT_ON_CLOSE", Close, close, false), Some("close-with-unread-data"));
        assert_eq!(active("TCP_ABORT_ON_CLOSE", Close, close, true), Some("process-exit"));
        assert_eq!(active("TCP_STATE", Close, close, false), Some("abortive-close"));
        assert_eq!(active("TCP_STATE", Close, Some(Caller::Disconnect), false), Some("abortive-close"));
        assert_eq!(active("TCP_STATE", Close, Some(Caller::ListenerStop), true), Some("listener-closed"));
        assert_eq!(active("TCP_STATE", Established, Some(Caller::Destroy), false), Some("socket-destroyed"));
        assert_eq!(active("TCP_KEEPALIVE_TIMEOUT", Established, None, false), Some("keepalive-timeout"));
        assert_eq!(active("TCP_ABORT_ON_LINGER", Close, close, false), Some("abortive-close"));
        assert_eq!(active("TCP_ABORT_ON_DATA", Close, None, false), Some("late-data-after-close"));
    }

    #[test]
    fn without_symbols_or_reason_only_what_is_certain_is_said() {
        assert_eq!(active("TCP_STATE", Established, None, false), Some("socket-destroyed"));
        assert_eq!(active("TCP_STATE", Close, None, false), None, "linger 0, listener closed or AF_UNSPEC");
        assert_eq!(active("", Close, None, false), None);
        assert_eq!(active("", Close, Some(Caller::Close), false), None, "unread data or linger 0");
        assert_eq!(active("", Close, Some(Caller::ListenerStop), false), Some("listener-closed"));
        assert_eq!(active("TCP_ABORT_ON_MEMORY", Close, Some(Caller::Close), false), None);
    }

    #[test]
    fn an_answer_to_a_segment_tells_its_cause() {
        assert_eq!(answer("NO_SOCKET", None), Some("port-without-listener"));
        assert_eq!(answer("TCP_FLAGS", Some(Listen)), Some("stale-connection"));
        assert_eq!(answer("INVALID_SYN", Some(Listen)), Some("accept-queue-overflow"));
        assert_eq!(answer("TCP_TIMEWAIT_SOCKET", Some(TimeWait)), Some("late-data-after-close"));
        assert_eq!(answer("TCP_ABORT_ON_DATA", Some(Close)), Some("late-data-after-close"));
        assert_eq!(answer("TCP_INVALID_ACK_SEQUENCE", Some(SynSent)), Some("stale-connection"));
        assert_eq!(answer("A_REASON_OF_TOMORROW", Some(Listen)), None);
    }

    #[test]
    fn a_received_reset_is_told_by_its_state() {
        let received = |state| {
            cause_hint(ResetTraits {
                direction: Direction::Received,
                reason: None,
                state,
                state_before: state,
                active: false,
                caller: None,
                exiting: false,
            })
        };
        assert_eq!(received(Some(SynSent)), Some("upstream-refused"));
        assert_eq!(received(Some(Established)), Some("peer-reset"));
        assert_eq!(received(Some(FinWait1)), None, "a late RST harms nobody");
        assert_eq!(received(None), None);
    }
}
