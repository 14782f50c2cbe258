use super::*;
use crate::observation::testing::{Case, crashed, process, task};
use crate::source::socket_dump::{PortUse, SocketDump};

fn server() -> Case {
    Case::new().counter("Tcp.OutRsts", 0, 20).counter("Tcp.PassiveOpens", 0, 0).listener(
        "0.0.0.0:9000",
        128,
        0,
        0,
        &process(977, "app"),
    )
}

fn unread(case: Case) -> Case {
    let ends = ["10.0.0.9:9000", "10.0.3.7:0"];
    case.sent(20, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ends, Some(task(977, "app")))
}

#[test]
fn a_killed_server_is_named_and_not_blamed_for_its_closes() {
    let case = unread(server().died(977));
    let finding = case.finding(&PROCESS_EXIT);
    assert_eq!((finding.severity, finding.subjects[1].pid), (Severity::Critical, Some(977)));
    assert!(case.is_ruled_out(&super::super::close_with_unread_data::CLOSE_WITH_UNREAD_DATA));
}

#[test]
fn the_same_resets_by_a_living_process_are_not_this() {
    assert!(unread(server()).is_ruled_out(&PROCESS_EXIT));
}

#[test]
fn without_events_the_missing_owner_tells() {
    let finding = server().died(977).stopped_listening(9000).finding(&PROCESS_EXIT);
    assert_eq!(finding.severity, Severity::Critical);
    assert!(finding.confidence < 0.9 && finding.subjects[0].port == Some(9000));
}

#[test]
fn a_crash_is_harm_where_something_was_served() {
    let severity = |name| {
        let case = crashed(server(), 4242, name);
        case.finding(&PROCESS_EXIT).severity
    };
    assert_eq!(severity("app"), Severity::Warning, "as the owner of port 9000 is called");
    assert_eq!(severity("php-fpm8.2"), Severity::Warning, "reached by a unix socket, in all likelihood");
    assert_eq!(severity("cc1plus"), Severity::Info);
}

#[test]
fn a_worker_that_leaves_quietly_is_no_alarm() {
    let case =
        Case::new().counter("Tcp.OutRsts", 0, 0).listener("0.0.0.0:9000", 128, 0, 0, &process(977, "app")).died(977);
    assert_eq!(case.finding(&PROCESS_EXIT).severity, Severity::Info);
}

#[test]
fn where_another_process_sent_the_signal_that_one_is_asked() {
    let why = |sender: Option<Task>| {
        let death = SignalDeath {
            at: std::time::Duration::from_secs(1001),
            process: task(977, "app"),
            signal: 9,
            sender,
            netns: None,
            has_siblings: false,
            handled: false,
        };
        let finding = unread(server().died(977)).signal_death(death).finding(&PROCESS_EXIT);
        finding.remedies.into_iter().map(|remedy| remedy.text).collect::<Vec<_>>().join("; ")
    };
    let killed = why(Some(task(41, "bash")));
    assert!(killed.contains("Find out why bash (pid 41) ended app with SIGKILL"), "{killed}");
    let unknown = why(None);
    assert!(unknown.contains("Find out why app ended"), "{unknown}");
}

/// An ordinary user sees no signals: nginx after a reload, and after a crash of its workers, look alike.
#[test]
fn workers_that_others_replaced_are_no_crash_for_certain() {
    let case = |came: bool| {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 45)
            .counter("Tcp.PassiveOpens", 0, 65)
            .counter("TcpExt.TCPAbortOnClose", 0, 45)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "nginx"))
            .holder(1, &process(978, "nginx"))
            .died(978);
        if came { case.started(1, &process(990, "nginx")) } else { case }
    };
    let finding = case(true).finding(&PROCESS_EXIT);
    assert!(finding.severity >= Severity::Warning && finding.confidence < 0.5, "{finding:?}");
    assert!(finding.summary.contains("reload"), "{}", finding.summary);
    assert!(case(false).finding(&PROCESS_EXIT).confidence >= 0.5, "nobody came in its place");
}

