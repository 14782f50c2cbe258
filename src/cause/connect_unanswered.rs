use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::firewall_reject::{self, Family};
use super::numbers::connect_unanswered as numbers;
use super::{EvidenceItem, Finding, Judgement, Remedy, Subject, Verdict, Verify};
use super::{place, severity, wording};
use crate::attribution::wire::NoWay;
use crate::evidence::Evidence;
use crate::evidence::harm::Target;
use crate::source::socket_dump::{Group, GroupKind};
use crate::value::shell::ShellCommand;
use crate::value::{Missing, words};

cause! {
    /// ## What happens
    ///
    /// A program on this host connects, and nothing comes back: a firewall drops the SYNs, the host is down, or its accept queue
    /// is full. connect() waits (127 s with `net.ipv4.tcp_syn_retries` at its default 6) and ends with "Connection timed out",
    /// or the program gives up before. Where a router or this host itself finds the address out of reach, it is "No route to
    /// host". No RST is sent.
    ///
    /// ## How it shows
    ///
    /// `TcpExt.TCPSynRetrans` grows; `ss -tn state syn-sent` shows the same sockets for seconds. `Tcp.AttemptFails` grows only
    /// where the kernel gives up, not where the program does.
    ///
    /// ## How to confirm
    ///
    /// `nc -vz -w 3 HOST PORT` from here; `tcpdump -ni any 'host HOST and port PORT'` on the host that is called shows whether
    /// the SYNs arrive. `ip neigh show HOST` says FAILED where nobody answers on the own network.
    ///
    /// ## What to change
    ///
    /// Start the host, let the firewall accept the port, or make the server accept faster (accept-queue-overflow, seen there).
    ///
    /// ## Look-alikes
    ///
    /// A firewall that rejects answers at once (firewall-reject). Single SYNs are lost on every path, and their connects succeed
    /// after a second. On the side of the server packets that a rule drops cannot be seen: only the caller knows.
    CONNECT_UNANSWERED {
        id: "connect-unanswered",
        title: "Connects get no answer",
        explains: ["retransmission-timeout"],
        needs: [Window, Netstat, Sockets],
        judge: judge,
    }
}

const UNIT: &str = "unanswered connects";

/// What is known of the connects to one destination.
#[derive(Default)]
struct Silence<'a> {
    /// Connects that ended, and that wait now.
    ended: u64,
    waiting: u64,
    /// Of those that ended: since the look at all sockets, which may be older than the window; they may be among those that wait in it.
    ended_since: u64,
    /// ICMP errors that say that there is no way.
    no_way: Vec<&'a NoWay>,
}

impl Silence<'_> {
    fn count(&self) -> u64 {
        let told: u64 = self.no_way.iter().map(|no_way| no_way.count).sum();
        (self.ended + self.waiting).max(told)
    }
}

