//! What connections looked like when the kernel destroyed them: sock_diag's multicast of destroyed sockets (sock_diag(7),
//! net/core/sock_diag.c sock_diag_broadcast_destroy). It tells how long a connection had been idle and whether a request
//! was under way. Any user may listen, in any network namespace.
//!
//! A socket is destroyed when its last holder lets go, so some time after a RST ended it; its state is CLOSE whatever
//! ended it. Which one ended it shows by joining the message to a reset, by cookie or by both ends.
//!
//! # The stream
//! Blocks as in [`stream`]: start (text: [`MAGIC`]), clock (text: CLOCK_BOOTTIME, ns, when the
//! drain began), records (netlink datagrams as the kernel sent them), counts (text: how often the kernel had no room; how
//! many messages that cost is not known), note (text: why the collection ended early).

use std::net::SocketAddr;
use std::time::Duration;

use super::pseudonyms::Pseudonyms;
use super::redaction::{BlockRedaction, Redaction, Rule, note, plain};
use super::sock_diag::redaction::messages;
use super::sock_diag::{Socket, Walker};
use crate::ask::What;
use crate::stream::{self, Content, Kind, Parser};
use crate::value::ParseError;

const SOURCE: &str = "destroyed sockets";
pub const MAGIC: &str = "rstdoctor-last-words 1";
/// Single connections kept, about 2 MB.
const MAX_SOCKETS: usize = 20_000;

/// The connections that were destroyed in the window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DestroyedSockets {
    /// In order of arrival, capped; `dropped` counts those over the cap.
    pub sockets: Vec<DestroyedSocket>,
    pub dropped: u64,
    /// How often the kernel had no room: each time an unknown number is missing.
    pub gaps: u64,
    /// The collection ended before the window did, because listening costs the kernel time for each destroyed socket.
    pub ended_early: Option<String>,
}

/// One destroyed connection. Ages are milliseconds before `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestroyedSocket {
    /// CLOCK_BOOTTIME, as `Moment::mono`, of the drain that found it: late by up to the time between two drains.
    pub at: Duration,
    /// The drain before, or zero: it was destroyed between the two.
    pub after: Duration,
    pub local: SocketAddr,
    /// Port 0 after a local abort: the kernel had unhashed it.
    pub peer: SocketAddr,
    pub cookie: u64,
    pub data_sent_ms: u32,
    pub data_received_ms: u32,
    pub ack_received_ms: u32,
    /// Bytes written and never acknowledged.
    pub unacknowledged: u32,
    /// Those of them that were never sent; Linux 4.6 and later.
    pub unsent: Option<u32>,
    /// Bytes received and never read.
    pub unread: u32,
    /// Retransmissions of the last segment that was sent.
    pub retransmits: u8,
    /// Retransmission timeout, the backoff included.
    pub timeout: Duration,
    /// How long the peer's receive window held back what was to be sent; Linux 4.10 and later.
    pub held_back: Option<Duration>,
    pub bytes_received: Option<u64>,
    /// Without retransmissions; Linux 4.19 and later.
    pub bytes_sent: Option<u64>,
    /// A connect whose SYN was sent again, and to which nothing ever came back. Never so before Linux 4.2.
    pub unanswered: bool,
    /// Nothing that this side sent was acknowledged, and no data came: a connect that failed, where this side connected (a
    /// SYN-ACK acknowledges the SYN). Never so before Linux 4.1.
    pub unacknowledged_altogether: bool,
}

impl DestroyedSocket {
    fn read((after, at): (Duration, Duration), socket: &Socket<'_>) -> Option<Self> {
        let info = socket.tcp_info()?;
        Some(Self {
            at,
            after,
            local: socket.local(),
            peer: socket.peer(),
            cookie: socket.cookie(),
            data_sent_ms: info.last_data_sent_ms()?,
            data_received_ms: info.last_data_recv_ms()?,
            ack_received_ms: info.last_ack_recv_ms()?,
            unacknowledged: socket.wqueue(),
            unread: socket.rqueue(),
            retransmits: info.retransmits()?,
            timeout: Duration::from_micros(u64::from(info.rto_us()?)),
            held_back: info.window_limited_us().map(Duration::from_micros),
            bytes_received: info.bytes_received(),
            bytes_sent: info.bytes_sent(),
            unsent: info.unsent_bytes(),
            unacknowledged_altogether: info.bytes_acked() == Some(0) && info.bytes_received() == Some(0),
            unanswered: info.segments_received() == Some(0) && info.total_retrans().is_some_and(|count| count > 0),
        })
    }

    /// How long no data had come or gone, or since it was made, when it was reset at `reset` (CLOCK_BOOTTIME); too long by up
    /// to the time between two drains.
    pub fn idle(&self, reset: Duration) -> Duration {
        let silent = Duration::from_millis(u64::from(self.data_sent_ms.min(self.data_received_ms)));
        silent.saturating_sub(self.after.saturating_sub(reset))
    }

