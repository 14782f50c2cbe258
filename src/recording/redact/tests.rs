use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::*;
use crate::ask::What;
use crate::source::sock_diag::redaction::messages;
use crate::source::{destroyed_sockets, reset_events, reset_packets};
use crate::stream::{Kind, head};

const NETNS: crate::value::NetnsId = crate::value::NetnsId(4_026_531_840);

fn redact(redactor: &mut Redactor, path: &str, text: &str) -> Result<String, Failure> {
    let mut session = redactor.begin(&Ask::host(What::File(path.to_owned())));
    let now = session.push(text.as_bytes());
    session.end(true).map(|rest| String::from_utf8([now, rest].concat()).unwrap())
}

#[test]
fn a_process_has_one_pseudonym_in_all_its_files() {
    let mut redactor = Redactor::default();
    let stat = redact(&mut redactor, "/proc/7/stat", "7 (my (odd\\) app) S 1 7 7 0 -1 4194560\n").unwrap();
    assert_eq!(stat, "7 (process-1) S 1 7 7 0 -1 4194560\n");
    let status = redact(&mut redactor, "/proc/self/status", "Name:\tmy (odd\\\\) app\nUmask:\t0022\n").unwrap();
    assert_eq!(status, "Name:\tprocess-1\nUmask:\t0022\n");
    assert_eq!(redact(&mut redactor, "/proc/8/stat", "8 (other) S\n").unwrap(), "8 (process-2) S\n");
    assert_eq!(redact(&mut redactor, "/proc/7/cmdline", "/srv/app\0--key=x\0").unwrap(), "redacted\0");
    assert_eq!(redact(&mut redactor, "/proc/2/cmdline", "").unwrap(), "");
}

#[test]
fn a_unit_and_a_container_stay_recognisable_as_such() {
    let mut redactor = Redactor::default();
    let id = "3f4e8a".repeat(10) + "beef";
    let text = format!(
        "0::/system.slice/acme-shop.service/worker\n1:name=systemd:/system.slice/docker-{id}.scope\n2:cpu:/docker/{id}\n"
    );
    let out = redact(&mut redactor, "/proc/7/cgroup", &text).unwrap();
    let pseudonym = "000000000001".to_owned() + &"0".repeat(52);
    assert_eq!(
        out,
        format!(
            "0::/system.slice/unit-1.service/group-1\n1:name=systemd:/system.slice/docker-{pseudonym}.scope\n\
             2:cpu:/docker/{pseudonym}\n"
        )
    );
}

#[test]
fn only_harmless_files_are_kept() {
    let mut redactor = Redactor::default();
    assert_eq!(redact(&mut redactor, "/proc/sys/kernel/hostname", "db1.acme\n").unwrap(), "host-1\n");
    for path in ["/proc/net/netstat", "/proc/net/snmp", "/proc/7/limits", "/proc/sys/net/core/somaxconn"] {
        assert_eq!(redact(&mut redactor, path, "kept 1\n").unwrap(), "kept 1\n", "{path}");
    }
    for path in [
        "/proc/net/tcp",
        "/proc/7/environ",
        "/proc/7/maps",
        "/proc/net/nf_conntrack",
        "/proc/cmdline",
        "/proc/7/net/tcp",
        "/proc/sys/net/ipv4/tcp_fastopen_key",
        "/proc/7/stat",
        "/proc/self/status",
        "/proc/7/status",
        "/proc/self/stat",
        "/proc/7/task/8/stat",
        "/etc/passwd",
    ] {
        let failure = redact(&mut redactor, path, "secret").expect_err(path);
        assert_eq!((failure.kind, failure.reason.as_str()), (FailureKind::NotCollected, "left out by --redact"));
    }
}

fn socket(family: i32, source: &[u8], attributes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 88];
    bytes[..4].copy_from_slice(&(88 + attributes.len() as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&20u16.to_ne_bytes());
    bytes[16] = family as u8;
    bytes[24..24 + source.len()].copy_from_slice(source);
    bytes.extend(attributes);
    bytes
}

