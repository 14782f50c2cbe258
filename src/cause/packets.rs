//! Causes as a capture shows them: what is read from its connections, by cause and place. What packets do not show is not
//! checked, and what they do not tell apart is said.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::numbers::{Confidence, packets as numbers};
use super::{Cause, EvidenceItem, Finding, Impact, Judgement, Remedy, Severity, State, Subject, SubjectKind, Verdict};
use super::{by_id, severity};
use crate::capture::flows::Service;
use crate::capture::{Alike, Flow, Flows, Phase, Place, Reading, Side, Story, Sure, Told, alike};
use crate::evidence::Evidence;
use crate::evidence::harm::Harm;
use crate::value::Missing;
use crate::value::words::counted;

const SOURCE: &str = "capture";
/// Connections of one place that are told one by one.
const EXAMPLES: usize = 3;
/// Places of one cause that stand by themselves.
const PLACES: usize = 10;

/// A connection and what is read from it.
type Example<'a> = (&'a Told, &'a Reading);

/// Judges a cause by the connections of a capture.
///
/// # Errors
/// Packets do not show it, or nobody can tell it from what they show.
pub fn judge(cause: &Cause, e: &Evidence<'_>, flows: &Flows) -> Judgement {
    let mut places: BTreeMap<Alike, Vec<Example<'_>>> = BTreeMap::new();
    let readings = || flows.told.iter().flat_map(|told| told.readings.iter().map(move |reading| (told, reading)));
    for (told, reading) in readings().filter(|(_, reading)| reading.story.cause() == Some(cause.id)) {
        places.entry(alike(&told.flow, reading)).or_default().push((told, reading));
    }
    if !places.is_empty() {
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|(alike, all)| std::cmp::Reverse(count(flows, *alike, all)));
        let findings = places.iter().take(PLACES).map(|(alike, all)| finding(cause, e, flows, *alike, all));
        return Ok(Verdict::Found(findings.collect()));
    }
    if flows.segments == 0 {
        return Err(missing("it holds no packet of TCP"));
    }
    let candidate = readings().filter(|(_, reading)| !reading.harmless).find(|(_, r)| r.others.contains(&cause.id));
    if let Some((told, reading)) = candidate {
        let (initiator, acceptor) = (flows.name(told.flow.initiator), flows.name(told.flow.acceptor));
        let why = format!("{initiator} > {acceptor} ({}) may be this: packets do not tell", reading.story.words());
        return Err(missing(why));
    }
    let fails = |told: &Told| told.flow.reset_count() > 0 || told.readings.iter().any(|reading| !reading.harmless);
    if !flows.told.iter().any(fails) {
        return Err(missing(
            "no connection of the capture failed: what fails elsewhere, or failed before, it does not tell",
        ));
    }
    let of_silence = Story::ALL.iter().any(|story| story.is_of_silence() && story.cause() == Some(cause.id));
    if flows.silent > 0 && of_silence {
        let open = counted(flows.silent, "connection");
        return Err(missing(format!(
            "{open} open and silent at the end: whether the other side still knows them shows when they are used"
        )));
    }
    // Only a story that is sure leaves no other; what refuses a connect is told by those of connects.
    let of_connects = [Story::Refused, Story::Unanswered, Story::Scanned];
    let about_connects = of_connects.iter().any(|story| story.cause() == Some(cause.id));
    let open = |told: &&Told| {
        let later = told.flow.resets.iter().any(|rst| rst.phase != Phase::Refused);
        later && !told.readings.iter().any(|reading| reading.sure == Sure::Surely)
    };
    let open = flows.told.iter().filter(open).count() as u64;
    if open > 0 && !about_connects && shows(cause) {
        let why = format!("{} reset: why, packets do not tell for sure", counted(open, "connection"));
        return Err(missing(why));
    }
    match shows(cause) {
        true => Ok(Verdict::RuledOut("no connection of the capture shows it".to_owned())),
        false => Err(missing("packets do not show it")),
    }
}

/// Packets can show it.
fn shows(cause: &Cause) -> bool {
    Story::ALL.iter().any(|story| story.cause() == Some(cause.id))
}

fn missing(why: impl Into<String>) -> Missing {
    let needs = "the host itself: rstdoctor scan, or a recording of it".to_owned();
    Missing { source: SOURCE, reason: why.into(), needs: Some(needs) }
}