    /// How long the connection had been silent when its last data was sent, if nothing came in answer to that: the pause
    /// before the first use that failed. A keepalive answer ends a pause as data does.
    pub fn pause(&self) -> Option<Duration> {
        let silence = self.data_received_ms.min(self.ack_received_ms);
        let since_first_try = Duration::from_millis(u64::from(self.data_sent_ms)) + self.retransmitting();
        Duration::from_millis(u64::from(silence)).checked_sub(since_first_try)
    }

    /// From the first transmission to the last: with each the timeout doubled (RFC 6298 5.5).
    fn retransmitting(&self) -> Duration {
        self.timeout - self.timeout / 2u32.saturating_pow(u32::from(self.retransmits).min(20))
    }

    /// A connection of this side that ended within a second of being made, with a greeting at most.
    pub fn was_turned_away(&self) -> bool {
        const GREETING: u64 = 64;
        const AT_ONCE_MS: u32 = 1_000;
        let silent = self.bytes_received.is_some_and(|bytes| bytes <= GREETING);
        silent && self.data_sent_ms.max(self.data_received_ms) < AT_ONCE_MS
    }

    /// It was open and gave up retransmitting, in all likelihood: nothing of what it sent last was acknowledged.
    pub fn gave_up(&self) -> bool {
        self.retransmits > 0 && self.unacknowledged > 0 && !self.unanswered
    }

    /// It had sent something after the last that it received: a request without an answer, where this side asks.
    pub fn asked_last(&self) -> bool {
        // A request that follows the handshake within a tick of the clock is as old as that, which counts as received data
        // (net/ipv4/tcp_input.c tcp_finish_connect).
        let unanswered = self.bytes_received == Some(0) && self.bytes_sent > Some(0);
        unanswered || self.data_sent_ms < self.data_received_ms
    }
}

/// Collects the answers to `Ask::DestroyedSockets`.
pub type DestroyedParser = Parser<Sockets>;

/// What the blocks say.
#[derive(Default)]
pub struct Sockets {
    started: bool,
    /// Running total, and how much of it was handed over.
    gaps: u64,
    gaps_taken: u64,
    /// Clocks of the previous and the current drain.
    drains: (Duration, Duration),
    out: DestroyedSockets,
}

impl Content for Sockets {
    type Parsed = DestroyedSockets;
    const SOURCE: &'static str = SOURCE;

