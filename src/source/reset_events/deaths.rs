//! Processes that died by a signal, from the tracepoints signal:signal_deliver (a signal whose action is the default one, so that it
//! ends the process) and signal:signal_generate (who sent it). Both have had these fields since 2.6.33
//! (include/trace/events/signal.h).

use std::collections::HashMap;
use std::time::Duration;

use super::Task;
use super::tasks::Tasks;
use crate::value::NetnsId;

/// Deaths of a window that are kept, and signals that wait for the end of their process.
const MAX_DEATHS: usize = 1_000;
const MAX_WAITING: usize = 1_000;
/// A process that handles a signal and ends so soon after it ended because of it.
const OBEYS_NS: u64 = 10_000_000_000;
/// SI_KERNEL (include/uapi/asm-generic/siginfo.h): the out-of-memory killer, or the end of a pid namespace.
const FROM_KERNEL: i32 = 0x80;

const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGKILL: u8 = 9;
const SIGTERM: u8 = 15;

/// Servers that serve their connections to the end on SIGQUIT. A Go program writes its stacks and exits, and where nobody handles it
/// the process dumps core.
const END_IN_ORDER_ON_QUIT: [&str; 4] = ["nginx", "php-fpm", "openresty", "unicorn"];

/// A process that a signal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalDeath {
    /// CLOCK_BOOTTIME.
    pub at: Duration,
    pub process: Task,
    pub signal: u8,
    /// Who sent it; `None` where the kernel did: a fault of the process itself, lack of memory.
    pub sender: Option<Task>,
    pub netns: Option<NetnsId>,
    /// Another process of this name is there: it was one of several workers.
    pub has_siblings: bool,
    /// The process had a handler for the signal, and ended by itself after it.
    pub handled: bool,
}

impl SignalDeath {
    /// `SIGSEGV (signal 11)`; the numbers are those of x86, Arm and RISC-V (signal(7)).
    pub fn signal_name(&self) -> String {
        let name = match self.signal {
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            5 => "SIGTRAP",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            11 => "SIGSEGV",
            15 => "SIGTERM",
            24 => "SIGXCPU",
            31 => "SIGSYS",
            other => return format!("signal {other}"),
        };
        format!("{name} (signal {})", self.signal)
    }

    /// It ended itself by a fault, or by abort(3).
    pub fn is_crash(&self) -> bool {
        let own = self.sender.as_ref().is_none_or(|sender| sender.pid == self.process.pid);
        self.signal != SIGKILL && !self.was_asked_to() && own
    }

    /// The parent, which has the same name, ended its worker. One that was asked to end and does so in order is reloaded; php-fpm's
    /// request_terminate_timeout ends a worker by a SIGTERM that it does not handle.
    pub fn by_its_like(&self) -> bool {
        let like = |sender: &Task| sender.pid != self.process.pid && sender.name == self.process.name;
        self.sender.as_ref().is_some_and(like) && !(self.handled && self.was_asked_to())
    }

    /// A request to end, as an administrator, a supervisor or a terminal (SIGINT) sends it.
    pub fn was_asked_to(&self) -> bool {
        let in_order = || END_IN_ORDER_ON_QUIT.iter().any(|name| self.process.name.starts_with(name));
        match self.signal {
            SIGINT | SIGTERM => true,
            SIGQUIT => self.handled && in_order(),
            _ => false,
        }
    }
}

/// One signal, as its tracepoint tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Signal {
    /// CLOCK_MONOTONIC, ns.
    pub time: u64,
    pub number: u8,
    /// Whom it is for.
    pub target: u32,
    /// Who sent it, `None` for one that is delivered.
    pub sender: Option<u32>,
    pub code: i32,
}

/// Puts signals and ends of processes together.
#[derive(Debug, Default)]
pub struct Deaths {
    /// By process: the latest that may end it.
    sent: HashMap<u32, (Signal, SignalDeath)>,
    exited: Vec<(u32, u64)>,
    dead: Vec<SignalDeath>,
}

impl Deaths {
    pub fn see(&mut self, signal: Signal, boot_offset: u64, tasks: &Tasks) {
        let Some(process) = tasks.get(signal.target).filter(|process| !process.kernel) else { return };
        let named = |pid: u32| Task { pid, name: tasks.get(pid).map(|task| task.name.clone()).unwrap_or_default() };
        let by_kernel = signal.code == FROM_KERNEL;
        let death = SignalDeath {
            at: Duration::from_nanos(signal.time.saturating_add(boot_offset)),
            process: Task { pid: signal.target, name: process.name.clone() },
            signal: signal.number,
            sender: signal.sender.filter(|sender| *sender != 0 && !by_kernel).map(named),
            netns: process.netns,
            has_siblings: self.dead.len() < 100 && tasks.has_siblings(signal.target, &process.name),
            handled: false,
        };
        match (signal.sender, signal.number) {
            // Nobody survives it; threads of a process that ends by itself get one that nobody sent.
            (Some(_), SIGKILL) => self.die(death),
            (Some(_), _) if self.sent.len() < MAX_WAITING => drop(self.sent.insert(signal.target, (signal, death))),
            (Some(_), _) => {}
            (None, number) => {
                let sent = self.sent.remove(&signal.target).filter(|(sent, _)| sent.number == number);
                let sender = sent.and_then(|(_, sent)| sent.sender);
                self.die(SignalDeath { sender, ..death });
            }
        }
    }

    fn die(&mut self, death: SignalDeath) {
        if self.dead.len() < MAX_DEATHS && self.dead.iter().all(|dead| dead.process.pid != death.process.pid) {
            self.dead.push(death);
        }
    }

