//! A recording of what a live view saw in the last minutes, made after the fact.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::common::isolated;
use rstdoctor::ask::Host;
use rstdoctor::diagnosis::filter::Filter;
use rstdoctor::kernel::LiveHost;
use rstdoctor::observation::Observation;
use rstdoctor::recording::write::RecordError;
use rstdoctor::recording::{ReplayHost, RollingHost};
use rstdoctor::session::Plan;
use rstdoctor::source::reset_events::{Caller, Direction, ResetEvent};
use rstdoctor::timeline::{Driver, Next, Tick};

const INTERVAL: Duration = Duration::from_millis(200);

fn ticks(host: &mut dyn Host, plan: &Plan, most: usize, mut between: impl FnMut(usize)) -> Vec<Tick> {
    let mut driver = Driver::start(host, plan, INTERVAL, Filter::default()).expect("something to observe");
    let mut ticks = Vec::new();
    between(0);
    while ticks.len() < most {
        if ticks.len() + 1 == most {
            driver.sweep_next();
        }
        match driver.advance() {
            Next::Looked => {}
            Next::Tick(tick) => {
                ticks.push(*tick);
                between(ticks.len());
            }
            Next::Over => break,
        }
    }
    ticks
}

/// Ten connections closed with unread data.
fn fault(listener: &TcpListener) {
    for _ in 0..10 {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[1; 100]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        drop(server);
    }
}

fn sent(tick: &Tick) -> (Option<u64>, Option<u64>) {
    let sent = &tick.diagnosis.ledger.sent;
    (sent.total.clone().ok(), sent.unexplained())
}

#[test]
fn what_was_seen_can_be_saved_and_played() {
    isolated(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("saved.rst");
        let listener = TcpListener::bind("127.0.0.1:9000").expect("a free port");
        let mut host = RollingHost::new(LiveHost::new(Arc::default()));
        let history = host.history();
        assert!(matches!(history.save(&file), Err(RecordError::Empty)), "nothing was seen yet");
        let endless = Plan { length: Duration::MAX, ..Plan::scan(INTERVAL) };
        let live = ticks(&mut host, &endless, 6, |done| {
            if done % 2 == 1 {
                fault(&listener);
            }
        });
        let covered = history.save(&file).expect("a recording");
        // Ticks stay on their grid, but a late first one shortens what follows it.
        assert!(covered >= 4 * INTERVAL, "{covered:?}");
        assert!(matches!(history.save(&file), Err(RecordError::Exists { .. })), "nothing is overwritten");

        let mut recording = ReplayHost::open(&file).expect("a sound recording");
        let window = recording.windows().first().expect("a window").planned;
        let played = ticks(&mut recording, &Plan::scan(window), usize::MAX, |_| ());
        assert!(played.len() >= 5, "{}", played.len());
        for (then, now) in live.iter().rev().zip(played.iter().rev()) {
            assert_eq!(sent(then), sent(now));
            let ids = |tick: &Tick| tick.diagnosis.causes.iter().map(|cause| cause.id).collect::<Vec<_>>();
            assert_eq!(ids(then), ids(now), "tick {}", then.number);
        }
        let whole = rstdoctor::session::observe(&mut ReplayHost::open(&file).unwrap(), &Plan::scan(window)).unwrap();
        let diagnosis = rstdoctor::diagnosis::diagnose(whole.view().unwrap());
        assert_eq!(diagnosis.causes.first().map(|cause| cause.id), Some("close-with-unread-data"));
        assert_eq!(diagnosis.ledger.sent.unexplained(), Some(0));
        assert_eq!((lost(&whole), sent_resets(&whole).count()), (0, 30));
    });
}

fn lost(observation: &Observation) -> u64 {
    observation.host.reset_events.value().expect("events").lost
}

fn sent_resets(observation: &Observation) -> impl Iterator<Item = &ResetEvent> {
    let resets = observation.view().expect("a namespace").netns.resets.single.iter();
    resets.filter_map(|reset| reset.event.as_ref()).filter(|event| event.direction == Direction::Sent)
}

/// What came before the part that is saved is in none of its counts, and what was said once, before it, is known in it.
#[test]
fn a_saved_recording_stands_for_itself() {
    isolated(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("saved.rst");
        let listener = TcpListener::bind("127.0.0.1:9000").expect("a free port");
        let mut host = RollingHost::new(LiveHost::new(Arc::default()));
        let history = host.history();
        let endless = Plan { length: Duration::MAX, ..Plan::scan(INTERVAL) };
        // In the first tick, with which the recording begins, and at the very end.
        let live = ticks(&mut host, &endless, 6, |done| {
            if [0, 5].contains(&done) {
                fault(&listener);
            }
        });
        assert_eq!(sent(&live[0]), (Some(10), Some(0)));
        history.save(&file).expect("a recording");
        let mut recording = ReplayHost::open(&file).expect("a sound recording");
        let window = recording.windows().first().expect("a window").planned;
        let whole = rstdoctor::session::observe(&mut recording, &Plan::scan(window)).unwrap();
        assert_eq!((lost(&whole), sent_resets(&whole).count()), (0, 10));
        let own = |event: &&ResetEvent| event.local.port() == 9000;
        for event in sent_resets(&whole).filter(own).filter(|event| event.active) {
            assert_eq!(event.caller, Some(Caller::Close), "the functions were named in the first tick");
        }
        let diagnosis = rstdoctor::diagnosis::diagnose(whole.view().unwrap());
        assert_eq!(diagnosis.ledger.sent.unexplained(), Some(0));
        assert_eq!(diagnosis.ledger.sent.total, Ok(10));
        for host in [&whole.host.before, &whole.host.after] {
            assert!(host.facts.kernel.is_some(), "{:?}", host.facts);
        }
        let view = whole.view().unwrap();
        for snapshot in [view.before(), view.after()] {
            assert!(snapshot.sysctls.get("net.core.somaxconn").is_some_and(|value| value.value().is_some()));
        }
    });
}