fn judge(e: &Evidence<'_>) -> Judgement {
    e.require_window()?;
    let again = e.counter("TcpExt.TCPSynRetrans");
    let mut silences: BTreeMap<SocketAddr, Silence<'_>> = BTreeMap::new();
    for ended in e.ended().unwrap_or_default().iter().filter(|ended| ended.socket.unanswered) {
        // A local abort takes the destination along.
        let Some(called) = ended.called.filter(|called| called.port() != 0) else { continue };
        let silence = silences.entry(called).or_default();
        silence.ended += 1;
        silence.ended_since += u64::from(ended.socket.at > e.looked_at());
    }
    let waiting = e.groups(GroupKind::Unanswered);
    for group in waiting.iter().flatten() {
        for (peer, count) in group.by_peer() {
            silences.entry(peer).or_default().waiting += count;
        }
    }
    for silence in silences.values_mut() {
        silence.waiting = silence.waiting.saturating_sub(silence.ended_since);
    }
    for no_way in e.wire().map(|wire| &wire.no_way).into_iter().flatten().filter(|no_way| is_ours(e, no_way)) {
        silences.entry(no_way.called).or_default().no_way.push(no_way);
    }
    let own_errors = firewall_reject::own_errors(e);
    // An ICMP error is an answer, if the connect did not end with it because its program was in the kernel just then.
    let refused = |called: &SocketAddr| {
        e.wire().is_ok_and(|wire| wire.rejected.iter().any(|rejected| rejected.refuses_connects_to(*called)))
    };
    let mut silences: Vec<_> = silences.into_iter().filter(|(called, _)| !refused(called)).collect();
    silences.sort_by_key(|(_, silence)| std::cmp::Reverse(silence.count()));
    // The others ended at once.
    let waited: u64 = silences.iter().map(|(_, silence)| silence.count()).sum();
    if let Some(own_errors) = own_errors.filter(|own_errors| *own_errors > waited) {
        let called = silences.first().filter(|_| silences.len() == 1).map(|(called, _)| *called);
        return Ok(Verdict::Found(vec![by_own_errors(e, own_errors, called)?]));
    }
    if !silences.is_empty() {
        let many = silences.len() > MOST_PLACES;
        let mut findings: Vec<_> = silences
            .iter()
            .take(MOST_PLACES)
            .map(|(called, silence)| at_a_place(e, *called, silence, own_errors))
            .collect();
        if many {
            findings.push(elsewhere(e, &silences[MOST_PLACES..]));
        }
        return Ok(Verdict::Found(findings));
    }
    let again = again?;
    if again.delta == 0 {
        return Ok(Verdict::RuledOut(
            "no SYN of this host was sent again; what a rule here drops only the callers see".into(),
        ));
    }
    // Answers to SYNs are counted there as well.
    let timed_out = e.estimate().map(|counted| counted.connect_timeouts).unwrap_or_default();
    if timed_out > 0 {
        return Ok(Verdict::Found(vec![by_counters(e, timed_out)?]));
    }
    match (waiting, e.endings()) {
        (Ok(_), Ok(endings)) if endings.ended_early.is_none() && endings.gaps == 0 => Ok(Verdict::RuledOut(
            "each connect whose SYN was sent again was answered, or it was an answer that was sent again".into(),
        )),
        (Err(missing), _) | (_, Err(missing)) => Err(missing),
        _ => Err(Missing::new("destroyed_sockets", "not every connection that ended was seen")),
    }
}

/// Destinations that are reported one by one.
const MOST_PLACES: usize = 5;

/// A router also tells others; its own sockets say nothing about them.
fn is_ours(e: &Evidence<'_>, no_way: &NoWay) -> bool {
    !no_way.own || e.moved("Tcp.ActiveOpens") > 0 || e.moved("Tcp.AttemptFails") > 0
}

fn at_a_place(e: &Evidence<'_>, called: SocketAddr, silence: &Silence<'_>, own_errors: Option<u64>) -> Finding {
    let count = silence.count();
    let window = words::seconds(e.window());
    let callers = place::callers(e, called);
    let who = callers.first().and_then(Subject::label).map_or_else(String::new, |caller| format!(" of {caller}"));
    let connects = words::counted(count, "connect");
    let summary = match silence.no_way.first() {
        Some(no_way) if no_way.own => format!("{connects}{who} to {called} found nobody there in {window}"),
        Some(no_way) => {
            format!("{connects}{who} to {called} failed in {window}: {} knows no way there", no_way.reporter)
        }
        None => format!("{connects}{who} to {called} got no answer in {window}"),
    };
    let harm = severity::lately(e, CONNECT_UNANSWERED.id, e.harm(Target::Called(called), count, None));
    let severity = severity::to_callers(e, &harm);
    // Those that waited before are not new.
    let new = count.saturating_sub(waited_before(e, called).min(silence.ended + silence.waiting));
    let mut finding = wording::active(e, severity, numbers::SILENT, count, UNIT, summary)
        .standing(silence.waiting.min(count))
        .subject(Subject::peer(called.ip(), Some(called.port())).counted(count))
        .subjects(callers);
    finding.impact.per_s = e.rate(new);
    for no_way in &silence.no_way {
        let text = if no_way.own {
            "this host itself says \"host unreachable\": no neighbour answers for the address, or there is no route"
                .to_owned()
        } else {
            format!(
                "{} says by ICMP that the host or its network is unreachable: it is the last hop that lives",
                no_way.reporter
            )
        };
        finding = finding.evidence(EvidenceItem::value("reset_packets", "unreachable", no_way.count as f64, text));
    }
    if silence.ended > 0 {
        let text = format!(
            "{} ended after {} SYN was sent again and nothing had come back",
            words::thousands(silence.ended),
            if silence.ended == 1 { "its" } else { "their" }
        );
        finding = finding.evidence(EvidenceItem::value("destroyed_sockets", "unanswered", silence.ended as f64, text));
    }
    if silence.waiting > 0 {
        let text = match silence.waiting {
            1 => "1 waits now in SYN_SENT, and its SYN was sent again".to_owned(),
            many => format!("{} wait now in SYN_SENT, and their SYN was sent again", words::thousands(many)),
        };
        finding = finding.evidence(EvidenceItem::value("sockets", "SYN_SENT", silence.waiting as f64, text));
    }
    if let Ok(again) = e.counter("TcpExt.TCPSynRetrans")
        && again.delta > 0
    {
        finding = finding.evidence(wording::moved(&again, "SYNs that were sent again, and answers to SYNs"));
    }
    let finding = finding.evidence_if(own_errors.map(told_itself));
    with_remedies(answers_others(e, called, finding.harm(harm)), called, silence, own_errors)
}