#[test]
fn addresses_join_across_families_and_private_attributes_are_blanked() {
    let mut redactor = Redactor::default();
    let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().octets();
    // Attribute 18 is MD5SIG, 7 is SKMEMINFO.
    let md5 =
        [&8u16.to_ne_bytes()[..], &18u16.to_ne_bytes(), b"KEYS", &8u16.to_ne_bytes(), &7u16.to_ne_bytes(), b"MEMO"]
            .concat();
    let mut bytes = [
        socket(libc::AF_INET, &[192, 0, 2, 9], &md5),
        socket(libc::AF_INET6, &mapped, &[]),
        socket(libc::AF_INET, &[127, 0, 0, 53], &[]),
        socket(libc::AF_INET6, &Ipv6Addr::LOCALHOST.octets(), &[]),
        socket(libc::AF_INET6, &[0xfe; 16], &[]),
    ]
    .concat();
    let (kept, understood) = messages(&mut redactor.names, &bytes);
    bytes = kept;
    assert!(understood);
    assert_eq!(bytes[24..28], [240, 0, 0, 1]);
    assert_eq!(bytes[40..44], [0; 4]);
    assert_eq!(bytes[88..104], [&md5[..4], &[0; 4], &md5[8..]].concat());
    assert_eq!(bytes[104 + 24..104 + 40], Ipv4Addr::new(240, 0, 0, 1).to_ipv6_mapped().octets());
    assert_eq!(bytes[192 + 24..192 + 28], [127, 0, 0, 53]);
    assert_eq!(bytes[280 + 24..280 + 40], Ipv6Addr::LOCALHOST.octets());
    assert_eq!(bytes[368 + 24..368 + 40], "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
}

#[test]
fn who_holds_a_socket_is_numbers_and_nothing_else() {
    let ask = Ask::host(What::SocketOwners { inodes: Default::default(), also: Default::default() });
    let mut redactor = Redactor::default();
    let mut session = redactor.begin(&ask);
    assert_eq!(session.push(b"fd 10 3 1001\n"), b"fd 10 3 1001\n");
    assert!(session.push(b"fd 10 3 /srv/ACME\n").is_empty() && session.push(b"denied 0\n").is_empty());
    assert_eq!(session.end(true), Err(not_understood()));
}

#[test]
fn what_is_not_understood_is_cut_off() {
    let good = socket(libc::AF_INET, &[192, 0, 2, 9], &[]);
    for bad in [vec![0xff; 40], socket(libc::AF_UNIX, &[], &[]), good[..60].to_vec(), vec![1; 3]] {
        let (kept, understood) = messages(&mut Pseudonyms::default(), &[good.clone(), bad].concat());
        assert!(!understood && kept.len() == good.len());
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, text: String) {
        let mut redactor = Redactor::default();
        messages(&mut redactor.names, &bytes);
        for ask in [Ask::host(What::ResetEvents), Ask::netns(NETNS, What::ResetPackets), Ask::netns(NETNS, What::DestroyedSockets)] {
            redactor.begin(&ask).push(&bytes);
        }
        for path in ["/proc/1/stat", "/proc/self/status", "/proc/1/cgroup"] {
            let _ = redact(&mut redactor, path, &text);
        }
    }
}

fn block(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&head(kind, 0, payload.len() as u32)[..], payload].concat()
}

fn redact_stream(redactor: &mut Redactor, ask: &Ask, bytes: &[u8]) -> (Vec<u8>, Result<Vec<u8>, Failure>) {
    let mut session = redactor.begin(ask);
    // Byte by byte: a block may come in any cut.
    let out = bytes.iter().flat_map(|byte| session.push(&[*byte])).collect();
    (out, session.end(true))
}

