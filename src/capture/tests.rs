use std::net::SocketAddr;
use std::time::Duration;

use super::flow::Side;
use super::link::{ACK, FIN, Held, Options, RST, SYN, Segment};
use super::{Flows, Phase, Reading, Story, Tracker};

const CLIENT: &str = "10.0.0.9:40000";
const SERVER: &str = "10.0.0.1:80";

/// Segments of one connection, with relative numbers and a clock in ms.
struct Talk {
    tracker: Tracker,
    now: u64,
    ends: (SocketAddr, SocketAddr),
}

impl Talk {
    fn new() -> Self {
        Self { tracker: Tracker::default(), now: 1_000, ends: (CLIENT.parse().unwrap(), SERVER.parse().unwrap()) }
    }

    fn send(mut self, from: Side, after_ms: u64, change: impl FnOnce(&mut Segment<'_>)) -> Self {
        self.now += after_ms;
        let (client, server) = self.ends;
        let (from, to) = if from == Side::Initiator { (client, server) } else { (server, client) };
        let at = self.tracker.time(Some(Duration::from_millis(self.now)));
        let mut segment = Segment {
            at,
            from,
            to,
            flags: ACK,
            reserved: false,
            seq: 1,
            ack: 1,
            window: 500,
            length: 0,
            data: b"",
            ttl: Some(64),
            ip_id: None,
            options: Options::default(),
            stated: None,
            sent_here: None,
        };
        change(&mut segment);
        self.tracker.packet(Held::Segment(segment), at, 0, 1, false);
        self
    }

    fn client(self, after_ms: u64, seq: u32, ack: u32, length: u32) -> Self {
        self.send(Side::Initiator, after_ms, |s| (s.seq, s.ack, s.length) = (seq, ack, length))
    }

    fn server(self, after_ms: u64, seq: u32, ack: u32, length: u32) -> Self {
        self.send(Side::Acceptor, after_ms, |s| (s.seq, s.ack, s.length) = (seq, ack, length))
    }

    fn syn(self) -> Self {
        self.send(Side::Initiator, 0, |s| (s.flags, s.seq, s.ack) = (SYN, 0, 0))
    }

    fn open() -> Self {
        Self::new().syn().send(Side::Acceptor, 10, |s| (s.flags, s.seq, s.ack) = (SYN | ACK, 0, 1)).client(0, 1, 1, 0)
    }

    fn fin(self, side: Side, after_ms: u64, seq: u32, ack: u32) -> Self {
        self.send(side, after_ms, |s| (s.flags, s.seq, s.ack) = (FIN | ACK, seq, ack))
    }

    /// As a socket that gives up its own connection sends it.
    fn abort(self, side: Side, after_ms: u64, seq: u32, ack: u32) -> Self {
        self.send(side, after_ms, |s| (s.flags, s.seq, s.ack) = (RST | ACK, seq, ack))
    }

    /// As an answer to a segment with this ACK.
    fn bare(self, side: Side, after_ms: u64, seq: u32) -> Self {
        self.send(side, after_ms, |s| (s.flags, s.seq, s.ack, s.window) = (RST, seq, 0, 0))
    }

    fn flows(self) -> Flows {
        self.tracker.finish("test", None)
    }

    fn readings(self) -> Vec<Reading> {
        let flows = self.flows();
        flows.told.into_iter().flat_map(|told| told.readings).collect()
    }

    fn story(self) -> (Story, bool) {
        let readings = self.readings();
        assert_eq!(readings.len(), 1, "{readings:?}");
        (readings[0].story, readings[0].harmless)
    }
}

#[test]
fn a_refused_connect_is_one_however_often_it_is_tried() {
    let refuse =
        |talk: Talk| talk.send(Side::Acceptor, 0, |s| (s.flags, s.seq, s.ack, s.window) = (RST | ACK, 0, 1, 0));
    let talk = refuse(Talk::new().syn());
    let flows = refuse(talk.send(Side::Initiator, 500, |s| (s.flags, s.seq, s.ack) = (SYN, 0, 0))).flows();
    assert_eq!((flows.connections, flows.resets, flows.resets_by), (1, 2, [0, 2]));
    assert_eq!(flows.told.len(), 1);
    let told = &flows.told[0];
    assert_eq!(told.readings[0].story, Story::Refused);
    assert_eq!(told.flow.resets[0].phase, Phase::Refused);
}

#[test]
fn who_takes_data_and_answers_nothing_hangs_only_if_it_does_not_close() {
    let left = Talk::open().client(1, 1, 1, 100).server(1, 1, 101, 0).fin(Side::Initiator, 400, 101, 1);
    let closed = left.fin(Side::Acceptor, 1, 1, 102).client(1_500, 102, 2, 0);
    assert_eq!(closed.readings(), []);
}

#[test]
fn each_phase_and_form_has_its_story() {
    use Side::{Acceptor, Initiator};
    let asked = || Talk::open().client(1, 1, 1, 100);
    let answered = || asked().server(5, 1, 101, 300).client(1, 101, 301, 0);
    for (name, talk, story) in [
        ("probe", Talk::open().abort(Initiator, 0, 1, 1), (Story::Probe, true)),
        ("turned away", Talk::open().abort(Acceptor, 1, 1, 1), (Story::TurnedAway, false)),
        ("final ACK answered", Talk::open().bare(Acceptor, 1, 1), (Story::QueueFull, false)),
        ("request reset", asked().abort(Acceptor, 3, 1, 101), (Story::UnreadData, false)),
        ("client gave up", asked().server(1, 1, 101, 0).abort(Initiator, 1_000, 101, 1), (Story::GaveUp, false)),
        (
            "client gave up by FIN",
            asked().server(1, 1, 101, 0).fin(Initiator, 400, 101, 1).server(0, 1, 102, 0).server(1_500, 1, 102, 0),
            (Story::GaveUp, false),
        ),
        ("client left", answered().abort(Initiator, 1, 101, 301), (Story::Left, true)),
        ("client idle", answered().abort(Initiator, 60_000, 101, 301), (Story::IdleDropped, true)),
        ("server idle", answered().abort(Acceptor, 60_000, 301, 101), (Story::IdleLimit, false)),
        ("after a pause", answered().client(350_000, 101, 301, 50).bare(Acceptor, 1, 301), (Story::AfterPause, false)),
        ("stale", answered().client(10, 101, 301, 50).bare(Acceptor, 1, 301), (Story::Stale, false)),
        (
            "late data",
            answered().fin(Acceptor, 1, 301, 101).client(1, 101, 302, 500).bare(Acceptor, 0, 302),
            (Story::LateData, false),
        ),
        (
            "goodbye",
            answered().fin(Acceptor, 1, 301, 101).client(1, 101, 302, 31).bare(Acceptor, 0, 302),
            (Story::Goodbye, true),
        ),
        (
            "closed without a word",
            Talk::open().fin(Acceptor, 1, 1, 1).client(0, 1, 2, 97).bare(Acceptor, 0, 2),
            (Story::TurnedAway, false),
        ),
    ] {
        assert_eq!(talk.story(), story, "{name}");
    }
}

#[test]
fn what_is_as_it_should_be_tells_nothing() {
    let healthy = Talk::open()
        .client(1, 1, 1, 100)
        .server(1, 1, 101, 300)
        .fin(Side::Initiator, 1, 101, 301)
        .fin(Side::Acceptor, 1, 301, 102)
        .client(1, 102, 302, 0);
    let flows = healthy.flows();
    assert_eq!((flows.connections, flows.resets, flows.told.len()), (1, 0, 0));
}

#[test]
fn a_side_that_goes_on_did_not_send_the_reset() {
    let talk = Talk::open()
        .client(1, 1, 1, 500)
        .send(Side::Acceptor, 1, |s| (s.flags, s.seq, s.ack, s.window, s.ttl) = (RST | ACK, 1, 501, 16, Some(52)))
        .server(11, 1, 501, 1_400)
        .bare(Side::Initiator, 0, 501);
    let stories: Vec<_> = talk.readings().into_iter().map(|reading| reading.story).collect();
    assert_eq!(stories[0], Story::Forged);
}

#[test]
fn packets_that_overtake_each_other_accuse_nobody() {
    // Data that was sent before the RST arrives behind it.
    let talk = Talk::open()
        .client(1, 1, 1, 500)
        .server(5, 101, 501, 100)
        .abort(Side::Acceptor, 0, 201, 501)
        .server(0, 1, 501, 100);
    assert!(talk.readings().iter().all(|reading| reading.story != Story::Forged));
}

#[test]
fn two_answers_with_one_number_are_an_injection() {
    let answer = |talk: Talk, data: &'static [u8], ttl| {
        talk.send(Side::Acceptor, 1, |s| (s.seq, s.ack, s.length, s.data, s.ttl) = (1, 101, 40, data, Some(ttl)))
    };
    let talk = answer(Talk::open().client(1, 1, 1, 100), b"HTTP/1.1 302 elsewhere, at once, says me", 56);
    let talk = answer(talk, b"HTTP/1.1 200 OK, what was really asked for", 54);
    assert_eq!(talk.story().0, Story::Injected);
    let talk = answer(Talk::open().client(1, 1, 1, 100), b"HTTP/1.1 200 OK", 54);
    assert!(answer(talk, b"HTTP/1.1 200 OK", 54).readings().is_empty(), "sent again");
}