/// One who sees no events: `lived` connections with unread data that a server closed one after the other, `at_end` that it had when
/// it ended. At 1002 s it went, and its listener with it unless others hold that.
fn seen_by_an_ordinary_user(lived: u16, at_end: u16, listener_too: bool) -> Case {
    let clients = ["10.0.0.9:9000", "10.0.3.7:0"];
    let mut number = 0;
    let case = server().counter("TcpExt.TCPAbortOnClose", 0, (lived + at_end).into()).died(977);
    let case = if listener_too { case.stopped_listening(9000) } else { case.holder(1, &process(978, "app")) };
    case.counter("Tcp.OutRsts", 0, (lived + at_end).into())
        .counter("Tcp.PassiveOpens", 0, (lived + at_end).into())
        .counter("TcpExt.ListenOverflows", 0, 0)
        .destroyed_sockets(lived + at_end, clients, 0, 0)
        .destroyed_sockets(listener_too.into(), ["0.0.0.0:9000", "0.0.0.0:0"], 0, 0)
        .each_destroyed(move |socket| {
            number += 1;
            let millis = if number > lived { 1_001_990 } else { 1_000_050 + u64::from(number) * 100 };
            (socket.at, socket.after) = (Duration::from_millis(millis), Duration::from_millis(millis - 50));
            (socket.unread, socket.unacknowledged) = (300, 0);
            (socket.bytes_received, socket.bytes_sent) = (Some(400), Some(0));
        })
}

#[test]
fn what_a_server_closed_while_it_lived_is_not_laid_to_its_end() {
    let told = |lived, at_end| {
        let diagnosis = crate::diagnosis::diagnose(seen_by_an_ordinary_user(lived, at_end, true).view());
        let of =
            |cause: &crate::diagnosis::rank::Ranked| (cause.id, cause.finding.severity, cause.finding.impact.events);
        diagnosis.causes.iter().map(of).collect::<Vec<_>>()
    };
    // The last of a row that goes on until the end is one of the row.
    for (lived, at_end) in [(15, 0), (19, 1)] {
        let causes = told(lived, at_end);
        let all = u64::from(lived + at_end);
        assert_eq!((causes[0].0, causes[0].2), ("close-with-unread-data", all), "{causes:?}");
        assert!(causes.iter().all(|(.., severity, _)| *severity > Severity::Critical), "{causes:?}");
        assert!(causes.contains(&("process-exit", Severity::Info, 0)), "{causes:?}");
        assert_eq!(causes.iter().filter(|(id, ..)| *id == "close-with-unread-data").count(), 1, "{causes:?}");
    }
    let crash = told(0, 12);
    assert_eq!(crash[0], ("process-exit", Severity::Critical, 12), "{crash:?}");
    let both = told(5, 12);
    // Of those in its last moment it may have closed as many as in any other.
    assert!(matches!(both[0], ("process-exit", Severity::Critical, 8..=12)), "{both:?}");
    assert!(both.contains(&("close-with-unread-data", Severity::Warning, 5)), "{both:?}");
}

#[test]
fn of_a_worker_whose_listener_lives_on_the_time_tells_too() {
    let finding = |lived, at_end| seen_by_an_ordinary_user(lived, at_end, false).finding(&PROCESS_EXIT);
    let recycled = finding(15, 0);
    assert_eq!((recycled.severity, recycled.impact.events), (Severity::Info, 0), "{recycled:?}");
    let crashed = finding(0, 30);
    assert!(crashed.severity < Severity::Info && crashed.impact.events == 30, "{crashed:?}");
}

/// An old kernel tells of no connection that ends.
#[test]
fn where_nothing_tells_them_apart_neither_is_certain() {
    let mut case = seen_by_an_ordinary_user(0, 12, true);
    case.destroyed = crate::value::Observed::not_asked();
    case.netns.endings = crate::value::Observed::not_asked();
    let finding = case.finding(&PROCESS_EXIT);
    assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
    assert!(finding.confidence < 0.7, "{finding:?}");
    assert!(finding.counter_evidence.iter().any(|item| item.text.contains("may be its own")), "{finding:?}");
    let first = crate::diagnosis::diagnose(case.view()).causes[0].id;
    assert_eq!(first, "close-with-unread-data");
}

#[test]
fn a_program_that_listened_for_a_moment_on_a_port_of_the_kernels_choice_is_no_alarm() {
    let case = |sent| {
        Case::new()
            .counter("Tcp.OutRsts", 0, sent)
            .sysctl("net.ipv4.ip_local_port_range", "32768\t60999")
            .listener("127.0.0.1:50243", 128, 0, 0, &process(977, "test-server"))
            .died(977)
            .stopped_listening(50_243)
    };
    assert_eq!(case(0).finding(&PROCESS_EXIT).severity, Severity::Info);
    let used = PortUse { by_state: [(TcpState::Established, 3)].into(), ..PortUse::default() };
    let before = SocketDump { ports: [(50_243, used)].into(), ..SocketDump::default() };
    let severity = |sent| case(sent).socket_dump(before.clone(), SocketDump::default()).finding(&PROCESS_EXIT).severity;
    assert_eq!(severity(3), Severity::Critical, "clients were connected");
    assert_eq!(severity(0), Severity::Info, "it ended in order, and reset none of them");
}

