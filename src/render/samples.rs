//! Diagnoses built by hand, for the tests of the formats.

use crate::diagnosis::filter::Filter;
use crate::diagnosis::{Diagnosis, diagnose_for};
use crate::observation::testing::{Case, process};
use crate::source::host_facts::HostFacts;
use crate::source::socket_dump::{PortUse, SocketDump};
use crate::value::TcpState;
use crate::value::outside::UnitName;

fn facts(mut case: Case, uid: u32) -> Case {
    case.host.after.facts = HostFacts {
        hostname: Some("web-3".into()),
        kernel: Some("6.18.44".into()),
        uptime_s: Some(86_400.5),
        uid: Some(uid),
        capabilities: None,
        in_user_namespace: false,
    };
    case
}

fn counters(case: Case) -> Case {
    case.counter("Tcp.OutRsts", 10_000, 57)
        .counter("Tcp.EstabResets", 900, 48)
        .counter("Tcp.AttemptFails", 90, 4)
        .counter("Tcp.PassiveOpens", 100_000, 8_412)
        .counter("Tcp.ActiveOpens", 50_000, 12)
        .counter("TcpExt.TCPAbortOnClose", 800, 41)
        .counter("TcpExt.ListenDrops", 3_000, 312)
        .sysctl("net.core.somaxconn", "4096")
        .sysctl("net.ipv4.tcp_mem", "190779\t254375\t381558")
        .sysctl("net.ipv4.ip_local_port_range", "32768\t60999")
        .sysctl("net.ipv4.ip_unprivileged_port_start", "1024")
}

fn nginx() -> crate::source::owners::Process {
    crate::source::owners::Process { unit: UnitName::parse("nginx.service"), ..process(4121, "nginx") }
}

fn swept(case: Case) -> Case {
    let used =
        PortUse { by_state: [(TcpState::Established, 211), (TcpState::TimeWait, 1_900)].into(), ..PortUse::default() };
    let socket_dump = SocketDump {
        by_state: [(TcpState::Established, 211), (TcpState::TimeWait, 1_900), (TcpState::Listen, 2)].into(),
        ports: [(8080, used)].into(),
        ..SocketDump::default()
    };
    case.socket_dump(socket_dump.clone(), socket_dump)
}

fn overflow_case(name: &str) -> Case {
    let owner = crate::source::owners::Process { name: name.to_owned(), ..nginx() };
    swept(facts(counters(Case::new()), 0))
        .counter("TcpExt.ListenOverflows", 2_000, 312)
        .listener("0.0.0.0:8080", 511, 512, 60, &owner)
        .listener_drops(312)
        .queue(512, 512, 9)
        .listener("127.0.0.1:6379", 511, 0, 0, &process(800, "redis-server"))
}

/// nginx loses connections; root looks.
pub fn overflow() -> Diagnosis {
    diagnose_for(overflow_case("nginx").view(), &Filter::default())
}

/// As [`overflow`], with another process name.
pub fn overflow_by(name: &str) -> Diagnosis {
    diagnose_for(overflow_case(name).view(), &Filter::default())
}

/// As [`overflow`], asked for one port.
pub fn one_port(port: u16) -> Diagnosis {
    diagnose_for(overflow_case("nginx").view(), &Filter { ports: [port].into(), ..Filter::default() })
}

/// Nothing wrong, and nothing in the past.
pub fn healthy() -> Diagnosis {
    diagnose_for(healthy_case().view(), &Filter::default())
}

/// As [`healthy`], asked for one port.
pub fn healthy_port(port: u16) -> Diagnosis {
    diagnose_for(healthy_case().view(), &Filter { ports: [port].into(), ..Filter::default() })
}

fn healthy_case() -> Case {
    swept(facts(Case::new(), 0))
        .counter("Tcp.OutRsts", 10, 0)
        .counter("Tcp.EstabResets", 10, 0)
        .counter("Tcp.PassiveOpens", 100_000, 8_412)
        .counter("Tcp.ActiveOpens", 50_000, 12)
        .counter("TcpExt.ListenDrops", 0, 0)
        .counter("TcpExt.ListenOverflows", 0, 0)
        .listener("0.0.0.0:8080", 511, 0, 0, &nginx())
}

/// A host that shows nothing.
pub fn blind() -> Diagnosis {
    diagnose_for(facts(Case::new(), 1000).view(), &Filter::default())
}
