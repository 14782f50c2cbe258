//! Every question that the program asks has a rule by which its answers are redacted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rstdoctor::ask::{Answer, Ask, Clock, Frame, Host, Probe, What};
use rstdoctor::kernel::LiveHost;
use rstdoctor::recording::{RecordingHost, ReplayHost, RollingHost};
use rstdoctor::session::{Plan, observe};
use rstdoctor::source::redactions;
use rstdoctor::value::Moment;

use super::fixture;
use crate::common::{forge, isolated};

/// Passes questions on and remembers which have been asked.
struct Listening<H> {
    inner: H,
    asked: Asked,
}

/// By key; clones share it.
#[derive(Default, Clone)]
struct Asked(Rc<RefCell<BTreeMap<String, What>>>);

impl Asked {
    /// Those for which no rule is made.
    fn without_rule(&self) -> Vec<String> {
        let asked = self.0.borrow();
        assert!(asked.len() > 20, "{:?}", asked.keys());
        let known = |what: &What| redactions().any(|rule| (rule.asks)(what));
        asked.iter().filter(|(_, what)| !known(what)).map(|(key, _)| key.clone()).collect()
    }
}

impl<H: Host> Clock for Listening<H> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        self.inner.frame(frame)
    }

    fn due(&self, asked: Duration) -> Duration {
        self.inner.due(asked)
    }
}

impl<H: Host> Probe for Listening<H> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        self.asked.0.borrow_mut().insert(ask.key(), ask.what.clone());
        self.inner.ask(ask, sink)
    }
}

#[test]
fn every_question_that_a_replay_asks_has_a_rule() {
    for id in ["close-with-unread-data", "conntrack-table-full", "fd-exhaustion"] {
        let recording = ReplayHost::read(&fixture(id)).expect("sound");
        let planned = recording.windows().first().expect("a window").planned;
        let asked = Asked::default();
        let mut host = Listening { inner: recording, asked: asked.clone() };
        observe(&mut host, &Plan::scan(planned)).expect("a window");
        assert!(asked.without_rule().is_empty(), "{id}: {:?}", asked.without_rule());
    }
}

#[test]
fn of_a_running_host_nothing_is_left_out_by_redaction() {
    isolated(|| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        client.write_all(&[1; 100]).expect("sent");
        // Closed with unread data inside the window: an event, packets and destroyed sockets.
        let closes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop((server, client));
        });
        // The rolling history asks for the processes, too.
        let asked = Asked::default();
        let host = Listening { inner: LiveHost::new(Arc::default()), asked: asked.clone() };
        let mut recorded = RecordingHost::new(RollingHost::new(host), Vec::new(), true);
        observe(&mut recorded, &Plan::scan(Duration::from_millis(900))).expect("a window");
        let bytes = recorded.finish().expect("in memory");
        closes.join().expect("closed");
        assert!(asked.without_rule().is_empty(), "{:?}", asked.without_rule());
        let kinds: Vec<What> = asked.0.borrow().values().cloned().collect();
        for what in [What::Tasks, What::Namespaces, What::ResetEvents, What::ResetPackets, What::DestroyedSockets] {
            assert!(kinds.contains(&what), "{what:?} was not asked");
        }
        let text = forge::contents(&bytes);
        let left_out = text.windows(11).filter(|words| words == b"left out by").count();
        assert_eq!(left_out, 0, "of {kinds:?}");
        drop(listener);
    });
}

#[test]
fn a_question_without_a_rule_is_left_out() {
    struct Unknown;
    impl Clock for Unknown {
        fn frame(&mut self, _: Frame) -> Option<Moment> {
            Some(Moment { mono: Duration::from_secs(1), wall: Duration::ZERO, asleep: Duration::ZERO })
        }
    }
    impl Probe for Unknown {
        fn ask(&mut self, _: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
            sink(b"secret\n");
            Answer { result: Ok(()), took: Duration::ZERO }
        }
    }
    let ask = Ask::host(What::File("/proc/net/unheard_of".to_owned()));
    let mut recorded = RecordingHost::new(Unknown, Vec::new(), true);
    recorded.frame(Frame::Before);
    let mut seen = Vec::new();
    recorded.ask(&ask, &mut |bytes| seen.extend_from_slice(bytes));
    let contents = forge::contents(&recorded.finish().expect("in memory"));
    let contents = String::from_utf8_lossy(&contents).into_owned();
    assert!(seen == b"secret\n" && contents.contains("left out by --redact") && !contents.contains("secret"));
}