    /// This process ended.
    pub fn exited(&mut self, pid: u32, time: u64) {
        if self.exited.len() < MAX_WAITING {
            self.exited.push((pid, time));
        }
    }

    /// What is certain by now. Ends of processes come by another ring than signals, so both are kept until here.
    pub fn take(&mut self, now: u64) -> Vec<SignalDeath> {
        for (pid, time) in std::mem::take(&mut self.exited) {
            let obeyed =
                |(sent, _): &(Signal, SignalDeath)| (sent.time..sent.time.saturating_add(OBEYS_NS)).contains(&time);
            if let Some((_, death)) = self.sent.remove(&pid).filter(obeyed) {
                self.die(SignalDeath { handled: true, ..death });
            }
        }
        self.sent.retain(|_, (sent, _)| sent.time.saturating_add(OBEYS_NS) > now);
        std::mem::take(&mut self.dead)
    }
}

#[cfg(test)]
mod tests {
    const SIGABRT: u8 = 6;

    use super::*;

    fn tasks() -> Tasks {
        let mut tasks = Tasks::default();
        tasks.list("10 4026531840 user gunicorn\n11 4026531840 user gunicorn\n12 4026531840 user bash\n13 - kernel kworker/0\n");
        tasks
    }

    fn signal(number: u8, target: u32, sender: Option<u32>) -> Signal {
        Signal { time: 1_000, number, target, sender, code: 0 }
    }

    fn of(signals: &[Signal], exits: &[(u32, u64)]) -> Vec<SignalDeath> {
        let mut deaths = Deaths::default();
        exits.iter().for_each(|(pid, time)| deaths.exited(*pid, *time));
        signals.iter().for_each(|signal| deaths.see(*signal, 0, &tasks()));
        deaths.take(2_000)
    }

    #[test]
    fn a_fault_is_a_crash_and_a_worker_ended_by_its_parent_is_not() {
        let crash = of(&[signal(11, 11, None)], &[]);
        assert_eq!((crash[0].signal_name().as_str(), crash[0].has_siblings), ("SIGSEGV (signal 11)", true));
        assert!(crash[0].is_crash() && !crash[0].by_its_like());
        let killed = of(&[signal(SIGABRT, 11, Some(10)), signal(SIGABRT, 11, None)], &[]);
        assert!(!killed[0].is_crash() && killed[0].by_its_like());
        let aborted = of(&[signal(SIGABRT, 11, Some(11)), signal(SIGABRT, 11, None)], &[]);
        assert!(aborted[0].is_crash(), "abort(3) sends it to itself");
    }

    #[test]
    fn a_handled_signal_counts_only_where_the_process_ends_soon_after_it() {
        let sent = [signal(SIGABRT, 11, Some(10))];
        assert_eq!(of(&sent, &[]), []);
        assert_eq!(of(&sent, &[(11, 500)]), [], "a process of this number before it");
        assert!(of(&sent, &[(11, 1_500)])[0].by_its_like());
        assert!(of(&[signal(SIGTERM, 11, Some(12))], &[(11, 1_500)])[0].was_asked_to());
    }

    #[test]
    fn a_request_to_end_is_neither_a_crash_nor_the_end_of_a_hung_worker() {
        let mut tasks = tasks();
        tasks.list("20 4026531840 user nginx\n21 4026531840 user nginx\n30 4026531840 user caddy\n");
        let of = |signals: &[Signal], exits: &[(u32, u64)]| {
            let mut deaths = Deaths::default();
            exits.iter().for_each(|(pid, time)| deaths.exited(*pid, *time));
            signals.iter().for_each(|signal| deaths.see(*signal, 0, &tasks));
            deaths.take(2_000).remove(0)
        };
        let asked = |death: &SignalDeath| (death.was_asked_to(), death.is_crash(), death.by_its_like());
        // `nginx -s quit`, and a reload: the sender is an nginx, too.
        assert_eq!(asked(&of(&[signal(SIGQUIT, 21, Some(20))], &[(21, 1_500)])), (true, false, false));
        assert_eq!(
            asked(&of(&[signal(SIGTERM, 11, Some(10))], &[(11, 1_500)])),
            (true, false, false),
            "gunicorn reloads"
        );
        // Ctrl-C: the terminal sends it, by the kernel.
        let by_terminal = Signal { code: FROM_KERNEL, ..signal(SIGINT, 12, Some(12)) };
        assert_eq!(asked(&of(&[by_terminal, signal(SIGINT, 12, None)], &[])), (true, false, false));
        // Somebody wants the stacks of a Go program, or a core.
        assert!(!of(&[signal(SIGQUIT, 30, Some(12))], &[(30, 1_500)]).was_asked_to());
        assert!(!of(&[signal(SIGQUIT, 21, Some(12)), signal(SIGQUIT, 21, None)], &[]).was_asked_to());
        // php-fpm's request_terminate_timeout.
        let hung = of(&[signal(SIGTERM, 11, Some(10)), signal(SIGTERM, 11, None)], &[]);
        assert!(hung.by_its_like(), "{hung:?}");
    }

    #[test]
    fn one_death_is_one_whatever_signals_came_and_kernel_threads_do_not_die() {
        assert_eq!(
            of(&[signal(SIGABRT, 11, Some(10)), signal(SIGKILL, 11, Some(10)), signal(6, 11, None)], &[]).len(),
            1
        );
        assert_eq!(of(&[signal(SIGKILL, 13, Some(12)), signal(SIGKILL, 99, Some(12))], &[]), []);
        let by_kernel = Signal { code: FROM_KERNEL, ..signal(SIGKILL, 11, Some(12)) };
        assert_eq!(of(&[by_kernel], &[])[0].sender, None);
    }
}
