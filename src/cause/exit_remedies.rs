//! What to do about a program that ended, once or again and again.

use super::{Finding, Remedy, Restart};
use super::{commands, signals};
use crate::evidence::Evidence;
use crate::source::reset_events::SignalDeath;
use crate::value::outside::UnitName;
use crate::value::shell::{Name, ShellCommand};

/// The finding with them: more memory where that lacked, where its log says why, and what spares clients at a restart.
pub fn added(
    e: &Evidence<'_>,
    finding: Finding,
    name: Option<&str>,
    unit: Option<&UnitName>,
    deaths: &[&SignalDeath],
) -> Finding {
    let journal = commands::journal(unit);
    let unit = unit.and_then(Name::unit);
    let killed = ShellCommand::new("grep -Ei").arg("killed process|segfault").pipe(ShellCommand::new("tail"));
    let memory = e.moved("oom_kill") > 0;
    let name = name.unwrap_or("the process");
    let why = Remedy::new(
        match signals::sender(deaths) {
            Some((sender, signal)) => format!(
                "Find out why {sender} ended {name} with {signal}: a deploy, a supervisor or a script that does not wait for it"
            ),
            None => format!("Find out why {name} ended: crash, kill, memory or a deploy"),
        },
        "the log names the reason, and rstdoctor scan shows no further exit",
    )
    .command(journal.then(ShellCommand::new("dmesg -T").pipe(killed)));
    let finding = if memory {
        finding.remedy(
            Remedy::new("Give it more memory, or make it use less", "oom_kill in /proc/vmstat stays")
                .command_if(unit.map(|unit| ShellCommand::new("systemctl set-property").arg(unit).arg("MemoryMax=4G"))),
        )
    } else {
        finding
    };
    finding.remedy(why).remedy(
        Remedy::new(
            "For planned restarts: stop accepting, let connections finish, then exit",
            "a restart under load resets nobody in rstdoctor scan",
        )
        .restart(Restart::Service),
    )
}
