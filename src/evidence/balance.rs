//! Whether the resets that this host sent are accounted for. What was not seen cannot be ruled out: while more than a few per
//! cent of them have no explanation, the absence of events proves nothing.

use crate::evidence::Evidence;
use crate::evidence::ledger::{Account, RECORD_LOST};
use crate::evidence::share::interval;
use crate::reset::Kind;
use crate::value::Missing;
use crate::value::words::thousands;

/// Fewer than this are chance: events and counters are not read in the same instant.
pub(super) const CHANCE: u64 = 5;
/// The share that may be without explanation, one in so many.
pub(super) const ONE_IN: u64 = 20;

/// Sent RSTs that nothing accounts for, too many to rule anything out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unbalanced {
    /// RSTs without an explanation, those whose records were lost included.
    pub unexplained: u64,
    /// Of those, at most: their records were lost.
    pub lost: u64,
    /// RSTs that this host sent.
    pub sent: u64,
}

impl Unbalanced {
    /// `None` where the account balances, or where nobody counted.
    pub fn of(sent: &Account) -> Option<Self> {
        let total = sent.total.as_ref().ok().copied()?;
        let lost = sent.count_of(RECORD_LOST).min(total);
        // Their form is known, and not which of several reasons they had.
        let unclear =
            [Kind::Active, Kind::Refusal, Kind::Answer].iter().map(|kind| sent.count_of(kind.name())).sum::<u64>();
        let unexplained = sent.unexplained()?.saturating_add(lost).saturating_add(unclear).min(total);
        (unexplained >= CHANCE && unexplained.saturating_mul(ONE_IN) > total).then_some(Self {
            unexplained,
            lost,
            sent: total,
        })
    }

    /// `1,271 of 1,271 RSTs that this host sent are unexplained`
    pub fn text(self) -> String {
        let (unexplained, sent) = (thousands(self.unexplained), thousands(self.sent));
        match self.lost {
            0 => format!("{unexplained} of {sent} RSTs that this host sent are unexplained"),
            lost => format!(
                "{unexplained} of {sent} RSTs that this host sent are unexplained, and the records of {} were lost",
                thousands(lost)
            ),
        }
    }

    pub fn missing(self) -> Missing {
        Missing::new("reset_events", self.text())
    }
}

/// Connections that failed, so many of all that this host made or took that some service may fail altogether, and nothing tells
/// which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unplaced {
    pub failed: u64,
    pub attempts: u64,
}

impl Unplaced {
    /// Fewer than this are chance.
    const FEWEST: u64 = 3;
    /// The share that surely failed.
    const SHARE: f64 = 0.2;

    /// By counters of a window alone; each by how much it moved. Whose RSTs ended connections that were accepted here is a matter of
    /// the callers, and many do it on purpose.
    pub fn of(moved: &dyn Fn(&str) -> u64) -> Option<Self> {
        let [made, taken] = ["Tcp.ActiveOpens", "Tcp.PassiveOpens"].map(moved);
        let reset = if taken == 0 { moved("Tcp.EstabResets") } else { 0 };
        let sent = moved("Tcp.OutRsts");
        // A connect that is refused here is among those that were taken no more than a segment of an old connection is.
        let told = ["TCPAbortOnClose", "TCPAbortOnData", "TCPAbortOnMemory", "TCPAbortOnTimeout"];
        let told = told.map(|name| moved(&format!("TcpExt.{name}"))).iter().sum::<u64>() + moved("Tcp.AttemptFails");
        let answers = sent.saturating_sub(told);
        let sides = [
            (moved("Tcp.AttemptFails").max(reset), made),
            (sent, taken),
            (answers, answers.saturating_add(taken + made)),
        ];
        sides.into_iter().find_map(|(failed, attempts)| {
            let failed = failed.min(attempts);
            let [surely, _] = interval(failed, attempts)?;
            (failed >= Self::FEWEST && surely >= Self::SHARE).then_some(Self { failed, attempts })
        })
    }

    /// `5 of 5 connections failed or were reset, and without reset events nothing says which`
    pub fn text(self) -> String {
        let (failed, attempts) = (thousands(self.failed), thousands(self.attempts));
        format!("{failed} of {attempts} connections failed or were reset, and without reset events nothing says which")
    }
}

