use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cause::Severity;
use crate::observation::testing::{Case, process, task};
use crate::source::node::{self as source, Hidden, Line as Told, Netns};
use crate::source::owners::Owners;
use crate::source::reset_events::Direction;
use crate::source::socket_dump::{PortUse, SocketDump};
use crate::value::{Observed, TcpState};

const OWN: u64 = 1;
const ID: &str = "0123456789ab0123456789ab0123456789ab0123456789ab0123456789abcdef";

/// A node of these namespaces, the first of which is that of the one who looks; the others are containers, and `known` is what is
/// told of more.
fn node(cases: Vec<Case>, more: &[Told]) -> Observation {
    let mut lines = vec![Told::Own(OWN)];
    let mut all: Option<Observation> = None;
    let mut owners = Owners::default();
    for (index, case) in cases.into_iter().enumerate() {
        let inode = index as u64 + 1;
        let id = format!("{index:012x}{}", &ID[12..]);
        let containers = if inode == OWN { Vec::new() } else { vec![id.clone()] };
        let pid = Some(index as u32 * 100 + 1);
        lines.push(Told::Netns(Netns { inode, observed: true, pid, containers, ..Netns::default() }));
        lines.push(Told::Container(Container { name: Some(format!("c{inode}")), ..Container::new(&id) }));
        let Observation { host, netns, covers } = case.observation();
        for (_, mut window) in netns {
            window.before.netns = NetnsId(inode);
            window.after.netns = NetnsId(inode);
            // Inodes of sockets are those of the host.
            let apart = |inode: &mut u32| *inode += index as u32 * 1000;
            window.listener_traces.values_mut().for_each(|trace| apart(&mut trace.last.inode));
            for snapshot in [&mut window.before, &mut window.after] {
                if let Observed::Full(listeners) = &mut snapshot.listeners {
                    listeners.iter_mut().for_each(|listener| apart(&mut listener.inode));
                }
            }
            for reset in &mut window.resets.single {
                if let Some(event) = &mut reset.event {
                    event.netns = Some(NetnsId(inode));
                }
            }
            if let Some(known) = host.after.owners.value() {
                owners.processes.extend(known.processes.clone());
                let by_inode = known.by_inode.iter().map(|(socket, pids)| (socket + index as u32 * 1000, pids.clone()));
                owners.by_inode.extend(by_inode);
            }
            match &mut all {
                Some(all) => drop(all.netns.insert(NetnsId(inode), window)),
                None => {
                    let netns = [(NetnsId(inode), window)].into();
                    all = Some(Observation { host: host.clone(), netns, covers: covers.clone() });
                }
            }
            if let Some(all) = all.as_mut().filter(|_| host.reset_events.value().is_some()) {
                all.host.reset_events = host.reset_events.clone();
            }
        }
    }
    lines.extend_from_slice(more);
    let mut all = all.expect("a case");
    all.host.after.owners = Observed::Full(Arc::new(owners.clone()));
    all.host.before.owners = Observed::Full(Arc::new(owners));
    all.host.node = Observed::Full(Arc::new(source::parse(source::text(&lines).as_bytes()).expect("sound")));
    all
}

fn quiet(sent: u64) -> Case {
    Case::new()
        .counter("Tcp.OutRsts", 10, sent)
        .counter("Tcp.PassiveOpens", 0, 5)
        .counter("Tcp.ActiveOpens", 0, 0)
        .counter("TcpExt.ListenOverflows", 0, 0)
        .counter("TcpExt.ListenDrops", 0, 0)
}

fn overflow(pid: u32) -> Case {
    Case::new()
        .counter("Tcp.OutRsts", 0, 0)
        .counter("Tcp.PassiveOpens", 0, 500)
        .counter("TcpExt.ListenOverflows", 0, 300)
        .counter("TcpExt.ListenDrops", 0, 300)
        .sysctl("net.core.somaxconn", "4096")
        .listener("0.0.0.0:8080", 5, 6, 60, &process(pid, "nginx"))
        .listener_drops(300)
}

fn judged(observation: &Observation, filter: &Filter) -> Diagnosis {
    diagnose_all(observation, filter, &|| false).expect("not stopped")
}

fn about_port(port: u16) -> Filter {
    Filter { ports: [port].into(), ..Filter::default() }
}