#[test]
fn a_packet_keeps_its_fixed_headers_and_its_ends_join_the_sockets() {
    let mut redactor = Redactor::default();
    assert!(messages(&mut redactor.names, &socket(libc::AF_INET, &[192, 0, 2, 9], &[])).1);
    // Record route (option 7) in the IP header, timestamps and payload behind the TCP header.
    let mut packet =
        vec![0x46, 8, 0, 60, 0x12, 0x34, 0x40, 0, 57, 6, 0xaa, 0xbb, 192, 0, 2, 9, 192, 0, 2, 1, 7, 3, 4, 9];
    packet.extend([0, 80, 0x9c, 0x40, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x14, 1, 0, 0xcc, 0xdd, 0, 0]);
    packet.extend(b"\x01\x01\x08\x0aTSvalTSecr secret payload");
    let mut record = vec![9; 16];
    record.extend((packet.len() as u32).to_le_bytes());
    record.extend(&packet);
    record.extend([&[7; 16][..], &3u32.to_le_bytes(), b"UDP"].concat());
    let stream = [
        block(Kind::Start, reset_packets::MAGIC.as_bytes()),
        block(Kind::Scope, b"address 192.0.2.1\n"),
        block(Kind::Clock, b"12 7"),
        block(Kind::Records, &record),
        block(Kind::Note, reset_packets::FEWER.as_bytes()),
    ];
    let (out, end) = redact_stream(&mut redactor, &Ask::netns(NETNS, What::ResetPackets), &stream.concat());
    assert_eq!(end, Ok(Vec::new()));
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("address 240.0.0.2\n") && !text.contains("secret") && !text.contains("UDP"), "{text}");
    let start = out.windows(2).position(|two| two == [0x46, 0]).expect("the packet");
    assert_eq!(out[start + 4..start + 20], [0x12, 0x34, 0x40, 0, 57, 6, 0, 0, 240, 0, 0, 1, 240, 0, 0, 2]);
    assert_eq!(out[start + 20..start + 24], [0; 4], "IP options");
    assert_eq!(out[start + 24..start + 44], [&packet[24..40], &[0; 4][..]].concat(), "no checksum");
}

#[test]
fn addresses_of_a_local_route_stay_within_one_prefix() {
    let mut redactor = Redactor::default();
    let mut pseudonym = |address: &str| redactor.names.ip(address.parse().unwrap());
    let (early, _) = (pseudonym("192.0.2.9"), pseudonym("198.51.100.1"));
    let text = b"netns 5\naddress 192.0.2.1\nlocal 127.0.0.0/8\nlocal 192.0.2.0/24\nlocal 2001:db8:7::/64\n";
    let scope = String::from_utf8(crate::source::redaction::scope(&mut redactor.names, text).unwrap()).unwrap();
    assert!(
        scope.contains("local 127.0.0.0/8\n") && !scope.contains("192.0.2.") && !scope.contains("db8:7:"),
        "{scope}"
    );
    assert!(scope.contains(&format!("address {early}\n")), "{early} had its pseudonym before: {scope}");
    let locals: Vec<IpNet> = scope.lines().filter_map(|line| line.strip_prefix("local ")?.parse().ok()).collect();
    let mut pseudonym = |address: &str| redactor.names.ip(address.parse().unwrap());
    for (address, here) in
        [("192.0.2.200", true), ("192.0.3.1", false), ("2001:db8:7::5", true), ("2001:db8:8::5", false)]
    {
        let given = pseudonym(address);
        assert_eq!(locals.iter().any(|net| net.contains(&given)), here, "{address} as {given} in {locals:?}");
        assert_eq!(pseudonym(address), given);
    }
}