impl Evidence<'_> {
    /// Sent RSTs that nothing accounts for, where they are too many to rule anything out.
    pub fn unbalanced(&self) -> Option<Unbalanced> {
        if self.totals_only() { None } else { Unbalanced::of(&self.ledger.sent) }
    }

    /// Neither an event nor a packet tells of the resets that were sent; that packets are seen is not enough, where none of these was.
    fn untold(&self) -> bool {
        !self.totals_only() && self.attribution().map_or(true, |resets| resets.sent.is_err())
    }

    /// Connections that failed where nothing tells of which service they were: there are neither events nor packets of resets.
    pub fn unplaced(&self) -> Option<Unplaced> {
        self.untold().then(|| Unplaced::of(&|name| self.moved(name)))?
    }

    /// Connection attempts that were lost and that no counter explains, unless they are few.
    pub fn lost_unexplained(&self) -> Option<u64> {
        if self.totals_only() {
            return None;
        }
        self.ledger.dropped.unexplained().filter(|lost| *lost >= CHANCE)
    }

    /// Resets that this host sent, where nothing tells of which service they were: they may all be of one.
    pub fn unassigned(&self) -> Option<u64> {
        self.untold().then(|| self.moved("Tcp.OutRsts")).filter(|sent| *sent >= Unplaced::FEWEST)
    }

    /// # Errors
    /// Too many sent RSTs are without an explanation: what no event shows may be among them.
    pub fn balanced(&self) -> Result<(), Missing> {
        let needs = || self.reset_events().err().and_then(|missing| missing.needs);
        self.unbalanced().map_or(Ok(()), |unbalanced| Err(Missing { needs: needs(), ..unbalanced.missing() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::by_id;
    use crate::diagnosis::{Status, diagnose};
    use crate::observation::testing::Case;
    use crate::source::reset_events::Direction;
    use crate::value::Observed;

    /// A host whose tracepoints work and showed `seen` of the RSTs that it sent.
    fn host(sent: u64, seen: u16) -> Case {
        Case::new().tracepoints().counter("Tcp.OutRsts", 500, sent).counter("TcpExt.ListenOverflows", 0, 0).sent(
            seen,
            "MPTCP_RST_EUNSPEC",
            None,
            ["10.0.0.9:9200", "10.0.3.7:0"],
            None,
        )
    }

    #[test]
    fn a_few_of_many_are_chance_and_most_are_not() {
        let unbalanced = |sent, seen| Evidence::new(host(sent, seen).view()).unbalanced();
        assert_eq!(unbalanced(100, 96), None);
        assert_eq!(unbalanced(4, 0), None);
        let most = Unbalanced { unexplained: 1271, lost: 0, sent: 1271 };
        assert_eq!(unbalanced(1271, 0), Some(most));
        assert_eq!(most.text(), "1,271 of 1,271 RSTs that this host sent are unexplained");
    }

    #[test]
    fn what_no_event_showed_is_not_ruled_out_while_resets_are_unexplained() {
        let case = host(1271, 10);
        for id in ["port-without-listener", "stale-connection", "wrong-bind-address", "socket-destroyed", "port-scan"] {
            let cause = by_id(id).expect("a cause");
            assert_eq!(case.missing(cause), Some("reset_events"), "{id}");
        }
        let diagnosis = diagnose(case.view());
        assert_eq!(diagnosis.status, Status::Unknown);
        assert!(diagnosis.summary.starts_with("1,261 of 1,271 RSTs that this host sent are unexplained"));
    }

    #[test]
    fn lost_records_are_no_explanation() {
        let mut case = host(100, 60);
        if let Observed::Full(events) = &mut case.host.reset_events {
            (events.read, events.lost, events.lost_sent) = (60, 40, 40);
        }
        let unbalanced = Evidence::new(case.view()).unbalanced();
        assert_eq!(unbalanced, Some(Unbalanced { unexplained: 40, lost: 40, sent: 100 }));
    }

    #[test]
    fn where_most_connections_failed_and_nothing_tells_which_nobody_can_say_that_all_is_well() {
        let case = |active: u64, fails: u64| {
            let case = Case::new().counter("Tcp.OutRsts", 0, 0).counter("TcpExt.ListenOverflows", 0, 0);
            case.counter("Tcp.ActiveOpens", 0, active).counter("Tcp.PassiveOpens", 0, 0).counter(
                "Tcp.AttemptFails",
                0,
                fails,
            )
        };
        let all = diagnose(case(5, 5).view());
        assert_eq!(all.status, Status::Unknown);
        assert!(all.summary.starts_with("5 of 5 connections failed or were reset"), "{}", all.summary);
        assert_eq!(diagnose(case(169, 5).view()).status, Status::Ok, "some of many");
        assert_eq!(diagnose(case(2, 2).view()).status, Status::Ok, "chance");
        assert_eq!(diagnose(case(5, 5).tracepoints().view()).status, Status::Ok, "events tell, and are judged");
    }

    /// A recording in which a storm elsewhere left no room for the events, and the packets were lost as well.
    #[test]
    fn packets_that_show_none_of_the_resets_that_were_sent_tell_no_more_than_nothing() {
        let case = |seen: u16| {
            let case = Case::new().counter("Tcp.OutRsts", 0, 109).counter("TcpExt.ListenOverflows", 0, 0);
            let case = case.counter("Tcp.ActiveOpens", 0, 58).counter("Tcp.PassiveOpens", 0, 0);
            let case = case.counter("Tcp.AttemptFails", 0, 109);
            case.packets(seen, Direction::Sent, 0x14, 64, ["127.0.0.1:8080", "127.0.0.1:40000"])
        };
        let none = diagnose(case(0).view());
        assert_eq!(none.status, Status::Unknown, "{}", none.summary);
        assert!(none.summary.starts_with("58 of 58 connections failed or were reset"), "{}", none.summary);
        assert_ne!(diagnose(case(109).view()).status, Status::Ok, "they are seen, and are judged");
    }

    /// Who is refused shows in no counter of connections.
    #[test]
    fn a_quiet_host_that_refuses_all_who_come_is_not_called_well_by_counters() {
        let case = |sent: u64, taken: u64, of_aborts: u64| {
            let case = Case::new().counter("Tcp.OutRsts", 0, sent).counter("TcpExt.ListenOverflows", 0, 0);
            let case = case.counter("Tcp.ActiveOpens", 0, 0).counter("Tcp.PassiveOpens", 0, taken);
            diagnose(case.counter("TcpExt.TCPAbortOnTimeout", 0, of_aborts).view())
        };
        let refused = case(3, 0, 0);
        assert_eq!(refused.status, Status::Unknown);
        assert!(refused.summary.starts_with("3 of 3 connections failed or were reset"), "{}", refused.summary);
        assert_eq!(case(2, 0, 0).status, Status::Ok, "chance");
        assert_eq!(case(4, 300, 0).status, Status::Ok, "beside many that were taken");
        assert_eq!(case(3, 0, 3).status, Status::Ok, "keepalive of vanished peers");
    }

    #[test]
    fn without_a_window_nothing_was_sent_in_it() {
        let mut case = host(1271, 0);
        case.host.totals_only = true;
        assert_eq!(Evidence::new(case.view()).unbalanced(), None);
    }
}
