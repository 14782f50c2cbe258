use super::*;
use crate::stream::head;
use proptest::prelude::*;

fn block(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&head(kind, 0, payload.len() as u32)[..], payload].concat()
}

fn record(time: u64, interface: u32, kind: u8, packet: &[u8]) -> Vec<u8> {
    let mut bytes = time.to_le_bytes().to_vec();
    bytes.extend_from_slice(&interface.to_le_bytes());
    bytes.extend_from_slice(&[1, 0, kind, 0]);
    bytes.extend_from_slice(&(packet.len() as u32).to_le_bytes());
    bytes.extend_from_slice(packet);
    block(Kind::Records, &bytes)
}

fn start() -> Vec<u8> {
    let clock = b"1000000000000 5000000000";
    [block(Kind::Start, MAGIC.as_bytes()), block(Kind::Scope, b"address 10.0.0.1\n"), block(Kind::Clock, clock)]
        .concat()
}

/// 10.0.0.1:80 to 10.0.0.9:40000, an answer to an ACK.
fn packet(id: u16, window: u16) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 40, (id >> 8) as u8, id as u8, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
    p.extend_from_slice(&[0, 80, 0x9c, 0x40, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, FLAG_RST]);
    p.extend_from_slice(&window.to_be_bytes());
    p.extend_from_slice(&[0; 4]);
    p
}

fn read(stream: &[u8]) -> (ResetPackets, Option<ParseError>) {
    let mut parser = PacketParser::new();
    parser.feed(stream);
    parser.finish()
}

#[test]
fn a_packet_gives_its_ends_time_and_signature() {
    let stream = [start(), record(1_000_500_000_000, 2, 4, &packet(0, 0)), block(Kind::Counts, b"3")].concat();
    let (all, error) = read(&stream);
    assert_eq!((error, all.account.lost, all.account.sent, all.account.received), (None, 3, 1, 0));
    let rst = &all.packets[0];
    assert_eq!(rst.at, Duration::from_millis(5_500));
    assert_eq!((rst.local, rst.peer), ("10.0.0.1:80".parse().unwrap(), "10.0.0.9:40000".parse().unwrap()));
    assert_eq!((rst.ttl, rst.ip_id, rst.seq, rst.signature()), (64, Some(0), 7, Signature::Answer));
    let forged = ResetPacket { ip_id: Some(9), ..rst.clone() };
    assert_eq!(forged.signature(), Signature::Foreign);
    let active = ResetPacket { flags: FLAG_RST | FLAG_ACK, window: 502, ip_id: Some(9), ..rst.clone() };
    assert_eq!(active.signature(), Signature::Active);
}

#[test]
fn a_second_interface_is_not_a_second_reset() {
    let packet = packet(0, 0);
    let stream = [
        start(),
        record(1_000_500_000_000, 2, 4, &packet),
        record(1_000_500_000_900, 3, 4, &packet),
        record(1_000_500_000_950, 2, 4, &packet),
    ]
    .concat();
    let (all, _) = read(&stream);
    assert_eq!((all.account.sent, all.account.duplicates), (2, 1), "the same interface again is another packet");
}

#[test]
fn a_foreign_address_only_passes_through() {
    let mut packet = packet(0, 0);
    packet[15] = 77;
    packet[8] = 63;
    let (all, _) = read(&[start(), record(1_000_500_000_000, 2, 4, &packet)].concat());
    assert_eq!((all.account.sent, all.account.forwarded), (0, 1));
}