/// A server with eight clients that ends by this signal, sent by another process.
fn ended_by(signal: u8) -> Case {
    let used = PortUse { by_state: [(TcpState::Established, 8)].into(), ..PortUse::default() };
    let before = SocketDump { ports: [(9000, used)].into(), ..SocketDump::default() };
    let death = SignalDeath {
        at: Duration::from_secs(1001),
        process: task(977, "app"),
        signal,
        sender: Some(task(1, "systemd")),
        netns: None,
        has_siblings: false,
        handled: false,
    };
    let case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, 0);
    let case = case
        .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "app"))
        .died(977)
        .stopped_listening(9000)
        .signal_death(death);
    case.socket_dump(before, SocketDump::default())
}

#[test]
fn a_service_that_is_stopped_as_meant_is_a_note_until_somebody_misses_it() {
    const TERM: u8 = 15;
    let clients = ["10.0.0.9:9000", "10.0.3.7:0"];
    let finding = ended_by(TERM).finding(&PROCESS_EXIT);
    assert_eq!(finding.severity, Severity::Info);
    assert!(finding.evidence.iter().any(|item| item.text.contains("SIGTERM (signal 15), sent by systemd")));
    assert_eq!(ended_by(9).finding(&PROCESS_EXIT).severity, Severity::Critical, "nobody asked it to");
    let refused = ended_by(TERM).counter("Tcp.OutRsts", 0, 3).sent(3, "NO_SOCKET", None, clients, None);
    assert_eq!(refused.finding(&PROCESS_EXIT).severity, Severity::Critical);
    let closed = |asked_last| {
        let mut case = ended_by(TERM).destroyed_sockets(8, clients, 0, 0);
        case = case.each_destroyed(|socket| socket.data_sent_ms = if asked_last { 900 } else { 5 });
        case.finding(&PROCESS_EXIT).severity
    };
    assert_eq!((closed(true), closed(false)), (Severity::Critical, Severity::Info));
}

/// node on port 3000 ended at these milliseconds of the window, as often as there are, and 20 connects were refused meanwhile.
fn crash_loop(ends: &[u64]) -> Case {
    let mut case = Case::new()
        .tracepoints()
        .counter("Tcp.OutRsts", 0, 20)
        .counter("Tcp.PassiveOpens", 0, 30)
        .listener("0.0.0.0:3000", 511, 0, 0, &process(99, "node"))
        .sent(20, "NO_SOCKET", None, ["10.0.0.9:3000", "10.0.3.7:0"], None)
        .packets(20, Direction::Sent, 0x14, 64, ["10.0.0.9:3000", "10.0.3.7:0"])
        .destroyed_sockets(30, ["10.0.0.9:3000", "10.0.3.7:0"], 0, 0);
    case.netns.listener_traces.values_mut().for_each(|trace| trace.in_before = false);
    if let crate::value::Observed::Full(account) = &mut case.host.reset_events {
        account.reports_signals = true;
        for (number, at) in (1..).zip(ends) {
            account.listeners_closed.push(crate::source::reset_events::ListenerClosed {
                at: Duration::from_millis(1_000_000 + at),
                local: "0.0.0.0:3000".parse().unwrap(),
                task: Some(task(number, "node")),
                netns: None,
            });
            account.ended.push(number);
        }
    }
    case
}

#[test]
fn a_program_that_keeps_ending_is_the_root_of_the_connects_refused_in_between() {
    let case = crash_loop(&[100, 1_300, 2_500]);
    let diagnosis = crate::diagnosis::diagnose(case.view());
    let ids: Vec<_> = diagnosis.causes.iter().map(|cause| cause.id).collect();
    assert_eq!(ids, ["process-exit"]);
    let said = "node on port 3000 keeps ending and being started again, 3 times in 3 s: 20 of 50 connections (40 %)";
    assert!(diagnosis.summary.starts_with(said), "{}", diagnosis.summary);
    let finding = &diagnosis.causes[0].finding;
    assert!(finding.evidence.iter().any(|item| item.text.contains("no signal ended it")), "{finding:?}");
    assert!(finding.remedies[0].text.starts_with("Find out why node ended"), "{finding:?}");
    let killed = case.signal_death(SignalDeath {
        at: Duration::from_millis(1_001_300),
        process: task(2, "node"),
        signal: 9,
        sender: Some(task(5, "timeout")),
        netns: None,
        has_siblings: false,
        handled: false,
    });
    let finding = killed.finding(&PROCESS_EXIT);
    assert!(finding.summary.contains("3 times in 3 s (killed with SIGKILL (signal 9) by timeout (pid 5))"));
}

