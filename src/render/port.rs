//! The section about one port in the human report.

use std::collections::BTreeSet;

use super::layout::Page;
use crate::diagnosis::port::{BindCheck, BindOutcome, PortReport};
use crate::source::owners::Process;
use crate::value::TcpState;
use crate::value::shell::ShellCommand;
use crate::value::words::{counted, thousands};

const INDENT: usize = 16;

/// Adds the section; `all`: with what is so of many ports.
pub fn write(page: &mut Page, port: &PortReport, all: bool) {
    page.gap();
    page.heading(&format!("Port {}", port.port));
    match &port.holders {
        Ok(holders) if holders.is_empty() => page.field("  held by", INDENT, "nobody listens"),
        Ok(holders) => {
            for (index, holder) in holders.iter().enumerate() {
                let who: Vec<_> = holder
                    .processes
                    .iter()
                    .map(|process| match &process.unit {
                        Some(unit) => format!("{} (pid {}, {unit})", process.name, process.pid),
                        None => process.label(),
                    })
                    .collect();
                let who = if who.is_empty() { "owner not visible to you".to_owned() } else { who.join(", ") };
                let label = if index == 0 { "  held by" } else { "" };
                page.field(label, INDENT, &format!("{}, {who}", holder.address));
            }
        }
        Err(missing) => page.field("  held by", INDENT, &format!("not known: {}", missing.reason)),
    }
    match &port.sockets {
        Ok(states) if states.is_empty() => page.field("  sockets", INDENT, "no connection uses it as local port"),
        Ok(states) => {
            let states: Vec<_> =
                states.iter().map(|(state, count)| format!("{} {}", thousands(*count), state.name())).collect();
            page.field("  sockets", INDENT, &states.join(", "));
        }
        Err(missing) => page.field("  sockets", INDENT, &format!("not known: {}", missing.reason)),
    }
    for check in &port.binds {
        page.field(&format!("  bind {}", shown(check)), INDENT, &outcome(check));
    }
    match &port.privileged {
        Ok(true) if all => page.field("  note", INDENT, "Privileged port: bind() needs root or CAP_NET_BIND_SERVICE, else \"Permission denied\". It starts at net.ipv4.ip_unprivileged_port_start."),
        Ok(_) => {}
        Err(missing) => page.field("  note", INDENT, &format!("Whether the port is privileged is not known: {}", missing.reason)),
    }
    if port.ephemeral == Ok(true) {
        page.field("  note", INDENT, "The port lies in net.ipv4.ip_local_port_range: any outgoing connection can take it before your program does. Keep it free with:");
        let reserve = ("net.ipv4.ip_local_reserved_ports=", port.port);
        page.shell(INDENT, &ShellCommand::new("sysctl -w").arg(reserve));
        page.field("", INDENT, "(add it to the ports that are reserved already)");
    }
}

/// `9200: nobody listens, a program could bind it`, in a line.
pub fn brief(port: &PortReport) -> String {
    let holders = match &port.holders {
        Ok(holders) if holders.is_empty() => "nobody listens".to_owned(),
        Ok(holders) => {
            let names: BTreeSet<_> = holders.iter().flat_map(|holder| &holder.processes).map(Process::label).collect();
            match names.is_empty() {
                true => "held by a program that is not visible to you".to_owned(),
                false => format!("held by {}", names.into_iter().collect::<Vec<_>>().join(", ")),
            }
        }
        Err(_) => "who holds it is not known".to_owned(),
    };
    let is_free = port.binds.iter().all(|check| check.outcome == BindOutcome::Succeeds);
    let bind = if is_free { ", a program could bind it" } else { "" };
    format!("{}: {holders}{bind} (--all)", port.port)
}

fn shown(check: &BindCheck) -> String {
    check.address.to_string()
}

fn outcome(check: &BindCheck) -> String {
    match &check.outcome {
        BindOutcome::Succeeds => "would succeed".to_owned(),
        BindOutcome::NeedsReuseAddr { time_wait, others } => {
            let what = match (*time_wait, *others) {
                (n, 0) => format!("{} in {}", counted(n, "connection"), TcpState::TimeWait.name()),
                (0, n) => format!("{} on this port", counted(n, "connection")),
                (n, m) => {
                    format!("{} in {}, {} others", counted(n, "connection"), TcpState::TimeWait.name(), thousands(m))
                }
            };
            format!(
                "fails with \"Address already in use\" unless both the old listener and the new program set SO_REUSEADDR: {what}"
            )
        }
        BindOutcome::InUse { by, reuseport, unless_v6_only } => {
            let by: Vec<_> = by.iter().map(ToString::to_string).collect();
            let mut text = format!("fails with \"Address already in use\": a program listens on {}", by.join(", "));
            if *reuseport {
                text.push_str(
                    ". It shares the port by SO_REUSEPORT: a program of the same user that sets it too would succeed",
                );
            }
            if *unless_v6_only {
                text.push_str(". It would succeed if that listener is for IPv6 only (IPV6_V6ONLY)");
            }
            text
        }
        BindOutcome::Unknown(missing) => format!("not known: {}", missing.reason),
    }
}
