//! Services of which all fails, once in a while: each window holds one failure or none.

use std::time::Duration;

use super::*;
use crate::observation::testing::{Case, process, task};
use crate::source::socket_dump::{PortUse, SocketDump};
use crate::value::TcpState;

const WINDOW: Duration = Duration::from_secs(3);
const CLIENT: &str = "10.0.3.7:0";

/// nginx on port 80 and an application on 9000.
fn host() -> Case {
    Case::new()
        .tracepoints()
        .counter("TcpExt.ListenOverflows", 0, 0)
        .listener("0.0.0.0:80", 511, 0, 0, &process(4121, "nginx"))
        .listener("0.0.0.0:9000", 511, 0, 0, &process(977, "app"))
        .destroyed_sockets(0, ["10.0.0.9:9000", CLIENT], 0, 0)
}

fn quiet() -> Case {
    host().counter("Tcp.OutRsts", 0, 0)
}

/// It closes so many of its connections with unread data, on one of its ports.
fn fails_on(port: u16, failures: u16, connections: u16) -> Case {
    let ends = [format!("10.0.0.9:{port}"), CLIENT.to_owned()];
    let ends = [ends[0].as_str(), ends[1].as_str()];
    host()
        .listener(&format!("0.0.0.0:{port}"), 511, 0, 0, &process(977, "app"))
        .counter("Tcp.OutRsts", 0, failures.into())
        .counter("Tcp.PassiveOpens", 0, connections.into())
        .destroyed_sockets(connections, ends, 0, 0)
        .sent(failures, "TCP_ABORT_ON_CLOSE", Some(TcpState::Close), ends, Some(task(977, "app")))
}

fn fails(failures: u16, connections: u16) -> Case {
    fails_on(9000, failures, connections)
}

/// Ticks of these windows, one after the other.
fn watched(windows: impl IntoIterator<Item = Case>) -> Vec<Tick> {
    let mut watch = Watch::new(Filter::default());
    let later = |number: usize, case: Case| case.later(WINDOW * u32::try_from(number).unwrap());
    let windows = windows.into_iter().enumerate().map(|(number, case)| later(number, case).window(false));
    windows.map(|mut window| watch.tick(&mut window, &mut |_, _| None).expect("a namespace")).collect()
}

fn statuses(ticks: &[Tick]) -> Vec<Status> {
    ticks.iter().map(|tick| tick.status).collect()
}

/// Nothing, or the worst that was told.
fn worst(windows: impl IntoIterator<Item = Case>) -> Status {
    let told = statuses(&watched(windows));
    let order = [Status::Critical, Status::Warning, Status::Unknown];
    order.into_iter().find(|status| told.contains(status)).unwrap_or(Status::Ok)
}

#[test]
fn one_of_one_again_and_again_is_a_service_that_fails_altogether() {
    let ticks = watched([quiet(), fails(1, 1), quiet(), fails(1, 1), quiet(), quiet(), fails(1, 1), quiet()]);
    let status = statuses(&ticks);
    assert!(status[..6].iter().all(|status| *status == Status::Ok), "one or two are anybody's chance: {status:?}");
    assert_eq!(status[6..], [Status::Critical; 2], "and a quiet tick is no end");
    let found = &ticks[6].diagnosis;
    assert_eq!(found.status, Status::Critical);
    assert!(found.summary.contains("(all 3 in the last 18 s failed)"), "{}", found.summary);
    let episode = &ticks[6].episodes[0];
    assert_eq!(episode.since, ticks[0].at, "when the first window with one of them began");
    assert_eq!(episode.events - episode.earlier, 3);
    assert_eq!(ticks[7].episodes[0].phase, Phase::Quiet);
}

#[test]
fn it_ends_after_twice_the_quiet_that_lay_between_and_at_once_where_there_was_none() {
    let ended = |windows: Vec<Case>| {
        let ticks = watched(windows);
        let ends = |tick: &Tick| tick.events.iter().any(|event| event.what == What::Ended && !event.harmless);
        ticks.iter().rposition(ends).map(|index| (index, ticks[index].status))
    };
    let steady = [fails(1, 1), fails(1, 1), fails(1, 1), quiet(), quiet()];
    assert_eq!(ended(steady.to_vec()), Some((3, Status::Ok)), "with the first quiet tick");
    let pauses = [fails(1, 1), quiet(), fails(1, 1), quiet(), fails(1, 1)];
    let quiet_for = |ticks| std::iter::repeat_with(quiet).take(ticks);
    assert_eq!(ended(pauses.iter().cloned().chain(quiet_for(4)).collect()), Some((7, Status::Ok)));
    // What comes after that is the same again, and told.
    let again = watched(pauses.iter().cloned().chain(quiet_for(4)).chain([fails(1, 1)]));
    let told = again.last().unwrap();
    assert_eq!((told.status, told.events[0].what), (Status::Critical, What::Again));
    assert_eq!(told.episodes[0].since.mono, again[0].at.mono - WINDOW, "and is the same fault");
}

#[test]
fn what_is_long_over_or_elsewhere_does_not_add_up() {
    let pause = |windows| std::iter::repeat_with(quiet).take(windows);
    let rare = (0..5).flat_map(|_| std::iter::once(fails(1, 1)).chain(pause(6)));
    assert_eq!(worst(rare), Status::Ok, "every 21 s: two in half a minute");
    let ports = [9000, 9001, 9002, 9003].map(|port| fails_on(port, 1, 1));
    assert_eq!(worst(ports), Status::Ok, "each once");
}

