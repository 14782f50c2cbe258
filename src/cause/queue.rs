//! What several causes say alike about a listener: its queue, its hidden owner, how to restart it.

use std::net::IpAddr;

use super::{EvidenceItem, Remedy, Restart};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::knowledge::servers::Server;
use crate::source::owners::Process;
use crate::value::words;

/// How full the accept queue was.
pub fn length(service: &Service<'_>) -> EvidenceItem {
    let worst = service.worst();
    let samples = words::counted(u64::from(worst.samples), "sample");
    let text = match worst.full_samples {
        0 => format!("accept queue at most {} of {} in {samples}", worst.max_recv_q, worst.last.backlog),
        full => format!("accept queue full ({} of {}) in {full} of {samples}", worst.max_recv_q, worst.last.backlog),
    };
    EvidenceItem::value("listeners", "recv_q", f64::from(worst.max_recv_q), text)
}

/// Says so when a service has an owner that this user cannot see.
pub fn hidden_owner(e: &Evidence<'_>, service: &Service<'_>) -> Option<EvidenceItem> {
    (service.owners.is_empty() && e.hidden_processes() > 0)
        .then(|| EvidenceItem::fact("owners", "denied", "who owns it is not visible to you: run as root"))
}

/// Restarts the systemd unit of the first process that has one.
pub fn restart_command(owners: &[&Process]) -> Option<String> {
    let unit = owners.iter().find_map(|process| process.unit.as_deref())?;
    unit.ends_with(".service").then(|| format!("systemctl restart {unit}"))
}

/// Finds out what a process that should call accept() does instead.
pub fn look_inside(process: &Process, text: String, verify: impl Into<String>) -> Remedy {
    let command = if process.name == "java" {
        format!("jstack {}", process.pid)
    } else {
        format!("cat /proc/{0}/stack /proc/{0}/wchan", process.pid)
    };
    Remedy::new(text, verify).command(command)
}

/// The accept queue was not once shorter than in the sample before, in enough samples to tell.
pub fn never_drained(service: &Service<'_>) -> bool {
    let worst = service.worst();
    worst.drained == 0 && worst.samples >= 10
}

/// Raises the backlog that the program passes to listen() to `wanted`.
pub fn longer_backlog(service: &Service<'_>, server: Option<&Server>, wanted: u64, verify: String) -> Remedy {
    // A wildcard is what a bare port means in most configurations.
    let listen = match service.address {
        IpAddr::V4(address) if address.is_unspecified() => service.port.to_string(),
        _ => service.endpoint(),
    };
    let fill = |line: &str| {
        line.replace("{backlog}", &wanted.to_string())
            .replace("{port}", &service.port.to_string())
            .replace("{address}", &service.endpoint())
            .replace("{listen}", &listen)
    };
    match server {
        Some(server) => match &server.backlog.setting {
            Some(setting) => Remedy::new(format!("Raise the backlog of {}", server.name), verify)
                .command(format!("{}    # {}", fill(&setting.line), fill(&setting.place)))
                .restart(setting.restart),
            None => Remedy::new(
                format!("{} has no setting for its backlog: put less load on this listener", server.name),
                "rstdoctor scan shows no overflow",
            ),
        },
        None => Remedy::new(
            format!("Raise the backlog that the program passes to listen() to {wanted}, in its configuration or code"),
            verify,
        )
        .restart(Restart::Service),
    }
}
