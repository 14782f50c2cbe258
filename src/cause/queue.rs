//! What several causes say alike about a listener: its queue, its hidden owner, how to restart it.

use std::net::IpAddr;

use super::{EvidenceItem, Remedy, Restart, Setting, Verify, commands};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::knowledge::servers::Server;
use crate::source::owners::Process;
use crate::value::shell::{Name, ShellCommand};
use crate::value::words;

/// Fewer samples say nothing about what a queue does all the time.
pub const ENOUGH_SAMPLES: u32 = 10;

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

/// Says so when a service has an owner that is not seen: of another user, or in another pid namespace.
pub fn hidden_owner(e: &Evidence<'_>, service: &Service<'_>) -> Option<EvidenceItem> {
    let text = match e.hidden_processes() {
        0 => {
            "who owns it is not among the processes that /proc shows: whether it is out of file descriptors is not known"
        }
        _ => "who owns it is not visible to you: run as root",
    };
    service.owners.is_empty().then(|| EvidenceItem::fact("owners", "denied", text))
}

/// Restarts the systemd service of the first process that has a unit.
pub fn restart_command(owners: &[&Process]) -> Option<ShellCommand> {
    let unit = owners.iter().find_map(|process| process.unit.as_ref())?;
    let unit = Name::unit(unit).filter(|_| unit.is_service())?;
    Some(ShellCommand::new("systemctl restart").arg(unit))
}

/// Lists the listener of the service with its queue.
pub fn listed(service: &Service<'_>) -> ShellCommand {
    commands::ss_of("ss -lnt", Some(service.port))
}

/// The accept queue is taken up again.
pub fn drained(service: &Service<'_>) -> Verify {
    Verify::by(listed(service), "shows Recv-Q back at 0")
}

/// Where in the kernel a process waits.
pub fn kernel_stack(process: &Process) -> ShellCommand {
    ShellCommand::new("cat").arg(("/proc/", Name::pid(process.pid), "/stack")).arg((
        "/proc/",
        Name::pid(process.pid),
        "/wchan",
    ))
}

/// The accept queue was not once shorter than in the sample before, in enough samples to tell.
pub fn never_drained(service: &Service<'_>) -> bool {
    let worst = service.worst();
    worst.drained == 0 && worst.samples >= ENOUGH_SAMPLES
}

/// Raises the backlog that the program passes to listen() to `wanted`.
pub fn longer_backlog(service: &Service<'_>, server: Option<&Server>, wanted: u64, verify: Verify) -> Remedy {
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
            Some(setting) => Remedy::new(format!("Raise the backlog of {}", server.name), verify).setting(Setting {
                line: fill(&setting.line),
                place: setting.place.as_deref().map(fill),
                ..setting.clone()
            }),
            None => Remedy::new(
                format!("{} has no setting for its backlog: put less load on this listener", server.name),
                Verify::scan("shows no overflow"),
            ),
        },
        None => Remedy::new(
            format!("Raise the backlog that the program passes to listen() to {wanted}, in its configuration or code"),
            verify,
        )
        .restart(Restart::Service),
    }
}
