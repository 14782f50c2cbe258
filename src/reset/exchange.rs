//! How far the exchange on a connection had come when it was reset, from what the connection left when it was destroyed.

use std::time::Duration;

use super::Reset;
use crate::source::destroyed_sockets::DestroyedSocket;
use crate::source::reset_events::Direction;
use crate::value::TcpState;

/// A program that turns a connection away does so when it accepts it.
const AT_ACCEPT_MS: u32 = 1_000;
/// A greeting, or a line that says why: `Exceeded MaxStartups`, `-ERR max number of clients reached`; the `-DENIED` of Redis in
/// protected mode has 1,067 bytes.
const GREETING: u64 = 2_048;
/// More than this in flight is no answer that merely crossed the reset: ten segments, the first window (RFC 6928).
const MUCH: u32 = 14_600;
/// A goodbye: TLS close_notify has 24 to 31 bytes, QUIT of text protocols fewer.
const GOODBYE: u32 = 64;
/// One that takes longer: ssh(1) closes its channel and says goodbye in one. Short requests have as much.
const LONG_GOODBYE: u32 = 256;
/// Ports where TLS is the rule: a close_notify after a FIN is likelier than a lost request.
pub const TLS_PORTS: [u16; 8] = [443, 465, 636, 993, 995, 5671, 6443, 8443];
/// Who leaves with the answer does so within this time.
const SHORT: Duration = Duration::from_millis(100);
/// A client that has a limit waits longer than this for its answer; sooner it is cancelled.
const WAITS: Duration = Duration::from_millis(200);

/// What was open between the two ends. Each is of one direction of the reset: the first four are sent from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exchange {
    /// This side ended it right after accept: all that came is unread, and at most a greeting was sent.
    TurnedAway,
    /// The peer did not take what this side sent: its receive window was closed.
    HeldBack,
    /// This side had asked, and waited for the answer.
    Asked,
    /// Everything was answered; what is unread came with the FIN of the side that had asked, or just after the other's.
    Goodbye,
    /// The same, or a short request that nobody read: whether the peer had closed is not known.
    PerhapsGoodbye,
    /// The peer left while its request had no answer.
    Unanswered,
    /// Much of what the peer had sent was unread, and had been for a while.
    UnreadHere,
    /// The peer asked nothing, and left at once or with the greeting.
    NothingAsked,
    /// The peer left as soon as it had acknowledged the answer.
    Answered,
}

impl Exchange {
    /// As [`Self::of`], of a connection that this side closed; its state before is not known.
    pub fn of_close(socket: &DestroyedSocket) -> Option<Self> {
        from_here(socket, socket.bytes_received?, socket.bytes_sent?, None, false)
    }

    /// This side said something short right after accept and closed, without a look at what the client had to say: not even
    /// the client's FIN was read, which counts as a byte (net/ipv4/tcp_input.c tcp_fin). That makes no RST.
    pub fn is_dismissal(socket: &DestroyedSocket) -> bool {
        let (Some(received), Some(sent)) = (socket.bytes_received, socket.bytes_sent) else { return false };
        let nothing_read = received <= 1 && u64::from(socket.unread) >= received;
        nothing_read && socket.data_sent_ms < AT_ACCEPT_MS && (1..=GREETING).contains(&sent)
    }

    /// `None` where the connection was not seen to be destroyed, or none of these fits.
    pub fn of(reset: &Reset) -> Option<Self> {
        let socket = reset.ended.as_ref()?;
        let (received, sent) = (socket.bytes_received?, socket.bytes_sent?);
        let state = reset.state_before();
        match reset.direction() {
            Direction::Sent => from_here(socket, received, sent, state, reset.event.is_none()),
            Direction::Received => from_peer(reset, socket, received, sent, state),
        }
    }
}

/// `packet_alone`: no event tells the state before.
fn from_here(
    socket: &DestroyedSocket,
    received: u64,
    sent: u64,
    state: Option<TcpState>,
    packet_alone: bool,
) -> Option<Exchange> {
    // What the peer's FIN takes of the sequence numbers counts as unread too.
    let nothing_read = u64::from(socket.unread) >= received;
    // Where nothing came or went, the time since is that since the connection was made (tcp_create_openreq_child()).
    let recent = socket.data_sent_ms.max(socket.data_received_ms) < AT_ACCEPT_MS;
    if nothing_read && recent && sent <= GREETING {
        return Some(Exchange::TurnedAway);
    }
    if socket.unacknowledged >= MUCH && socket.held_back.is_none_or(|time| !time.is_zero()) && socket.unsent != Some(0)
    {
        return Some(Exchange::HeldBack);
    }
    let since_asked = Duration::from_millis(u64::from(socket.data_sent_ms));
    if sent > 0 && socket.asked_last() && socket.unread == 0 && since_asked >= WAITS {
        return Some(Exchange::Asked);
    }
    let answered = !nothing_read && sent > 0 && socket.unacknowledged == 0;
    match state {
        _ if !answered => None,
        Some(TcpState::CloseWait) if socket.unread <= GOODBYE => Some(Exchange::Goodbye),
        _ if packet_alone && socket.unread <= LONG_GOODBYE => Some(Exchange::PerhapsGoodbye),
        _ => None,
    }
}