#[test]
fn the_verdict_names_the_container_and_its_neighbours_stay_clean() {
    let observation = node(vec![quiet(0), quiet(0), overflow(300)], &[]);
    let diagnosis = judged(&observation, &Filter::default());
    assert_eq!(diagnosis.status, Status::Critical);
    assert!(diagnosis.summary.starts_with("In container c3: nginx on 0.0.0.0:8080"), "{}", diagnosis.summary);
    let verdicts: Vec<_> = diagnosis.namespaces.iter().map(|one| (one.location.netns.0, one.status)).collect();
    assert_eq!(verdicts, [(1, Status::Ok), (2, Status::Ok), (3, Status::Critical)]);
    let subject = &diagnosis.causes[0].finding.subjects[0];
    let container = subject.location.as_ref().and_then(|location| location.container());
    assert_eq!(container.map(Container::label), Some("c3"));
    let coverage = diagnosis.coverage.expect("known");
    assert_eq!(coverage.share(), "3 of 3 network namespaces");
}

#[test]
fn totals_are_the_sums_of_the_namespaces() {
    let observation = node(vec![quiet(0), quiet(0), overflow(300)], &[]);
    let diagnosis = judged(&observation, &Filter::default());
    let of = |account: fn(&Ledger) -> &Account| {
        let one = |ledger: &Ledger| account(ledger).total.clone().expect("counted");
        (one(&diagnosis.ledger), diagnosis.namespaces.iter().map(|namespace| one(&namespace.ledger)).sum::<u64>())
    };
    assert_eq!(of(|ledger| &ledger.dropped), (300, 300));
    assert_eq!(of(|ledger| &ledger.sent), (0, 0));
    assert_eq!(diagnosis.counters["Tcp.PassiveOpens"], (510, Some(510)));
    assert_eq!(diagnosis.counters["Tcp.OutRsts"], (20, Some(0)));
}

#[test]
fn a_healthy_node_is_told_of_as_a_whole() {
    let diagnosis = judged(&node(vec![quiet(0), quiet(0)], &[]), &Filter::default());
    assert_eq!(diagnosis.status, Status::Ok, "{}", diagnosis.summary);
    assert!(diagnosis.summary.contains("10 connections accepted"), "{}", diagnosis.summary);
}

#[test]
fn what_cannot_be_told_of_one_is_no_ok_of_all() {
    let diagnosis = judged(&node(vec![quiet(0), Case::new()], &[]), &Filter::default());
    assert_eq!(diagnosis.status, Status::Unknown);
    assert!(diagnosis.summary.starts_with("In container c2: too little"), "{}", diagnosis.summary);
}

#[test]
fn a_port_is_asked_for_where_it_is() {
    let observation = node(vec![quiet(0), quiet(0), overflow(300)], &[]);
    assert_eq!(judged(&observation, &about_port(8080)).status, Status::Critical);
    let other = judged(&observation, &about_port(9999));
    assert_eq!(other.status, Status::Ok);
    let nginx = Filter { process: Some("nginx".into()), ..Filter::default() };
    assert_eq!(judged(&observation, &nginx).status, Status::Critical);
    let nobody = Filter { process: Some("postgres".into()), ..Filter::default() };
    assert_eq!((judged(&observation, &nobody).status, judged(&observation, &nobody).unseen), (Status::Unknown, true));
}

/// Refused by its backend in a container, which listens on 127.0.0.1 only.
#[test]
fn a_proxy_and_its_backend_in_a_container_are_one_story() {
    let proxy = quiet(20)
        .counter("Tcp.EstabResets", 0, 20)
        .counter("Tcp.AttemptFails", 0, 20)
        .listener("0.0.0.0:9000", 128, 0, 0, &process(97, "docker-proxy"))
        .received(20, TcpState::SynSent, ["10.0.0.9:0", "10.0.7.1:9000"])
        .sent(
            20,
            "TCP_ABORT_ON_CLOSE",
            Some(TcpState::Close),
            ["10.0.0.9:9000", "10.0.3.7:0"],
            Some(task(97, "docker-proxy")),
        );
    let backend = quiet(20).listener("127.0.0.1:9000", 128, 0, 0, &process(197, "python3")).sent(
        20,
        "NO_SOCKET",
        None,
        ["10.0.7.1:9000", "10.0.0.9:0"],
        None,
    );
    let diagnosis = judged(&node(vec![proxy, backend], &[]), &Filter::default());
    let ids: Vec<_> = diagnosis.causes.iter().map(|cause| (cause.id, cause.because_of.map(|root| root.id))).collect();
    let expected = [
        ("wrong-bind-address", None),
        ("upstream-refused", Some("wrong-bind-address")),
        ("close-with-unread-data", Some("upstream-refused")),
    ];
    assert_eq!(ids, expected, "{}", diagnosis.summary);
    let said = "docker-proxy (pid 97) fails its clients on port 9000: in container c2, ";
    assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
    assert!(diagnosis.summary.contains("listens only on 127.0.0.1:9000"), "{}", diagnosis.summary);
    assert!(!diagnosis.summary.contains("further cause"), "{}", diagnosis.summary);
    assert_eq!(diagnosis.causes[0].finding.severity, Severity::Critical, "all of its clients fail");
    assert!(diagnosis.causes[0].finding.remedies[0].text.starts_with("Bind the service to 10.0.7.1"));
}