/// Connects to a destination that waited in vain already when the window began.
fn waited_before(e: &Evidence<'_>, called: SocketAddr) -> u64 {
    let groups = e.socket_dump_before().map_or(&[][..], |dump| &dump.groups);
    let waiting = groups.iter().filter(|group| group.kind == GroupKind::Unanswered).flat_map(Group::by_peer);
    waiting.filter(|(peer, _)| *peer == called).map(|(_, count)| count).sum()
}

/// What counters alone say of errors that this host sent to itself.
fn told_itself(own_errors: u64) -> EvidenceItem {
    let text = format!(
        "{} sent by this host to itself: no neighbour answers for an address, or a reject rule of its output chain",
        words::counted(own_errors, "ICMP error")
    );
    EvidenceItem::value("snmp", "Icmp.OutDestUnreachs", own_errors as f64, text)
}

/// Whether the same host, or the same service, answers others.
fn answers_others(e: &Evidence<'_>, called: SocketAddr, finding: Finding) -> Finding {
    let open: BTreeSet<SocketAddr> = e
        .groups(GroupKind::Established)
        .unwrap_or_default()
        .into_iter()
        .filter(|group| !group.accepted)
        .flat_map(|group| &group.samples)
        .map(|sample| sample.peer)
        .filter(|peer| peer.ip() == called.ip())
        .collect();
    let text = if open.contains(&called) {
        "others to the same address and port are open: its accept queue is full, or one of several servers is down"
    } else if let Some(other) = open.first() {
        return finding.evidence(EvidenceItem::fact(
            "sockets",
            "ESTABLISHED",
            format!("the host is up: there is an open connection to {other}"),
        ));
    } else {
        return finding;
    };
    finding.evidence(EvidenceItem::fact("sockets", "ESTABLISHED", text))
}

/// Small destinations together.
fn elsewhere(e: &Evidence<'_>, rest: &[(SocketAddr, Silence<'_>)]) -> Finding {
    let count = rest.iter().map(|(_, silence)| silence.count()).sum::<u64>();
    let summary = format!(
        "{} to {} got no answer in {}",
        words::counted(count, "connect"),
        words::counted(rest.len() as u64, "more destination"),
        words::seconds(e.window())
    );
    let waiting = rest.iter().map(|(_, silence)| silence.waiting).sum::<u64>();
    wording::active(e, severity::refusals(e, count), numbers::SILENT, count, UNIT, summary)
        .standing(waiting.min(count))
        .subjects(rest.iter().take(3).map(|(called, _)| Subject::peer(called.ip(), Some(called.port()))))
        .remedy(waiting_now())
}

fn by_counters(e: &Evidence<'_>, timed_out: u64) -> Result<Finding, Missing> {
    let again = e.counter("TcpExt.TCPSynRetrans")?;
    let summary = format!(
        "{} of programs on this host got no answer in {}",
        words::counted(timed_out, "connect"),
        words::seconds(e.window())
    );
    let severity = severity::refusals(e, timed_out);
    Ok(wording::active(e, severity, numbers::COUNTED, timed_out, UNIT, summary)
        .subject(Subject::host())
        .evidence(wording::moved(&again, "SYNs that were sent again, and answers to SYNs"))
        .against(EvidenceItem::fact("sockets", "SYN_SENT", "whom they called was not seen"))
        .remedy(waiting_now()))
}