#[test]
fn a_syn_ack_that_comes_again_tells_of_a_full_queue() {
    let again = |talk: Talk| {
        talk.send(Side::Acceptor, 1_000, |s| (s.flags, s.seq, s.ack) = (SYN | ACK, 0, 1)).client(0, 1, 1, 0)
    };
    assert_eq!(again(again(Talk::open())).story().0, Story::QueueFull);
}

impl Talk {
    /// The next connection, from other ends.
    fn next(mut self, number: u32) -> Self {
        let host = std::net::Ipv4Addr::from(0x0a00_0100 + number / 50_000);
        self.ends.0 = SocketAddr::new(host.into(), (number % 50_000 + 1_000) as u16);
        self
    }

    fn whole(self) -> Self {
        self.syn()
            .send(Side::Acceptor, 0, |s| (s.flags, s.seq, s.ack) = (SYN | ACK, 0, 1))
            .client(0, 1, 1, 100)
            .server(0, 1, 101, 300)
            .fin(Side::Initiator, 0, 101, 301)
            .fin(Side::Acceptor, 0, 301, 102)
    }
}

#[test]
fn memory_is_bounded_and_every_connection_is_counted() {
    let talk = (0..70_000).fold(Talk::new(), |talk, number| talk.next(number).syn());
    assert!(talk.tracker.followed() <= 12_288);
    let flows = talk.flows();
    assert_eq!(flows.connections, 70_000);
    assert!(flows.let_go > 50_000);
    let readings = flows.told.iter().flat_map(|told| &told.readings);
    assert_eq!(readings.count(), 0, "nobody waited long enough for that to be no answer");
}