#[test]
fn a_stream_that_is_not_understood_ends_there() {
    for (ask, magic) in [
        (Ask::netns(NETNS, What::ResetPackets), reset_packets::MAGIC),
        (Ask::netns(NETNS, What::DestroyedSockets), destroyed_sockets::MAGIC),
        (Ask::host(What::ResetEvents), reset_events::MAGIC),
    ] {
        let start = block(Kind::Start, magic.as_bytes());
        let stream = [start.clone(), block(Kind::Records, &[0xff; 50]), block(Kind::Clock, b"1 2")].concat();
        let (out, end) = redact_stream(&mut Redactor::default(), &ask, &stream);
        assert_eq!((out, end), (start, Err(not_understood())), "{ask:?}");
        let (out, end) = redact_stream(&mut Redactor::default(), &ask, &block(Kind::Start, b"secret"));
        assert!(out.is_empty() && end.is_err());
    }
}

#[test]
fn events_keep_what_is_known_and_no_kernel_address() {
    let format = "name: tcp_send_reset\nID: 7\nformat:\n\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
                  \tfield:const void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
                  \tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;\n\
                  \tfield:__u8 saddr[sizeof(struct sockaddr_in6)];\toffset:24;\tsize:28;\tsigned:0;\n";
    let mut raw = vec![0x55; 56];
    raw[8..16].copy_from_slice(&0u64.to_le_bytes());
    raw[16..24].copy_from_slice(&0xffff_8881_0000_1000u64.to_le_bytes());
    raw[24..32].copy_from_slice(&[2, 0, 0, 80, 192, 0, 2, 9]);
    let chain = [u64::MAX - 0x7f, 0xffff_ffff_8100_0010, 0xffff_ffff_8200_0000];
    let mut body = 5u64.to_le_bytes().to_vec();
    body.extend((chain.len() as u64).to_le_bytes());
    chain.iter().for_each(|address| body.extend(address.to_le_bytes()));
    body.extend((raw.len() as u32 + 4).to_le_bytes());
    body.extend(&raw);
    body.extend(*b"more");
    let record = |kind: u32, body: &[u8]| {
        [&kind.to_le_bytes()[..], &[0, 0], &(body.len() as u16 + 8).to_le_bytes(), body].concat()
    };
    let comm = [&[7, 0, 0, 0, 7, 0, 0, 0][..], b"my shop\0", &99u64.to_le_bytes()].concat();
    let stream = [
        // IDENTIFIER, CALLCHAIN, RAW.
        block(
            Kind::Start,
            format!("{}\nendian little\nevent 5 0 0x10420 tcp/tcp_send_reset\n", reset_events::MAGIC).as_bytes(),
        ),
        block(Kind::Format, format.as_bytes()),
        block(Kind::Scope, b"netns 5\naddress 192.0.2.9\nephemeral 40000 50000\n"),
        block(Kind::Tasks, b"7 5 user my shop\n"),
        block(Kind::Symbols, b"ffffffff81000000 ffffffff81000100 tcp_abort\n"),
        block(Kind::Records, &[record(3, &comm), record(9, &body), record(99, &[1; 8])].concat()),
        block(Kind::Counts, b"5 1 0\nfinal\n"),
    ];
    let (out, end) = redact_stream(&mut Redactor::default(), &Ask::host(What::ResetEvents), &stream.concat());
    assert_eq!(end, Ok(Vec::new()));
    let has = |bytes: &[u8]| out.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"7 5 user process-1\n") && has(b"process-1\0\0\0\0\0\0\0\x63\0\0\0\0\0\0\0"), "one name");
    assert!(has(b"100000000 100000100 tcp_abort\n") && has(b"address 240.0.0.1\n"));
    assert!(has(&[2, 0, 0, 80, 240, 0, 0, 1, 0, 0]) && has(&0x1_0000_0010u64.to_le_bytes()));
    assert!(has(&(u64::MAX - 0x7f).to_le_bytes()), "a mark of the chain is no address");
    for gone in [&b"shop"[..], b"more", &[0x55; 4], &[0xff, 0xff, 0x81], &[0x88, 0xff, 0xff], &[192, 0, 2, 9]] {
        assert!(!has(gone), "{gone:?}");
    }
}