/// The same refusals, of another address than that of the container.
#[test]
fn a_backend_elsewhere_is_not_blamed_on_a_container_with_the_same_port() {
    let caller =
        quiet(0).counter("Tcp.AttemptFails", 0, 20).received(20, TcpState::SynSent, ["10.0.0.9:0", "10.0.8.8:9000"]);
    let other = quiet(20).listener("127.0.0.1:9000", 128, 0, 0, &process(197, "python3")).sent(
        20,
        "NO_SOCKET",
        None,
        ["10.0.7.1:9000", "10.0.5.5:0"],
        None,
    );
    let diagnosis = judged(&node(vec![caller, other], &[]), &Filter::default());
    assert!(diagnosis.causes.iter().all(|cause| cause.because_of.is_none()), "{:?}", diagnosis.causes);
}

#[test]
fn a_shortage_that_all_share_is_told_once() {
    let out_of_memory = || {
        quiet(0)
            .counter("TcpExt.TCPAbortOnMemory", 0, 9)
            .sockstat("TCP.mem", 30_100)
            .sysctl("net.ipv4.tcp_mem", "10000\t20000\t30000")
    };
    let diagnosis = judged(&node(vec![out_of_memory(), out_of_memory(), out_of_memory()], &[]), &Filter::default());
    let told = diagnosis.causes.iter().filter(|cause| cause.id == "tcp-memory-exhausted").count();
    assert_eq!(told, 1);
}

#[test]
fn one_who_may_not_look_hears_of_how_many_others_there_are() {
    let hidden = Hidden { processes: 40, containers: 2, needs: Some("root".into()), ..Hidden::default() };
    let known = [Told::Netns(Netns { inode: 9, name: Some("blue".into()), ..Netns::default() }), Told::Hidden(hidden)];
    let diagnosis = judged(&node(vec![quiet(0)], &known), &Filter::default());
    let coverage = diagnosis.coverage.expect("known");
    assert_eq!(coverage.share(), "1 of at least 4 network namespaces");
    assert_eq!(coverage.needs.as_deref(), Some("root"));
    assert!(diagnosis.namespaces.is_empty(), "the report of one namespace is as ever");
}

/// A published port: the kernel turns the called address into that of the container, and leaves the caller's as it is.
#[test]
fn a_refusal_through_a_published_port_leads_to_the_container() {
    let refused =
        |peer| quiet(0).counter("Tcp.AttemptFails", 0, 20).received(20, TcpState::SynSent, ["10.0.0.9:0", peer]);
    let container = |peer| {
        quiet(20).listener("127.0.0.1:80", 128, 0, 0, &process(197, "python3")).sent(
            20,
            "NO_SOCKET",
            None,
            ["172.17.0.2:80", peer],
            None,
        )
    };
    let ids = |observation: &Observation| {
        let diagnosis = judged(observation, &Filter::default());
        let of = |cause: &Ranked| (cause.id, cause.because_of.map(|root| root.id));
        diagnosis.causes.iter().map(of).collect::<Vec<_>>()
    };
    let story = [("wrong-bind-address", None), ("upstream-refused", Some("wrong-bind-address"))];
    assert_eq!(ids(&node(vec![refused("192.0.2.1:8080"), container("10.0.0.9:0")], &[])), story);
    // Somebody else was refused there.
    let apart = ids(&node(vec![refused("192.0.2.1:8080"), container("10.0.0.8:0")], &[]));
    assert!(apart.iter().all(|(_, root)| root.is_none()) && apart.len() == 2, "{apart:?}");
}

/// A node filters what passes through to its containers, and the caller is one of them.
#[test]
fn a_rule_in_the_way_of_two_containers_is_the_root_of_the_refusal() {
    let caller =
        quiet(0).counter("Tcp.AttemptFails", 0, 20).received(20, TcpState::SynSent, ["10.1.0.2:0", "10.2.0.2:5432"]);
    let router = |called: &str| {
        let mut case = quiet(0).tracepoints().packets(20, Direction::Sent, 4, 64, [called, "10.1.0.2:0"]);
        if let Observed::Full(packets) = &mut case.packets {
            packets.iter_mut().for_each(|packet| packet.local_here = false);
        }
        case
    };
    let story = |called: &str| {
        let diagnosis = judged(&node(vec![router(called), caller.clone()], &[]), &Filter::default());
        let of = |cause: &Ranked| (cause.id, cause.because_of.map(|root| root.id));
        diagnosis.causes.iter().map(of).collect::<Vec<_>>()
    };
    let together = [("firewall-reject", None), ("upstream-refused", Some("firewall-reject"))];
    assert_eq!(story("10.2.0.2:5432"), together);
    let apart = story("10.2.0.2:5433");
    assert!(apart.iter().all(|(_, root)| root.is_none()) && apart.len() == 2, "{apart:?}");
}

