//! The same packets behind each link layer and tunnel, in each form of the file: the same connections, and as many as tshark counts.

use std::io::Write;
use std::path::Path;

use rstdoctor::capture::{self, Flows};

use super::{counts_of_tshark, fixtures};
use crate::common::skips::skipped;

/// A packet from its IP header on, and its time: seconds and microseconds.
type Packet = (u32, u32, Vec<u8>);

/// Those of a little-endian capture of Ethernet in microseconds.
fn packets(file: &str) -> Vec<Packet> {
    let bytes = std::fs::read(fixtures().join("captures").join(file)).expect("capture");
    let mut rest = &bytes[24..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("a head"));
        let length = word(8) as usize;
        // Ethernet may add zeros at the end.
        let ip = &rest[16 + 14..16 + length];
        let claimed = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        packets.push((word(0), word(4), ip[..claimed].to_vec()));
        rest = &rest[16 + length..];
    }
    packets
}

struct Form {
    big_endian: bool,
    nanos: bool,
}

const FORMS: [Form; 4] = [
    Form { big_endian: false, nanos: false },
    Form { big_endian: false, nanos: true },
    Form { big_endian: true, nanos: false },
    Form { big_endian: true, nanos: true },
];

fn pcap(packets: &[Packet], link: u32, form: &Form, wrap: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let word = |value: u32| if form.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let half = |value: u16| if form.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let magic = if form.nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file =
        [word(magic).as_slice(), &half(2), &half(4), &word(0), &word(0), &word(262_144), &word(link)].concat();
    for (seconds, micros, ip) in packets {
        let frame = wrap(ip);
        let length = u32::try_from(frame.len()).expect("short");
        let below = if form.nanos { micros * 1_000 } else { *micros };
        for value in [*seconds, below, length, length] {
            file.extend_from_slice(&word(value));
        }
        file.extend_from_slice(&frame);
    }
    file
}

const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

fn behind(head: &[u8], rest: &[u8]) -> Vec<u8> {
    [head, rest].concat()
}

/// Ethernet with these bytes from the EtherType on.
fn ethernet(types: &[u8], rest: &[u8]) -> Vec<u8> {
    [&ETHERNET, types, rest].concat()
}

fn plain(ip: &[u8]) -> Vec<u8> {
    ethernet(&[8, 0], ip)
}

/// Ethernet and IPv4 of another network.
fn outer(protocol: u8, inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + inner.len()).expect("short").to_be_bytes();
    let ip = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    plain(&behind(&ip, inner))
}

fn udp(port: u16, inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + inner.len()).expect("short");
    let head = [50_000u16.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    outer(17, &behind(&head, inner))
}

/// What it is called, its link type, and how a packet looks behind it.
type Layer = (&'static str, u32, fn(&[u8]) -> Vec<u8>);

const LAYERS: [Layer; 18] = [
    ("Ethernet", 1, plain),
    ("VLAN", 1, |ip| ethernet(&[0x81, 0, 0, 7, 8, 0], ip)),
    ("VLAN in VLAN", 1, |ip| ethernet(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 8, 0], ip)),
    ("MPLS", 1, |ip| ethernet(&[0x88, 0x47, 0, 1, 0x01, 64], ip)),
    ("PPPoE", 1, |ip| {
        let length = u16::try_from(ip.len() + 2).expect("short").to_be_bytes();
        ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, length[0], length[1], 0, 0x21], ip)
    }),
    ("BSD loopback", 0, |ip| behind(&[2, 0, 0, 0], ip)),
    ("OpenBSD loopback", 108, |ip| behind(&[0, 0, 0, 2], ip)),
    ("raw IP", 101, <[u8]>::to_vec),
    ("raw IPv4", 228, <[u8]>::to_vec),
    ("PPP", 9, |ip| behind(&[0xff, 0x03, 0, 0x21], ip)),
    ("Linux cooked v1", 113, |ip| behind(&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], ip)),
    ("Linux cooked v2", 276, |ip| behind(&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], ip)),
    ("VXLAN", 1, |ip| udp(4789, &behind(&[8, 0, 0, 0, 0, 0, 5, 0], &plain(ip)))),
    ("Geneve", 1, |ip| udp(6081, &behind(&[0, 0, 0x65, 0x58, 0, 0, 5, 0], &plain(ip)))),
    ("Geneve with an option", 1, |ip| {
        udp(6081, &behind(&[2, 0, 0x65, 0x58, 0, 0, 5, 0, 1, 2, 3, 1, 9, 9, 9, 9], &plain(ip)))
    }),
    ("GRE", 1, |ip| outer(47, &behind(&[0, 0, 8, 0], ip))),
    ("GRE with a key", 1, |ip| outer(47, &behind(&[0x20, 0, 8, 0, 0, 0, 0, 7], ip))),
    ("IP in IP", 1, |ip| outer(4, ip)),
];

fn read(file: &[u8]) -> Flows {
    capture::read(Box::new(file), &[]).expect("a capture")
}

fn told(flows: &Flows) -> Vec<String> {
    let readings = flows.told.iter().flat_map(|told| told.readings.iter().map(move |reading| (told, reading)));
    readings
        .map(|(told, reading)| format!("{} > {}: {:?}", told.flow.initiator, told.flow.acceptor, reading.story))
        .collect()
}

#[test]
fn each_link_layer_shows_the_same_connections() {
    let packets = packets("rst-inject-rae.pcap");
    let expected = read(&pcap(&packets, 1, &FORMS[0], &plain));
    assert_eq!((expected.segments, expected.connections, expected.resets), (9, 1, 3));
    for (name, link, wrap) in LAYERS {
        for form in &FORMS {
            let flows = read(&pcap(&packets, link, form, &wrap));
            let counts = (flows.packets, flows.segments, flows.connections, flows.resets_by);
            let same = (expected.packets, expected.segments, expected.connections, expected.resets_by);
            assert_eq!(counts, same, "{name}, big-endian: {}, nanoseconds: {}", form.big_endian, form.nanos);
            assert_eq!((told(&flows), flows.span), (told(&expected), expected.span), "{name}");
        }
    }
}

#[test]
fn each_link_layer_has_the_streams_and_resets_of_tshark() {
    let packets = packets("rst-inject-rae.pcap");
    for (name, link, wrap) in LAYERS {
        let mut file = tempfile::Builder::new().suffix(".pcap").tempfile().expect("a file");
        let bytes = pcap(&packets, link, &FORMS[3], &wrap);
        file.write_all(&bytes).expect("written");
        let Some(counted) = counts_of_tshark(Path::new(file.path())) else {
            skipped("tshark is not installed");
            return;
        };
        let flows = read(&bytes);
        assert_eq!((flows.connections, flows.resets), counted, "{name}");
    }
}

/// A packet may be cut anywhere by the snapshot length: never a panic, and never more connections than there were.
#[test]
fn packets_that_are_cut_inside_any_head_are_read_as_far_as_they_go() {
    let packets = packets("rst-inject-rae.pcap");
    for (name, link, wrap) in LAYERS {
        // All heads together are shorter; each reader takes a megabyte, so not every length.
        for snaplen in (0..130).step_by(5) {
            let cut = |ip: &[u8]| {
                let mut frame = wrap(ip);
                frame.truncate(snaplen);
                frame
            };
            let flows = read(&pcap(&packets, link, &FORMS[0], &cut));
            assert!(flows.packets == 9 && flows.connections <= 1 && flows.resets <= 3, "{name} at {snaplen}");
        }
    }
}