/// From 10.88.0.17:8080 it comes in, and leaves as one of 10.0.0.1:80; or it comes in for 10.0.0.1 and leaves for another.
#[test]
fn a_forwarded_packet_that_nat_gave_an_address_of_this_host_is_not_of_this_host() {
    let seen = |came: &dyn Fn(&mut Vec<u8>), left: &dyn Fn(&mut Vec<u8>)| {
        let (mut first, mut second) = (packet(0, 502), packet(0, 502));
        first[20 + 13] |= FLAG_ACK;
        second[20 + 13] |= FLAG_ACK;
        second[8] = 63;
        came(&mut first);
        left(&mut second);
        let stream =
            [start(), record(1_000_500_000_000, 2, 0, &first), record(1_000_500_020_000, 3, 4, &second)].concat();
        let (all, error) = read(&stream);
        assert_eq!(error, None);
        let own = all.packets.iter().filter(|packet| packet.local_here).count();
        (all.account.sent, all.account.received, all.account.forwarded, own)
    };
    let inside = |p: &mut Vec<u8>| p[12..16].copy_from_slice(&[10, 88, 0, 17]);
    assert_eq!(seen(&inside, &|_| {}), (0, 0, 1, 0), "the source was translated");
    let to_here = |p: &mut Vec<u8>| (p[15], p[19]) = (9, 1);
    assert_eq!(seen(&to_here, &|p| p[15] = 9), (0, 0, 1, 0), "the destination was translated");
    assert_eq!(seen(&inside, &|p| p[20 + 7] += 1), (1, 0, 1, 1), "another sequence number: a packet of its own");
    assert_eq!(seen(&inside, &|p| p[8] = 64), (1, 0, 1, 1), "it was not routed: a raw socket sent it again");
}

/// A rule answers with the initial TTL, and so does what a bridge forwards, which comes in before.
#[test]
fn what_leaves_in_anothers_name_and_had_not_come_in_was_made_here() {
    let mut packet = packet(0, 0);
    packet[15] = 77;
    let made = |stream: &[u8]| {
        let (all, _) = read(stream);
        (all.packets.iter().filter(|packet| packet.is_in_anothers_name()).count(), all.account.forwarded)
    };
    let left = record(1_000_500_020_000, 3, 4, &packet);
    assert_eq!(made(&[start(), left.clone()].concat()), (1, 0));
    assert_eq!(made(&[start(), record(1_000_500_000_000, 2, 0, &packet), left].concat()), (0, 1));
}

#[test]
fn other_packets_only_tell_the_ttl_of_their_sender() {
    let mut other = packet(7, 500);
    other[20 + 13] = FLAG_ACK;
    let (all, error) = read(&[start(), record(1_000_500_000_000, 2, 0, &other)].concat());
    assert_eq!((error, all.account.received, all.packets.len()), (None, 0, 0));
    assert_eq!(all.account.ttls.of("10.0.0.1:80".parse().unwrap()), [64]);
}

#[test]
fn a_reset_is_judged_by_the_ids_of_its_connection() {
    let data = |id| {
        let mut other = packet(id, 500);
        // From 10.0.0.9:40000 to 10.0.0.1:80.
        let (source, destination): (Vec<u8>, Vec<u8>) = (other[12..16].to_vec(), other[16..20].to_vec());
        other[12..16].copy_from_slice(&destination);
        other[16..20].copy_from_slice(&source);
        other[20..24].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        other
    };
    let flags = |flags, mut packet: Vec<u8>| {
        packet[20 + 13] = flags;
        record(1_000_500_000_000, 2, 0, &packet)
    };
    let seen: Vec<u8> = (1..=6).flat_map(|id| flags(FLAG_ACK, data(id * 10))).collect();
    let track = |note: &[u8], id| {
        let (all, error) = read(&[start(), seen.clone(), note.to_vec(), flags(FLAG_RST, data(id))].concat());
        assert_eq!(error, None);
        all.packets[0].track
    };
    assert_eq!(track(&[], 61), Some(Track { last: 60, fits: true }));
    assert_eq!(track(&[], 40_000), Some(Track { last: 60, fits: false }));
    assert_eq!(track(&block(Kind::Note, FEWER.as_bytes()), 40_000), None);
    assert_eq!(track(&block(Kind::Counts, b"1"), 40_000), None, "samples may be among those that were lost");
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..1000, value in any::<u8>(), cut in 0usize..1000) {
        let mut stream = [start(), record(1, 2, 0, &packet(1, 2))].concat();
        let length = stream.len();
        stream[at % length] = value;
        stream.truncate(length - cut % length);
        let _ = read(&stream);
    }

    #[test]
    fn any_bytes_as_a_packet_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), version in 4u8..=6) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() { *first = version << 4 | *first & 0xf; }
        if let Some(protocol) = bytes.get_mut(if version == 4 { 9 } else { 6 }) { *protocol = 6; }
        let _ = parse(&bytes, true);
    }
}
