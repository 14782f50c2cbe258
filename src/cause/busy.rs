//! What the owner of a listener does instead of accepting: it computes, it waits for a CPU, or for something else; and how to
//! look inside it, by its language.

use super::{EvidenceItem, Remedy, Verify};
use crate::evidence::Evidence;
use crate::evidence::service::Service;
use crate::knowledge::servers::Server;
use crate::source::owners::Process;
use crate::value::shell::{Name, ShellCommand};
use crate::value::words;

use super::numbers::accept_queue_overflow as numbers;
use super::queue;

/// How a process spent its time between the two looks at it, shares of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spent {
    Computing(f64),
    /// Ready to run, with no CPU free.
    WaitingForCpu(f64),
    /// So much on a CPU, the rest asleep.
    Waiting(f64),
}

fn spent(e: &Evidence<'_>, process: &Process) -> Option<Spent> {
    let share = e.cpu_share(process.pid)?;
    Some(match e.cpu_wait_share(process.pid) {
        Some(wait) if wait >= numbers::WAITS_FOR_CPU && wait >= share / 2.0 => Spent::WaitingForCpu(wait),
        // Below half a CPU it mostly waits; above, its own work is the reason.
        _ if share >= numbers::BUSY => Spent::Computing(share),
        _ => Spent::Waiting(share),
    })
}

/// As a clause behind the process: `used 33 % of a CPU`.
pub fn time(e: &Evidence<'_>, process: &Process) -> Option<String> {
    Some(match spent(e, process)? {
        Spent::Computing(share) | Spent::Waiting(share) => format!("used {} of a CPU", words::percent(share)),
        Spent::WaitingForCpu(wait) => format!("waited {} of the time for a CPU", words::percent(wait)),
    })
}

/// What to do about a slow accept(): the busiest owner tells.
pub fn slow_accept(e: &Evidence<'_>, service: &Service<'_>) -> Remedy {
    let verify = Verify::by(queue::listed(service), "shows Recv-Q near 0");
    let busiest = service
        .owners
        .iter()
        .filter_map(|process| Some((*process, e.cpu_share(process.pid)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .and_then(|(process, _)| Some((process, spent(e, process)?)));
    match busiest {
        Some((process, Spent::Computing(share))) => Remedy::new(
            format!("Find out why accept is slow: {} used {} of a CPU", process.label(), words::percent(share)),
            verify,
        )
        .command(inside(process, true)),
        Some((process, Spent::WaitingForCpu(wait))) => Remedy::new(
            format!(
                "Free CPUs, or add some: {} was ready to run and waited {} of the time for one",
                process.label(),
                words::percent(wait)
            ),
            verify,
        )
        .command(ShellCommand::new("ps -eo pcpu,pid,comm --sort=-pcpu").pipe(ShellCommand::new("head"))),
        Some((process, Spent::Waiting(share))) => Remedy::new(
            format!(
                "Find out why accept is slow: {} used only {} of a CPU, so it waits for something",
                process.label(),
                words::percent(share)
            ),
            verify,
        )
        .command(inside(process, false)),
        None => Remedy::new("Find out why accept is slow: a longer queue only buys time", verify),
    }
}

/// Shows what a process works on or waits for, in the language that it is written in.
pub fn inside(process: &Process, computes: bool) -> ShellCommand {
    let is = |names: &[&str]| names.iter().any(|name| process.name.starts_with(name));
    match Name::pid(process.pid) {
        pid if is(&["java", "jsvc"]) => ShellCommand::new("jstack").arg(pid),
        pid if is(&["python", "gunicorn", "uvicorn", "celery"]) => ShellCommand::new("py-spy dump --pid").arg(pid),
        pid if is(&["ruby", "puma", "unicorn"]) => ShellCommand::new("rbspy dump --pid").arg(pid),
        pid if computes => ShellCommand::new("perf top -p").arg(pid),
        _ => queue::kernel_stack(process),
    }
}

/// Lets the server serve more at once, where it has a setting for that.
pub fn capacity(server: Option<&Server>, service: &Service<'_>) -> Option<Remedy> {
    let server = server?;
    let setting = server.capacity.as_ref()?;
    let text = format!("Let {} serve more at once, as far as CPUs and memory allow", server.name);
    Some(
        Remedy::new(text, Verify::by(queue::listed(service), "shows Recv-Q near 0"))
            .setting(setting.of_port(service.port)),
    )
}

/// How fast connections were taken, and so how long one waits in a full queue. The kernel counts them for all listeners together
/// (PassiveOpens): where this one takes none, or others take the most, that tells nothing of its queue.
pub fn pace(e: &Evidence<'_>, service: &Service<'_>) -> Option<EvidenceItem> {
    let opens = e.counter("Tcp.PassiveOpens").ok().filter(|opens| opens.delta > 0)?;
    let at_least = format!("{:.1}", f64::from(service.worst().max_recv_q) / opens.per_s);
    if queue::never_drained(service) || at_least == "0.0" {
        return None;
    }
    let each_second = (opens.per_s.round() as u64).max(1);
    let text = format!(
        "{} a second {} accepted on this host: in this queue one waits {at_least} s or more",
        words::counted(each_second, "connection"),
        words::were(each_second)
    );
    Some(EvidenceItem::counter(&opens, text))
}
