//! How the cost of judging grows with what has to be judged: listeners that all went away with their processes, which is what the
//! most causes and the longest lists come from. Needs no rights and no network.
//!
//! ```text
//! cargo bench --bench judge
//! ```
//!
//! For each number the time to build the evidence (which nothing can stop), to judge all causes by it, and to write the
//! report as JSON. It fails if four times as many listeners take more than eight times as long, which something quadratic
//! does, or if at the most evidence takes more than a second, all of it 5 s, or the report 1 MB.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot measure ends")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rstdoctor::diagnosis::diagnose;
use rstdoctor::evidence::Evidence;
use rstdoctor::observation::{ListenerTrace, Observation};
use rstdoctor::recording::ReplayHost;
use rstdoctor::render::json;
use rstdoctor::session::{Plan, observe};
use rstdoctor::source::listeners::Listener;
use rstdoctor::source::process::Process;
use rstdoctor::value::Observed;

const LISTENERS: [u32; 4] = [1_000, 4_000, 16_000, 64_000];
/// Of one process.
const EACH: u32 = 100;

/// Times of one number of listeners.
struct Cost {
    evidence: Duration,
    judging: Duration,
    report: Duration,
    bytes: usize,
}

impl Cost {
    fn all(&self) -> Duration {
        self.evidence + self.judging + self.report
    }
}

fn main() {
    println!("listeners   evidence    judging     report       all   report size   all, per listener");
    let costs: Vec<Cost> = LISTENERS.iter().map(|count| cost(*count)).collect();
    for pair in costs.windows(2) {
        let ratio = pair[1].all().as_secs_f64() / pair[0].all().as_secs_f64();
        println!("x4 listeners: x{ratio:.1} in all");
        // What takes a few milliseconds says little about the slope.
        assert!(ratio < 8.0 || pair[1].all() < Duration::from_millis(50), "judging grows faster than what is judged");
    }
    let most = costs.last().expect("costs");
    assert!(most.evidence < Duration::from_secs(1), "a stop must not wait for the evidence: {:?}", most.evidence);
    assert!(most.all() < Duration::from_secs(5), "{:?}", most.all());
    assert!(most.bytes < 1_000_000, "{} bytes", most.bytes);
}

fn cost(listeners: u32) -> Cost {
    let observation = vanished(listeners);
    let view = observation.view().expect("a namespace");
    let started = Instant::now();
    let evidence = Evidence::new(view);
    let for_evidence = started.elapsed();
    assert!(evidence.gone_listeners().len() >= listeners as usize, "all of them went away");
    drop(evidence);
    let started = Instant::now();
    let diagnosis = diagnose(view);
    // It builds its own.
    let judging = started.elapsed().saturating_sub(for_evidence);
    assert!(diagnosis.causes.iter().any(|cause| cause.id == "process-exit"), "there was something to judge");
    let started = Instant::now();
    let bytes = json::text(&json::report(&diagnosis)).expect("JSON").len();
    let cost = Cost { evidence: for_evidence, judging, report: started.elapsed(), bytes };
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!(
        "{listeners:9} {:>10} {:>10} {:>10} {:>9} {:>10} kB {:>16.1} us",
        ms(cost.evidence),
        ms(cost.judging),
        ms(cost.report),
        ms(cost.all()),
        bytes / 1000,
        cost.all().as_secs_f64() * 1e6 / f64::from(listeners)
    );
    cost
}

/// A recorded window, to which so many listeners are added that were there when it opened and not when it closed.
fn vanished(listeners: u32) -> Observation {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/process-exit/positive.rst");
    let mut recording = ReplayHost::open(&path).expect("a recording");
    let plan = Plan::scan(recording.windows().first().expect("a window").planned);
    let mut observation = observe(&mut recording, &plan).expect("a window");
    let netns = observation.netns.values_mut().next().expect("a namespace");
    let Observed::Full(before) = &mut netns.before.listeners else { panic!("the recording has listeners") };
    let (Observed::Full(owners) | Observed::Partial(owners, _)) = &mut observation.host.before.owners else {
        panic!("the recording has owners")
    };
    let owners = Arc::make_mut(owners);
    for number in 0..listeners {
        let (pid, inode) = (1_000_000 + number / EACH, 1_000_000_000 + number);
        // No two share an address and port.
        let [.., high, low] = number.to_be_bytes();
        let listener = Listener {
            address: IpAddr::V4(Ipv4Addr::new(127, 1, high, low)),
            port: 1 + u16::try_from(number % 65_535).expect("a port"),
            recv_q: 0,
            backlog: 128,
            drops: Some(0),
            device: 0,
            v6_only: false,
            inode,
            uid: 0,
            cookie: u64::from(inode),
        };
        let trace = ListenerTrace {
            last: listener.clone(),
            first: listener.clone(),
            samples: 1,
            full_samples: 0,
            max_recv_q: 0,
            drained: 0,
            in_before: true,
            in_after: false,
            last_sample: 0,
        };
        netns.listener_traces.insert(listener.cookie, trace);
        before.push(listener);
        owners.by_inode.insert(inode, vec![pid]);
        owners.processes.entry(pid).or_insert_with(|| Process {
            pid,
            name: "many".to_owned(),
            state: 'S',
            ..Process::default()
        });
    }
    observation
}