#[test]
fn one_that_began_and_ended_within_the_window_ended_once() {
    let finding = crash_loop(&[1_300]).finding(&PROCESS_EXIT);
    assert!(finding.summary.starts_with("node on port 3000 began to listen and ended again within 3 s: 20 of 50"));
    let workers = crash_loop(&[1_300, 1_310, 1_320]).finding(&PROCESS_EXIT);
    assert!(workers.summary.starts_with("node on port 3000 began to listen and ended again"), "{workers:?}");
}

#[test]
fn a_listener_that_its_living_program_closes_is_no_exit() {
    let mut case = crash_loop(&[100, 1_300]);
    if let crate::value::Observed::Full(account) = &mut case.host.reset_events {
        account.ended.clear();
    }
    assert!(case.is_ruled_out(&PROCESS_EXIT));
    let finding = case.finding(&super::super::listener_closed::LISTENER_CLOSED);
    assert!(finding.summary.starts_with("the listener of node on port 3000 comes and goes"), "{finding:?}");
}

#[test]
fn a_child_for_one_connection_that_ends_by_itself_is_no_crash() {
    use super::super::close_with_unread_data::CLOSE_WITH_UNREAD_DATA;
    let case = |listens: u32, pid: u32, each: u16| {
        let mut case = Case::new().tracepoints().counter("Tcp.OutRsts", 0, 4).counter("Tcp.PassiveOpens", 0, 4);
        case = case.counter("TcpExt.TCPAbortOnClose", 0, 4).listener("0.0.0.0:22", 128, 0, 0, &process(977, "sshd"));
        case = case.holder(1, &process(listens, "sshd"));
        for number in 0..2 {
            let ends = ["10.0.0.9:22", "10.0.3.7:0"];
            let child = Some(task(pid + number, "sshd"));
            case = case.sent(each, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ends, child);
        }
        let Some(events) = case.events.value().cloned() else { panic!("no events") };
        let exiting = |event| crate::source::reset_events::ResetEvent {
            caller: Some(crate::source::reset_events::Caller::Close),
            exiting: true,
            ..event
        };
        case.events = crate::value::Observed::Full(events.into_iter().map(exiting).collect());
        if let crate::value::Observed::Full(account) = &mut case.host.reset_events {
            account.reports_signals = true;
        }
        case
    };
    let turned_away = case(977, 2000, 1);
    assert!(!turned_away.clone().judge(&PROCESS_EXIT).is_ok_and(|found| matches!(found, Verdict::Found(_))));
    let finding = turned_away.clone().finding(&CLOSE_WITH_UNREAD_DATA);
    assert!(finding.summary.starts_with("2 sshd processes on port 22 closed"), "{}", finding.summary);
    assert!(finding.remedies[0].text.starts_with("See in the log of sshd why"), "{finding:?}");
    let killed = turned_away.signal_death(SignalDeath {
        at: Duration::from_secs(1001),
        process: task(2000, "sshd"),
        signal: 9,
        sender: Some(task(1, "bash")),
        netns: None,
        has_siblings: true,
        handled: false,
    });
    assert!(killed.finding(&PROCESS_EXIT).summary.contains("exited with open connections"));
    assert!(case(977, 2000, 2).finding(&PROCESS_EXIT).summary.contains("exited"), "workers, with more than one each");
    assert!(case(2000, 2000, 1).finding(&PROCESS_EXIT).summary.contains("exited"), "a worker, that listened too");
}

#[test]
fn without_owners_nothing_is_claimed() {
    assert_eq!(Case::new().missing(&PROCESS_EXIT), Some("owners"));
}

#[test]
fn a_worker_that_a_reload_ended_did_not_do_what_the_others_did() {
    let case = |reason: &str| {
        Case::new()
            .tracepoints()
            .counter("Tcp.OutRsts", 0, 40)
            .counter("Tcp.PassiveOpens", 0, 100)
            .counter("TcpExt.TCPAbortOnData", 0, 0)
            .listener("0.0.0.0:9000", 128, 0, 0, &process(977, "nginx"))
            .sent(40, reason, None, ["10.0.0.9:9000", "10.0.3.7:0"], None)
            .died(977)
    };
    let reloaded = case("TCP_TIMEWAIT_SOCKET");
    let causes = crate::diagnosis::diagnose(reloaded.view()).causes;
    let ids: Vec<_> = causes.iter().map(|cause| cause.id).collect();
    assert!(ids[0] == "late-data-after-close" && !ids.contains(&"process-exit"), "{ids:?}");
}