/// Connects that ended with an error of this host's own kernel; `called`: to whom some of them wait, where that is one.
fn by_own_errors(e: &Evidence<'_>, own_errors: u64, called: Option<SocketAddr>) -> Result<Finding, Missing> {
    let failed = e.estimate()?.refused_connects.min(own_errors);
    let summary = format!(
        "{} of programs on this host failed in {}: no neighbour answers, or a reject rule of its output chain",
        words::counted(failed, "connect"),
        words::seconds(e.window())
    );
    Ok(wording::active(e, severity::refusals(e, failed), numbers::OWN_ERRORS, failed, UNIT, summary)
        .subject(called.map_or_else(Subject::host, |called| Subject::peer(called.ip(), Some(called.port()))))
        .evidence(told_itself(own_errors))
        .against(EvidenceItem::fact("reset_packets", "packets", "which of the two is told by the packets only"))
        .remedy(
            Remedy::new(
                "See which neighbour does not answer: start that host, or correct the address",
                "no address is FAILED or INCOMPLETE",
            )
            .command(ShellCommand::new("ip neigh show").pipe(ShellCommand::new("grep -E").arg("FAILED|INCOMPLETE"))),
        )
        .remedy(firewall_reject::find_rule("output", Family::Either)))
}

fn waiting_now() -> Remedy {
    Remedy::new("See which connects wait, and which program makes them", "no socket stays in SYN_SENT")
        .command(ShellCommand::new("ss -tnpo state syn-sent"))
}