#[test]
fn a_few_of_many_stay_a_note_however_often() {
    let few = || std::iter::repeat_with(|| fails(1, 100)).take(20);
    assert_eq!(worst(few()), Status::Ok, "1 %");
    assert_eq!(
        worst(std::iter::repeat_with(|| fails(1, 10)).take(10)),
        Status::Warning,
        "10 %, of which each tick has one"
    );
    assert_eq!(worst([fails(5, 60)]), Status::Ok, "5 of 60 may be chance once a day");
    assert_eq!(worst(std::iter::repeat_with(|| fails(5, 60)).take(3)), Status::Warning, "15 of 180 not");
    // What went well before the first failure counts, unless nothing has since.
    let well = || std::iter::repeat_with(|| fails(0, 60)).take(8);
    assert_eq!(worst(well().chain([fails(1, 2), fails(1, 2)])), Status::Ok);
    assert_eq!(worst(well().chain([fails(1, 4), fails(1, 4), fails(1, 4)])), Status::Ok, "3 of 492");
    assert_eq!(worst(well().chain([fails(1, 1), fails(1, 1), fails(1, 1)])), Status::Critical, "it went down");
}

#[test]
fn a_window_that_is_judged_again_with_a_sweep_counts_once() {
    let mut watch = Watch::new(Filter::default());
    for number in 0..2 {
        let mut window = fails(1, 1).later(WINDOW * number).window(false);
        let tick = watch.tick(&mut window, &mut |_, _| Some(Dumped::default())).expect("a namespace");
        assert_eq!(tick.status, Status::Ok, "two in all");
    }
}

#[test]
fn a_peer_that_is_refused_once_a_window_expects_a_service_there() {
    let refused =
        |peer: &str, local: &str| quiet().counter("Tcp.OutRsts", 0, 1).sent(1, "NO_SOCKET", None, [local, peer], None);
    // Each comes from another port.
    let from = |address: &str, number: usize| refused(&format!("{address}:{}", 40_000 + number), "10.0.0.9:5432");
    let ticks = watched((0..4).map(|number| from("10.0.3.8", number)));
    assert_eq!(statuses(&ticks), [Status::Ok, Status::Ok, Status::Warning, Status::Warning]);
    let summary = &ticks[2].diagnosis.summary;
    assert!(
        summary.starts_with("1 connection attempt to port 5432 refused")
            && summary.contains("(3 times in the last 9 s)"),
        "{summary}"
    );
    assert_eq!(ticks[2].episodes[0].since.mono, ticks[0].at.mono - WINDOW);
    let others = (0..6).map(|number| from(&format!("198.51.100.{number}"), 0));
    assert_eq!(worst(others), Status::Ok, "each once");
    let here = |number: usize| refused(&format!("127.0.0.1:{}", 40_000 + number), "127.0.0.1:5432");
    assert_eq!(worst((0..3).map(here)), Status::Ok, "until the service has started");
    assert_eq!(worst((0..5).map(here)), Status::Warning, "a program of this host that tries every three seconds");
    let seldom = (0..9).map(|number| if number % 3 == 0 { here(number) } else { quiet() });
    assert_eq!(worst(seldom), Status::Ok, "one that asks every nine");
}

/// It reads a request and closes without an answer, in each window; the sockets of all of them are in TIME_WAIT.
fn unanswered(number: u32) -> Case {
    let used = PortUse { by_state: [(TcpState::TimeWait, u64::from(number) + 1)].into(), ..PortUse::default() };
    let look = SocketDump { ports: [(9000, used)].into(), ..SocketDump::default() };
    let case = quiet().counter("Tcp.PassiveOpens", 0, 1).counter("Tcp.ActiveOpens", 0, 0);
    let case = case.socket_dump(SocketDump::default(), look).destroyed_sockets(1, ["10.0.0.9:9000", CLIENT], 0, 0);
    let mut case = case.each_destroyed(|socket| {
        (socket.bytes_received, socket.bytes_sent, socket.unacknowledged) = (Some(80), Some(0), 0);
        (socket.data_received_ms, socket.data_sent_ms) = (20, 20);
    });
    case.netns.after.dumped = case.netns.after.at;
    case
}

#[test]
fn requests_without_an_answer_add_up_as_well() {
    let ticks = watched((0..4).map(unanswered));
    assert_eq!(statuses(&ticks), [Status::Ok, Status::Ok, Status::Warning, Status::Warning]);
    let summary = &ticks[2].diagnosis.summary;
    let said = "app (pid 977) on port 9000 closed 1 request without a byte of an answer, in 3 s (all 3 requests in the last 9 s)";
    assert!(summary.starts_with(said), "{summary}");
    assert_eq!(ticks[2].episodes[0].since.mono, ticks[0].at.mono - WINDOW);
    // The look at all sockets is older than all but one of them.
    let stale = (0..4).map(|number| {
        let mut case = unanswered(number);
        case.netns.after.dumped.mono = case.netns.after.at.mono - WINDOW * number;
        case
    });
    assert_eq!(worst(stale), Status::Ok, "who closed first was not seen");
}