#[test]
fn a_late_packet_of_a_connection_that_ended_long_ago_is_its_own() {
    let talk = (0..40_000).fold(Talk::new(), |talk, number| talk.next(number).whole());
    let talk = talk.next(7).client(1, 102, 302, 40).bare(Side::Acceptor, 0, 302);
    let flows = talk.flows();
    assert_eq!((flows.connections, flows.resets, flows.let_go, flows.forgotten), (40_000, 1, 0, 0));
    let [told] = &flows.told[..] else { panic!("{}", flows.told.len()) };
    assert_eq!(told.flow.number, 7);
    let [reading] = &told.readings[..] else { panic!("{:?}", told.readings) };
    assert_eq!((reading.story, reading.story.cause()), (Story::Unknown, None), "what came before is not known");
    assert_eq!(flows.services[&SERVER.parse().unwrap()].connections, 40_000);
}

#[test]
fn the_next_connection_between_the_same_ends_is_one_more_also_if_the_first_is_no_longer_followed() {
    let talk = (0..40_000).fold(Talk::new(), |talk, number| talk.next(number).whole());
    let talk = talk.next(7).send(Side::Initiator, 0, |s| (s.flags, s.seq, s.ack) = (SYN, 5_000, 0));
    assert_eq!(talk.flows().connections, 40_001);
}

#[test]
fn all_that_were_refused_are_counted_also_where_they_are_not_kept() {
    let refused = |talk: Talk, number| {
        let talk = talk.next(number).syn();
        talk.send(Side::Acceptor, 0, |s| (s.flags, s.seq, s.ack, s.window) = (RST | ACK, 0, 1, 0))
    };
    let flows = (0..30_000).fold(Talk::new(), refused).flows();
    assert_eq!((flows.connections, flows.resets), (30_000, 30_000));
    let further: u64 = flows.further.values().sum();
    let kept: u64 = flows.told.iter().filter(|told| told.readings[0].story == Story::Refused).count() as u64;
    assert!(kept < 10_000, "{kept}");
    assert_eq!((kept + further, flows.told_dropped), (30_000, further));
}

#[test]
fn who_scans_and_calls_a_dead_service_is_no_scanner_of_that() {
    let connects = |ports: &[u16]| {
        let talk = ports.iter().enumerate().fold(Talk::new(), |mut talk, (number, port)| {
            talk.ends.0.set_port(40_000 + number as u16);
            talk.ends.1.set_port(*port);
            talk.syn().send(Side::Acceptor, 100, |s| (s.flags, s.seq, s.ack, s.window) = (RST | ACK, 0, 1, 0))
        });
        let mut told: Vec<(u16, Story)> =
            talk.flows().told.iter().map(|told| (told.flow.acceptor.port(), told.readings[0].story)).collect();
        told.sort_unstable_by_key(|(port, _)| *port);
        told
    };
    let scanned: Vec<u16> = (9001..=9008).collect();
    assert!(connects(&scanned).iter().all(|(_, story)| *story == Story::Scanned));
    let both = connects(&[&scanned[..], &[5432; 10]].concat());
    let (service, scan) = both.split_at(10);
    assert!(scan.iter().all(|(_, story)| *story == Story::Scanned), "{both:?}");
    assert!(service.iter().filter(|(_, story)| *story == Story::Refused).count() >= 7, "{both:?}");
    // Six services of one host that is gone, each called by its clients.
    let gone = connects(&[9001, 9002, 9003, 9004, 9005, 9006].repeat(8));
    let refused = gone.iter().filter(|(_, story)| *story == Story::Refused).count();
    assert!(refused >= 6 * 5, "{gone:?}");
}