    fn block(&mut self, kind: Kind, _: u16, payload: &[u8]) -> Result<(), ParseError> {
        let broken = |problem: &str| ParseError::new(SOURCE, None, problem);
        if kind == Kind::Records {
            self.records(payload);
            return Ok(());
        }
        let text = stream::text(SOURCE, kind, payload)?;
        match kind {
            Kind::Start if text.lines().next() == Some(MAGIC) => self.started = true,
            Kind::Start => return Err(broken("the stream is of another kind or version")),
            _ if !self.started => return Err(broken("the stream does not begin with a start block")),
            Kind::Clock => {
                let now = text.trim().parse().map_err(|_| broken("a clock block is not a number"))?;
                self.drains = (self.drains.1, Duration::from_nanos(now));
            }
            Kind::Counts => self.gaps = text.trim().parse().map_err(|_| broken("a count is not a number"))?,
            Kind::Note => self.out.ended_early = Some(text.to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// That the collection ended early stays true.
    fn take(&mut self) -> DestroyedSockets {
        let ended_early = self.out.ended_early.clone();
        let mut out = std::mem::replace(&mut self.out, DestroyedSockets { ended_early, ..DestroyedSockets::default() });
        out.gaps = self.gaps.saturating_sub(self.gaps_taken);
        self.gaps_taken = self.gaps;
        out
    }
}

impl Sockets {
    fn records(&mut self, datagrams: &[u8]) {
        let (drains, out) = (self.drains, &mut self.out);
        // A multicast has no end (NLMSG_DONE), so only the sockets count.
        Walker::default().feed(datagrams, |socket| {
            let Some(socket) = DestroyedSocket::read(drains, socket) else { return };
            if out.sockets.len() < MAX_SOCKETS {
                out.sockets.push(socket);
            } else {
                out.dropped += 1;
            }
        });
    }
}

pub const REDACTION: Rule = Rule {
    source: SOURCE,
    asks: |what| *what == What::DestroyedSockets,
    redaction: Redaction::Stream(|| Box::new(Redacted)),
};

struct Redacted;

impl BlockRedaction for Redacted {
    fn block(&mut self, names: &mut Pseudonyms, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        match kind {
            Kind::Start => (payload == MAGIC.as_bytes()).then(|| payload.to_vec()),
            Kind::Clock | Kind::Counts => plain(payload),
            Kind::Note => note(payload),
            Kind::Records => Some(messages(names, payload)).filter(|(_, understood)| *understood).map(|(kept, _)| kept),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::head;
    use proptest::prelude::*;

    fn block(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&head(kind, 0, payload.len() as u32)[..], payload].concat()
    }

    /// A destroyed connection of 10.0.0.1:40000 to 10.0.0.2:80 with 5 bytes in flight.
    fn message(sent_ms: u32, received_ms: u32, retransmits: u8, rto_us: u32) -> Vec<u8> {
        let mut body = vec![0u8; 72];
        (body[0], body[1]) = (2, 7);
        body[4..6].copy_from_slice(&40_000u16.to_be_bytes());
        body[6..8].copy_from_slice(&80u16.to_be_bytes());
        body[8..12].copy_from_slice(&[10, 0, 0, 1]);
        body[24..28].copy_from_slice(&[10, 0, 0, 2]);
        body[44..48].copy_from_slice(&77u32.to_ne_bytes());
        body[60..64].copy_from_slice(&5u32.to_ne_bytes());
        let mut info = vec![0u8; 232];
        for (at, value) in [(200, 900u64), (208, 100)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        info[2] = retransmits;
        for (at, value) in [(8, rto_us), (144, 3), (44, sent_ms), (52, received_ms), (56, received_ms)] {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        info[128..136].copy_from_slice(&1_000u64.to_ne_bytes());
        body.extend_from_slice(&(4 + info.len() as u16).to_ne_bytes());
        body.extend_from_slice(&2u16.to_ne_bytes());
        body.extend_from_slice(&info);
        let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&20u16.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(&body);
        message
    }

    fn read(stream: &[u8]) -> (DestroyedSockets, Option<ParseError>) {
        let mut parser = DestroyedParser::default();
        parser.feed(stream);
        parser.finish()
    }

    fn stream(records: &[u8]) -> Vec<u8> {
        [block(Kind::Start, MAGIC.as_bytes()), block(Kind::Clock, b"9000000000"), block(Kind::Records, records)]
            .concat()
    }

    #[test]
    fn a_connection_reset_at_its_first_use_after_a_pause_tells_the_pause() {
        let (all, error) = read(&stream(&message(20, 350_020, 0, 200_000)));
        let socket = &all.sockets[0];
        assert_eq!((error, socket.at, socket.cookie), (None, Duration::from_secs(9), 77));
        assert_eq!((socket.local, socket.peer), ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap()));
        assert_eq!((socket.pause(), socket.unacknowledged), (Some(Duration::from_secs(350)), 5));
        assert!(socket.asked_last() && !socket.gave_up() && socket.bytes_received == Some(1_000));
    }

    #[test]
    fn it_tells_what_was_exchanged_and_how_long_it_was_idle_when_the_reset_came() {
        let bytes = [stream(&[]), block(Kind::Clock, b"9050000000"), block(Kind::Records, &message(120, 400, 0, 1))];
        let (all, _) = read(&bytes.concat());
        let socket = &all.sockets[0];
        assert_eq!((socket.bytes_sent, socket.unsent, socket.unacknowledged), (Some(800), Some(3), 5));
        assert_eq!((socket.after, socket.at), (Duration::from_secs(9), Duration::from_millis(9_050)));
        assert_eq!(socket.idle(Duration::from_millis(9_020)), Duration::from_millis(120), "destroyed at once");
        assert_eq!(
            socket.idle(Duration::from_millis(8_950)),
            Duration::from_millis(70),
            "closed 50 ms after the reset"
        );
    }

    #[test]
    fn retransmissions_are_no_part_of_the_pause() {
        // Sent at 0, 0.2, 0.6 and 1.4 s after a pause of 60 s; the timer stands at 1.6 s and fires at 3 s.
        let (all, _) = read(&stream(&message(1_600, 63_000, 3, 1_600_000)));
        assert_eq!(all.sockets[0].pause(), Some(Duration::from_secs(60)));
        assert!(all.sockets[0].gave_up());
    }

    #[test]
    fn a_connection_that_answered_last_has_no_pause() {
        let (all, _) = read(&stream(&message(900, 20, 0, 200_000)));
        assert_eq!((all.sockets[0].pause(), all.sockets[0].asked_last()), (None, false));
    }

    #[test]
    fn gaps_and_an_early_end_are_told() {
        let bytes = [stream(&[]), block(Kind::Counts, b"2"), block(Kind::Note, b"too many")].concat();
        let (all, _) = read(&bytes);
        assert_eq!((all.gaps, all.ended_early.as_deref()), (2, Some("too many")));
        assert!(read(&block(Kind::Clock, b"1")).1.is_some(), "no start block");
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..1000, value in any::<u8>(), cut in 0usize..1000) {
            let mut stream = stream(&message(1, 2, 3, 4));
            let length = stream.len();
            stream[at % length] = value;
            stream.truncate(length - cut % length);
            let _ = read(&stream);
        }
    }
}