fn from_peer(
    reset: &Reset,
    socket: &DestroyedSocket,
    received: u64,
    sent: u64,
    state: Option<TcpState>,
) -> Option<Exchange> {
    if received == 0 {
        let soon = socket.idle(reset.at()) < Duration::from_millis(u64::from(AT_ACCEPT_MS));
        return (sent > 0 || soon).then_some(Exchange::NothingAsked);
    }
    if socket.unread >= MUCH && socket.idle(reset.at()) >= SHORT {
        return Some(Exchange::UnreadHere);
    }
    if is_goodbye_of_tls(reset, socket, sent, state) {
        return Some(Exchange::Goodbye);
    }
    if patience(reset).is_some_and(|patience| patience >= WAITS) {
        return Some(Exchange::Unanswered);
    }
    let taken = sent > 0 && socket.unacknowledged == 0 && socket.unread == 0 && state != Some(TcpState::CloseWait);
    (taken && socket.idle(reset.at()) < SHORT).then_some(Exchange::Answered)
}

/// Everything that this side asked was answered; the peer closed, and what it did not take is this side's close_notify, which
/// follows the answer at once. A request is longer, or comes after a pause.
fn is_goodbye_of_tls(reset: &Reset, socket: &DestroyedSocket, sent: u64, state: Option<TcpState>) -> bool {
    let tls = reset.peer().is_some_and(|peer| TLS_PORTS.contains(&peer.port()));
    let short = (1..=GOODBYE).contains(&socket.unacknowledged) && sent > u64::from(socket.unacknowledged);
    let since_answer = socket.data_received_ms.checked_sub(socket.data_sent_ms);
    let at_once = since_answer.is_some_and(|ms| Duration::from_millis(u64::from(ms)) < SHORT);
    tls && state == Some(TcpState::CloseWait) && short && at_once
}

/// How long the side that left had waited for an answer; `None` where no request was open.
pub fn patience(reset: &Reset) -> Option<Duration> {
    let socket = reset.ended.as_ref()?;
    let (received, sent) = (socket.bytes_received?, socket.bytes_sent?);
    let ms = |ms: u32| Duration::from_millis(u64::from(ms));
    if reset.direction() == Direction::Sent {
        return (Exchange::of(reset) == Some(Exchange::Asked)).then(|| ms(socket.data_sent_ms));
    }
    if received == 0 {
        return None;
    }
    if reset.state_before() == Some(TcpState::CloseWait) {
        // Its FIN is the last that was acknowledged with; what it reset was sent after that. A download that it cancels goes on
        // without a pause, and a part of it was acknowledged.
        let silent = socket.ack_received_ms.saturating_sub(socket.data_sent_ms);
        let unanswered = socket.unacknowledged > 0 && (sent <= u64::from(socket.unacknowledged) || ms(silent) >= SHORT);
        return unanswered.then(|| ms(socket.data_received_ms.saturating_sub(socket.ack_received_ms)));
    }
    let unanswered = sent == 0 || socket.data_received_ms < socket.data_sent_ms && socket.unacknowledged == 0;
    unanswered.then(|| socket.idle(reset.at()))
}

/// How long this side took for an answer that met a peer that had left.
pub fn answered_after(reset: &Reset) -> Option<Duration> {
    let late = reset.state_before() == Some(TcpState::CloseWait) && patience(reset).is_some();
    let socket = reset.ended.as_ref().filter(|_| late)?;
    Some(Duration::from_millis(u64::from(socket.data_received_ms.saturating_sub(socket.data_sent_ms))))
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::testing::{destroyed, event, packet};
    use super::*;
    use crate::source::reset_events::ResetEvent;

    /// TLS's close_notify after the answer is harmless, a short request that nobody read is not. Only the state tells, and no packet
    /// does: nobody is accused then, and nothing is said to be well.
    #[test]
    fn a_packet_alone_does_not_tell_a_goodbye_from_a_short_request() {
        let (local, peer) = ("10.0.0.1:443", "10.0.0.2:40000");
        let of = |state: Option<TcpState>, unread| {
            let event = state.map(|state| ResetEvent { state: Some(state), ..event(Direction::Sent, local, peer) });
            let ended = DestroyedSocket { unread, ..destroyed(local, peer) };
            let packet = Some(packet(Direction::Sent, local, peer));
            let (again, closed) = (false, false);
            Exchange::of(&Reset { event, packet, ended: Some(Box::new(ended)), again, closed, errno: None })
        };
        assert_eq!(of(Some(TcpState::CloseWait), 31), Some(Exchange::Goodbye));
        assert_eq!(of(Some(TcpState::Established), 31), None);
        assert_eq!(of(None, 31), Some(Exchange::PerhapsGoodbye));
        assert_eq!(of(None, 900), None, "no goodbye is so long");
        let of = |exchange| Kind::UnreadData.of_server(exchange);
        assert_eq!((of(Exchange::Goodbye), of(Exchange::PerhapsGoodbye)), (Kind::Goodbye, Kind::Active));
    }
}