fn with_remedies(finding: Finding, called: SocketAddr, silence: &Silence<'_>, own_errors: Option<u64>) -> Finding {
    let connects = Verify::by(ShellCommand::new("nc -vz -w 3").arg(called.ip()).arg(called.port()), "connects at once");
    let (text, look) = match silence.no_way.iter().max_by_key(|no_way| no_way.own) {
        Some(no_way) if no_way.own => (
            format!("Start the host {}, or correct the address; see whether a neighbour answers for it", called.ip()),
            ShellCommand::new("ip neigh show").arg(called.ip()),
        ),
        Some(no_way) => (
            format!(
                "Find out on {} why it knows no way to {}: a route is missing there, or the host behind it is down",
                no_way.reporter,
                called.ip()
            ),
            ShellCommand::new("ip route get").arg(called.ip()),
        ),
        None if own_errors.is_some() => (
            format!(
                "See whether a neighbour answers for {}: if not, start that host or correct the address",
                called.ip()
            ),
            ShellCommand::new("ip neigh show").arg(called.ip()),
        ),
        None => (
            format!(
                "Look on {} whether the SYNs arrive: if not, a firewall (this host's own output rules, too) or a dead host on the \
                 way",
                called.ip()
            ),
            ShellCommand::new("tcpdump -ni any").arg(("tcp[tcpflags] & tcp-syn != 0 and port ", called.port())),
        ),
    };
    let finding = finding.remedy(Remedy::new(text, connects).command(look));
    if !silence.no_way.is_empty() {
        return finding;
    }
    if own_errors.is_some() {
        return finding.remedy(firewall_reject::find_rule("output", Family::of(called.ip())));
    }
    finding.remedy(
        Remedy::new(
            "If they arrive there and are not answered: its firewall drops them, or its accept queue is full",
            "no counter of the two grows",
        )
        .command(
            ShellCommand::new("nstat -az TcpExtListenOverflows TcpExtListenDrops")
                .then(ShellCommand::new("nft list ruleset").pipe(ShellCommand::new("grep -n drop"))),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use crate::observation::testing::{Case, group};
    use crate::source::socket_dump::SocketDump;
    use crate::value::Observed;

    const ENDS: [&str; 2] = ["10.0.0.9:0", "10.0.7.1:5432"];

    fn quiet() -> Case {
        Case::new().counter("TcpExt.TCPSynRetrans", 70, 0).socket_dump(SocketDump::default(), SocketDump::default())
    }

    fn dropped(count: u16) -> Case {
        let mut case = quiet().counter("TcpExt.TCPSynRetrans", 70, count.into()).destroyed_sockets(count, ENDS, 0, 1);
        if let Observed::Full(sockets) = &mut case.destroyed {
            sockets.iter_mut().for_each(|socket| socket.unanswered = true);
        }
        case
    }

    #[test]
    fn connects_to_which_nothing_came_back_name_their_destination() {
        let finding = dropped(20).finding(&CONNECT_UNANSWERED);
        assert_eq!((finding.severity, finding.impact.events), (Severity::Critical, 20), "all of them");
        assert_eq!(finding.subjects[0].port, Some(5432));
        assert!(finding.summary.contains("10.0.7.1:5432 got no answer"), "{}", finding.summary);
    }

    #[test]
    fn those_that_wait_now_are_counted_too() {
        let mut waiting = group(GroupKind::Unanswered, 5432, 12, 1, 0);
        waiting.accepted = false;
        waiting.samples.iter_mut().for_each(|sample| sample.peer = "10.0.7.1:5432".parse().expect("address"));
        let dump = SocketDump { groups: vec![waiting], ..SocketDump::default() };
        let finding = dropped(4).socket_dump(SocketDump::default(), dump).finding(&CONNECT_UNANSWERED);
        assert_eq!(finding.impact.events, 16);
    }

    /// `count` connects that wait in SYN_SENT.
    fn waiting(count: u64) -> SocketDump {
        let mut waiting = group(GroupKind::Unanswered, 5432, count, 1, 0);
        waiting.accepted = false;
        waiting.samples.iter_mut().for_each(|sample| sample.peer = "10.0.7.1:5432".parse().expect("address"));
        SocketDump { groups: vec![waiting], ..SocketDump::default() }
    }

    /// A row of windows counts each of them once: those that wait are there in the next, too, until they end.
    #[test]
    fn those_that_wait_on_are_not_new() {
        let finding = dropped(4).socket_dump(waiting(12), waiting(12)).finding(&CONNECT_UNANSWERED);
        assert_eq!((finding.impact.events, finding.passing(), finding.standing), (16, 4, 12));
        let per_s =
            |before: SocketDump| dropped(4).socket_dump(before, waiting(12)).finding(&CONNECT_UNANSWERED).impact.per_s;
        assert!((per_s(SocketDump::default()) - 4.0 * per_s(waiting(12))).abs() < 0.001, "16 new ones, and 4");
    }

    /// The look at all sockets is from before the window: those that ended since were among them.
    #[test]
    fn who_ended_after_the_latest_look_waits_no_more() {
        let mut case = dropped(4).socket_dump(waiting(12), waiting(12));
        case.netns.after.dumped = case.netns.before.at;
        let start = case.netns.before.at.mono;
        let case = case.each_destroyed(|socket| socket.at = start + std::time::Duration::from_millis(1));
        let finding = case.finding(&CONNECT_UNANSWERED);
        assert_eq!((finding.impact.events, finding.standing), (12, 8));
    }

    #[test]
    fn syns_that_were_sent_again_and_answered_are_not_this() {
        let case = quiet().counter("TcpExt.TCPSynRetrans", 70, 9).destroyed_sockets(9, ENDS, 0, 0);
        assert!(case.is_ruled_out(&CONNECT_UNANSWERED));
    }

    #[test]
    fn by_counters_only_the_number_is_known() {
        let case = Case::new()
            .counter("Tcp.OutRsts", 0, 0)
            .counter("Tcp.AttemptFails", 0, 9)
            .counter("TcpExt.TCPAbortOnTimeout", 0, 9)
            .counter("TcpExt.TCPTimeouts", 0, 60)
            .counter("TcpExt.TCPSynRetrans", 0, 50);
        let finding = case.finding(&CONNECT_UNANSWERED);
        assert_eq!(finding.impact.events, 9);
    }

    #[test]
    fn without_the_counter_nothing_is_claimed() {
        assert_eq!(Case::new().missing(&CONNECT_UNANSWERED), Some("netstat"));
    }
}