/// Those that are kept, and those that are only counted.
fn count(flows: &Flows, alike: Alike, all: &[Example<'_>]) -> u64 {
    all.len() as u64 + flows.further.get(&alike).copied().unwrap_or(0)
}

/// Connections to the service that failed, for whatever reason.
fn failed(flows: &Flows, service: SocketAddr) -> u64 {
    let fails = |told: &&Told| told.flow.acceptor == service && told.readings.iter().any(|reading| !reading.harmless);
    let of_it = |(_, harmless, place): &Alike| !harmless && *place == Place::Service(service);
    let further: u64 = flows.further.iter().filter(|(alike, _)| of_it(alike)).map(|(_, count)| count).sum();
    flows.told.iter().filter(fails).count() as u64 + further
}

fn finding(
    cause: &Cause,
    e: &Evidence<'_>,
    flows: &Flows,
    (story, harmless, place): Alike,
    all: &[Example<'_>],
) -> Finding {
    let count = count(flows, (story, harmless, place), all);
    let harm = match place {
        Place::Service(service) => {
            let seen = |service: &Service| service.connections.saturating_sub(service.let_go);
            let attempts = flows.services.get(&service).map_or(count, seen);
            let in_all = failed(flows, service);
            Harm { attempts: Some(attempts.max(count)), in_all: in_all.max(count), ..Harm::of_unknown(count) }
        }
        Place::Source(_) => Harm::of_unknown(count),
    };
    let severity = if harmless { Severity::Info } else { severity(e, &harm) };
    let summary = match place {
        Place::Service(service) => {
            format!("{} to {}: {}", harm.counted("connection"), flows.name(service), story.words())
        }
        Place::Source(source) => format!("{} from {source}: {}", counted(count, "connection"), story.words()),
    };
    let sure = all.iter().map(|(_, reading)| reading.sure).min().unwrap_or(Sure::Perhaps);
    let impact = Impact { events: count, per_s: e.rate(count), unit: "connections" };
    let state = if harmless { State::Benign } else { State::Active };
    let mut finding =
        Finding::new(state, severity, confidence(sure), impact, summary).subjects(subjects(flows, place, count, all));
    for (told, reading) in all.iter().take(EXAMPLES) {
        finding = finding.evidence(EvidenceItem::fact(SOURCE, story.name(), line(flows, &told.flow, reading)));
    }
    if !harmless && matches!(place, Place::Service(_)) {
        finding = finding.harm(harm);
    }
    if let Some((_, reading)) = all.iter().find(|(_, reading)| reading.open.is_some() || !reading.others.is_empty()) {
        let others: Vec<_> = reading.others.iter().filter_map(|id| by_id(id)).map(|cause| cause.id).collect();
        let text = match (reading.open, others.is_empty()) {
            (Some(open), true) => format!("a capture does not tell {open}"),
            (Some(open), false) => format!("a capture does not tell {open}: it may also be {}", others.join(", ")),
            (None, _) => format!("it may also be {}", others.join(", ")),
        };
        finding = finding.against(EvidenceItem::fact(SOURCE, "others", text));
    }
    finding.remedy(remedy(cause, story, all))
}

/// A capture is taken because something fails: what fails a tenth of a service's connections is worth a warning however few they
/// are.
fn severity(e: &Evidence<'_>, harm: &Harm) -> Severity {
    let share = harm.share().unwrap_or(1.0);
    let least = if share >= numbers::SIZABLE { Severity::Warning } else { Severity::Info };
    severity::to_clients(e, harm).min(least)
}

fn confidence(sure: Sure) -> Confidence {
    match sure {
        Sure::Surely => numbers::SURELY,
        Sure::Likely => numbers::LIKELY,
        Sure::Perhaps => numbers::PERHAPS,
    }
}

/// The address, unless it only stands for a name.
fn known(flows: &Flows, address: IpAddr) -> Option<IpAddr> {
    (!flows.names.contains_key(&address)).then_some(address)
}

/// Service, then the most frequent clients.
fn subjects(flows: &Flows, place: Place, count: u64, all: &[Example<'_>]) -> Vec<Subject> {
    let mut subjects = Vec::new();
    match place {
        Place::Service(service) => {
            let called = all.iter().all(|(told, _)| flows.here(&told.flow) == Some(Side::Initiator));
            let kind = if called { SubjectKind::Peer } else { SubjectKind::Listener };
            let address = known(flows, service.ip());
            let service = Subject { address, port: Some(service.port()), ..Subject::new(kind) };
            subjects.push(service.counted(count));
            let mut clients: BTreeMap<IpAddr, u64> = BTreeMap::new();
            all.iter().for_each(|(told, _)| *clients.entry(told.flow.initiator.ip()).or_default() += 1);
            let mut clients: Vec<_> = clients.into_iter().collect();
            clients.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let clients = clients.into_iter().filter(|(client, _)| known(flows, *client).is_some());
            subjects.extend(clients.take(EXAMPLES).map(|(client, n)| Subject::peer(client, None).counted(n)));
        }
        Place::Source(source) => subjects.push(Subject::peer(source, None).counted(count)),
    }
    subjects
}

/// `10.0.0.9:40000 > 10.0.0.1:80, in the transfer: ...`.
fn line(flows: &Flows, flow: &Flow, reading: &Reading) -> String {
    let phase = reading.phase.map_or(String::new(), |phase| format!(", {}", phase.words()));
    let because = reading.because.join("; ");
    let why = if because.is_empty() { reading.story.words().to_owned() } else { because };
    format!("{} > {}{phase}: {why}", flows.name(flow.initiator), flows.name(flow.acceptor))
}

fn remedy(cause: &Cause, story: Story, all: &[Example<'_>]) -> Remedy {
    const GONE: &str = "a new capture has no such connection";
    let of = |text: String| Remedy::new(text, GONE);
    let error = all.iter().find_map(|(told, _)| told.flow.error.as_deref()).map(|(_, error)| error);
    match (story, error) {
        (Story::WrongProtocol, _) => {
            of("Let the client speak the protocol of this port, or call the port of its own protocol".to_owned())
        }
        (Story::Passed, _) => {
            of("Ask the device that says so, and look on its other side: it makes or passes on the reset".to_owned())
        }
        (Story::NoRoute, Some(error)) => of(format!(
            "Give {} a route to {} (ip route get there), or take it off the way",
            error.reporter,
            error.destination.ip()
        )),
        (Story::TurnedAway, _) => of(
            "Read the program's log at this time: it names its limit (MaxStartups, max_connections, an unknown peer); raise it there"
                .to_owned(),
        ),
        _ => of(cause.what_to_change()),
    }
}