fn unanswered() -> Case {
    let mut case =
        quiet(0).counter("TcpExt.TCPSynRetrans", 70, 20).destroyed_sockets(20, ["10.0.0.9:0", "10.0.7.1:8080"], 0, 1);
    if let Observed::Full(sockets) = &mut case.destroyed {
        sockets.iter_mut().for_each(|socket| socket.unanswered = true);
    }
    case
}

/// A full queue sends no reset: whose address was called tells that it is the same story.
#[test]
fn a_connect_without_an_answer_follows_from_the_full_queue_of_a_container() {
    let with_address = |address: &str| overflow(200).local_address(address);
    let followed = |container: Case| {
        let diagnosis = judged(&node(vec![unanswered(), container], &[]), &Filter::default());
        let symptom = diagnosis.causes.iter().find(|cause| cause.id == "connect-unanswered").expect("found");
        symptom.because_of.map(|root| root.id)
    };
    assert_eq!(followed(with_address("10.0.7.1")), Some("accept-queue-overflow"));
    assert_eq!(followed(with_address("10.0.7.2")), None);
}

/// A close in order sends no reset either.
#[test]
fn requests_that_a_container_closes_without_an_answer_are_one_story_with_its_callers() {
    let asked = |ends: [&str; 2], received: u64, sent: u64, kept: SocketDump| {
        let mut number = 0;
        let case = quiet(0).socket_dump(SocketDump::default(), kept).destroyed_sockets(4, ends, 0, 0);
        let mut case = case.each_destroyed(move |socket| {
            number += 1;
            socket.at = Duration::from_millis(1_000_000 + number * 2_000);
            (socket.bytes_received, socket.bytes_sent, socket.unacknowledged) = (Some(received), Some(sent), 0);
            (socket.data_received_ms, socket.data_sent_ms) = (20, 20);
        });
        case.netns.after.at.mono += Duration::from_secs(7);
        case.host.after.at.mono += Duration::from_secs(7);
        case.netns.after.dumped = case.netns.after.at;
        case
    };
    let kept = PortUse { by_state: [(TcpState::TimeWait, 4)].into(), ..PortUse::default() };
    let kept = SocketDump { ports: [(8080, kept)].into(), ..SocketDump::default() };
    let server = |address: &str| {
        asked(["10.0.7.1:8080", "10.0.0.9:0"], 80, 0, kept.clone())
            .listener("0.0.0.0:8080", 128, 0, 0, &process(41, "api"))
            .local_address(address)
    };
    let caller = asked(["10.0.0.9:0", "10.0.7.1:8080"], 1, 80, SocketDump::default());
    let story = |address: &str| {
        let diagnosis = judged(&node(vec![caller.clone(), server(address)], &[]), &Filter::default());
        let of = |cause: &Ranked| (cause.id, cause.because_of.map(|root| root.id));
        diagnosis.causes.iter().map(of).collect::<Vec<_>>()
    };
    let id = "closed-without-answer";
    assert_eq!(story("10.0.7.1"), [(id, None), (id, Some(id))]);
    assert_eq!(story("10.0.7.2"), [(id, None), (id, None)], "another host may have that address");
}

/// Kubernetes starts and ends what runs in a pod: the manifest is changed, not something in the pod.
#[test]
fn a_pod_is_told_what_to_write_into_its_manifest() {
    let pod = |name: &str| Container {
        pod: Some("web-7d".into()),
        pod_namespace: Some("shop".into()),
        name: Some(name.into()),
        ..Container::new(&format!("{:012x}{}", 1, &ID[12..]))
    };
    let refusing = quiet(20).sent(20, "NO_SOCKET", None, ["10.0.7.1:9000", "10.0.0.9:0"], None);
    let diagnosis = judged(&node(vec![quiet(0), refusing], &[Told::Container(pod("app"))]), &Filter::default());
    let finding = &diagnosis.causes[0].finding;
    assert_eq!(diagnosis.causes[0].id, "port-without-listener");
    let probe = finding.remedies.iter().find_map(|remedy| remedy.line().filter(|line| line.contains("readinessProbe")));
    assert!(probe.is_some_and(|line| line.contains("port: 9000")), "{:?}", finding.remedies);
}
