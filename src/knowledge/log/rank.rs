//! Which causes a log supports, and by what: errors in the second of a crash, after a restart, after a fixed idle time.

use std::collections::BTreeMap;

use super::digest::{Change, Digest, KnownText, Occurrence};
use super::fields::Fields;
use super::time::Stamp;
use crate::knowledge::error_texts::ErrorText;
use crate::knowledge::idle_timeouts::{self, Role};
use crate::value::words::{counted, thousands};

/// A cause and the best reason for its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Id of the contract.
    pub id: &'static str,
    pub reason: String,
    /// The text whose advice fits.
    pub text: &'static ErrorText,
    /// Ends that its first line names.
    pub example: Fields,
    /// When the first and the last line of it were written, where lines of it have a time.
    pub when: Option<(Stamp, Stamp)>,
    score: f64,
    /// How much the reason weighs that is shown.
    strength: f64,
}

/// What a text says by itself weighs at most as much.
const BY_ITSELF: f64 = 1.0;
/// A line that may mean more is a symptom that many causes have in common.
const FEW_CAUSES: usize = 3;

impl Ranked {
    /// One of many that its line may mean, and nothing else speaks for it.
    pub fn is_among_many(&self) -> bool {
        self.strength <= BY_ITSELF && self.text.causes.len() > FEW_CAUSES
    }

    /// A line of the log says so itself.
    pub fn is_stated(&self) -> bool {
        let first = self.text.causes.first().is_some_and(|first| first.id == self.id);
        self.text.event && self.text.counter.is_none() && first
    }
}

/// What the times of the errors say, in words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    pub causes: Vec<Ranked>,
    /// Bursts, periods, what stands beside the errors.
    pub remarks: Vec<String>,
}

/// Seconds between an error and what stands beside it in the same moment: clocks of two logs and workers that wind up.
const SAME_MOMENT: f64 = 2.0;
/// Seconds after a start or stop within which errors belong to it.
const AFTER_CHANGE: f64 = 10.0;
/// Lines between two lines of one story where none has a time.
const BESIDE: u64 = 5;
/// Fewest errors that are a pattern.
const FEW: usize = 3;
/// Fewest errors that are a burst, and its longest duration in seconds.
const BURST: (usize, f64) = (10, 3.0);
/// Fewest equal distances that are a period.
const PERIOD: usize = 5;
/// What a root says that stands in the log without an error beside it, of what an error says.
const ROOT_ALONE: f64 = 0.3;
/// Shortest time without traffic that is a pause, seconds.
const PAUSE: f64 = 2.0;

/// Ranks the causes of everything that was found.
pub fn rank(digest: &Digest) -> Shown {
    let mut ranking = Ranking { digest, causes: BTreeMap::new(), remarks: Vec::new() };
    let (events, symptoms): (Vec<_>, Vec<_>) =
        digest.occurrences.iter().partition(|it| digest.found.get(it.found).is_some_and(|found| found.text.event));
    ranking.texts();
    ranking.events(&events, &symptoms);
    ranking.after_change(&symptoms);
    ranking.idle(&symptoms);
    ranking.times(&symptoms);
    ranking.paths();
    digest.paste.rank(&mut |id, score, reason, text| ranking.add(id, score, score, reason, text));
    ranking.finish()
}

struct Ranking<'a> {
    digest: &'a Digest,
    causes: BTreeMap<&'static str, Ranked>,
    remarks: Vec<String>,
}

impl Ranking<'_> {
    /// Adds to a cause; the reason with the greatest strength is shown.
    fn add(&mut self, id: &'static str, score: f64, strength: f64, reason: String, text: &'static ErrorText) {
        let entry = self.causes.entry(id).or_insert_with(|| Ranked {
            id,
            reason: String::new(),
            text,
            example: Fields::default(),
            when: None,
            score: 0.0,
            strength: 0.0,
        });
        entry.score += score;
        if strength > entry.strength {
            entry.reason = reason;
            entry.strength = strength;
            entry.text = text;
        }
    }

    /// Adds to those causes that an error of the log may have anyway.
    fn support(&mut self, ids: &[&str], score: f64, reason: &str) {
        for id in ids {
            if let Some(known) = self.causes.get(id).cloned() {
                self.add(known.id, score, score, reason.to_owned(), known.text);
            }
        }
    }

    /// What each text says by itself: its causes in their order, by its share of all lines.
    fn texts(&mut self) {
        let lines =
            |event: bool| self.digest.found.iter().filter(|it| it.text.event == event).map(|it| it.lines).sum::<u64>();
        let (symptoms, events) = (lines(false), lines(true));
        for found in &self.digest.found {
            // How often a root is logged says nothing of how much it explains.
            let (all, part) = match found.text.event {
                true => (events, if symptoms > 0 { ROOT_ALONE } else { 1.0 }),
                false => (symptoms, 1.0),
            };
            let share = part * found.lines as f64 / all.max(1) as f64;
            for (rank, candidate) in found.text.causes.iter().enumerate() {
                let weight = share / (rank + 1) as f64;
                self.add(&candidate.id, weight, weight, candidate.why.clone(), found.text);
            }
        }
    }

    fn first_reason(&self, found: &KnownText, why: &str) -> String {
        format!("{why} ({}, {})", counted(found.lines, "line"), self.digest.places(found.first, found.last))
    }

    /// A crash or a limit that the log states, the more the errors stand beside it.
    fn events(&mut self, events: &[&Occurrence], symptoms: &[&Occurrence]) {
        for (index, found) in self.digest.found.iter().enumerate().filter(|(_, found)| found.text.event) {
            let Some(first) = found.text.causes.first() else { continue };
            let these: Vec<_> = events.iter().filter(|it| it.found == index).collect();
            let near = symptoms.iter().filter(|symptom| these.iter().any(|event| beside(event, symptom))).count();
            let share = near as f64 / symptoms.len().max(1) as f64;
            let said = format!("{} ({})", found.text.name, self.digest.places(found.first, found.last));
            let (score, strength, reason) = match (near, symptoms.len()) {
                (_, 0) => (5.0, 5.0, self.first_reason(found, &first.why)),
                (0, _) => (0.5, 1.5, format!("{said}, but no error within {SAME_MOMENT:.0} s of it")),
                _ => (
                    6.0 + 10.0 * share,
                    10.0 + share,
                    format!(
                        "{} of {} in the moment of: {said}",
                        thousands(near as u64),
                        counted(symptoms.len() as u64, "error")
                    ),
                ),
            };
            let score = if found.text.certain { score } else { score / 2.0 };
            self.add(&first.id, score, strength, reason, found.text);
        }
    }

    fn after_change(&mut self, symptoms: &[&Occurrence]) {
        let changes = &self.digest.changes;
        let mut best: Option<(&Change, usize)> = None;
        for change in changes {
            let after = symptoms.iter().filter(|it| follows(change, it)).count();
            if after > best.map_or(0, |(_, most)| most) {
                best = Some((change, after));
            }
        }
        let Some((change, _)) = best else { return };
        let after = symptoms.iter().filter(|it| changes.iter().any(|change| follows(change, it))).count();
        if after * 2 < symptoms.len() || after == 0 {
            return;
        }
        let reason = format!(
            "{} of {} within {AFTER_CHANGE:.0} s of a start or stop ({})",
            thousands(after as u64),
            counted(symptoms.len() as u64, "error"),
            self.digest.place(change.line)
        );
        self.support(&["peer-restarted", "process-exit", "listener-closed"], 8.0, &reason);
        self.support(&["upstream-refused", "port-without-listener", "stale-connection"], 4.0, &reason);
        self.remarks.push(format!("{}: {}", self.digest.place(change.line), change.words));
    }

    /// The same time without traffic before each error: somebody's idle limit.
    fn idle(&mut self, symptoms: &[&Occurrence]) {
        // A program that says it knows it; else only a row of equal times means something.
        let stated = symptoms.iter().any(|it| it.stated);
        let symptoms: Vec<_> = symptoms.iter().filter(|it| it.stated == stated).collect();
        let mut ages: Vec<f64> = symptoms.iter().filter_map(|it| it.idle).filter(|idle| *idle >= PAUSE).collect();
        ages.sort_by(f64::total_cmp);
        let (Some(shortest), Some(longest)) = (ages.first().copied(), ages.last().copied()) else { return };
        let fixed =
            ages.len() >= FEW && ages.len() * 2 >= symptoms.len() && longest - shortest <= (shortest / 20.0).max(2.0);
        if !(fixed || stated && ages.len() < FEW) {
            return;
        }
        let limits = idle_timeouts::near(shortest);
        let named: Vec<_> = limits.iter().take(2).map(|limit| format!("{} {} s", limit.name, limit.seconds)).collect();
        let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
        let reason = format!(
            "{} of {} after {shortest:.0} s without traffic{named}",
            ages.len(),
            counted(symptoms.len() as u64, "error")
        );
        let devices = limits.is_empty() || limits.iter().any(|limit| limit.role == Role::Device);
        let servers = limits.is_empty() || limits.iter().any(|limit| limit.role == Role::Server);
        if devices {
            self.support(&["idle-timeout"], 9.0, &reason);
        }
        if servers {
            self.support(&["peer-idle-limit", "late-data-after-close"], 8.0, &reason);
        }
    }

    /// Bursts and periods.
    fn times(&mut self, symptoms: &[&Occurrence]) {
        let mut times: Vec<f64> = Vec::new();
        let clock = symptoms.iter().find_map(|it| it.at).map(|at| at.clock);
        times.extend(symptoms.iter().filter_map(|it| it.at).filter(|at| Some(at.clock) == clock).map(|at| at.seconds));
        times.sort_by(f64::total_cmp);
        if let Some(most) = densest(&times).filter(|most| times.len() >= BURST.0 && most * 5 >= times.len() * 4) {
            let span = self.digest.first.zip(self.digest.last).and_then(|(first, last)| last.since(&first));
            if span.is_some_and(|span| span > 10.0 * BURST.1) {
                let reason = format!(
                    "{} of {} within {:.0} s: all at once",
                    thousands(most as u64),
                    counted(times.len() as u64, "error"),
                    BURST.1
                );
                self.support(&["process-exit", "peer-restarted", "listener-closed"], 3.0, &reason);
                self.remarks.push(reason);
            }
        } else if let Some((period, count)) = period(&times) {
            let reason = format!("every {period:.0} s, {} times", thousands(count as u64 + 1));
            self.support(&["health-check-resets"], 4.0, &format!("{reason}: as a check does"));
            self.remarks.push(format!("errors come {reason}: something that runs at fixed times, or an idle limit"));
        }
    }

    /// All errors at one path, where there are others.
    fn paths(&mut self) {
        for found in &self.digest.found {
            let (ranked, total) = (found.paths.ranked(), found.paths.total());
            if let Some((path, count)) = ranked.first().filter(|(_, count)| total >= 5 && count * 10 >= total * 9) {
                let reason = format!("{} of {} at one path: {path}", thousands(*count), counted(total, "error"));
                self.support(&["close-with-unread-data"], 1.0, &reason);
            }
        }
    }

    fn finish(self) -> Shown {
        let mut causes: Vec<_> = self.causes.into_values().collect();
        // Equal scores stay in the order in which the first text has them.
        let order: Vec<&str> =
            self.digest.found.iter().flat_map(|found| &found.text.causes).map(|it| it.id.as_str()).collect();
        for cause in &mut causes {
            let found = self.digest.found.iter().position(|found| std::ptr::eq(found.text, cause.text));
            let Some((index, found)) = found.and_then(|index| Some((index, self.digest.found.get(index)?))) else {
                continue;
            };
            cause.example = found.example.clone();
            let times = || self.digest.occurrences.iter().filter(|it| it.found == index).filter_map(|it| it.at);
            cause.when = times().next().zip(times().next_back());
        }
        let place = |id: &str| order.iter().position(|known| *known == id).unwrap_or(usize::MAX);
        causes.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| place(a.id).cmp(&place(b.id))));
        Shown { causes, remarks: self.remarks }
    }
}

fn apart(a: Option<Stamp>, b: Option<Stamp>) -> Option<f64> {
    a?.since(&b?)
}

fn beside(event: &Occurrence, symptom: &Occurrence) -> bool {
    match apart(symptom.at, event.at) {
        Some(seconds) => seconds.abs() <= SAME_MOMENT,
        None => event.line.abs_diff(symptom.line) <= BESIDE && (event.at.is_none() || symptom.at.is_none()),
    }
}

fn follows(change: &Change, symptom: &Occurrence) -> bool {
    match apart(symptom.at, change.at) {
        Some(seconds) => (-SAME_MOMENT..=AFTER_CHANGE).contains(&seconds),
        None => change.at.is_none() && symptom.at.is_none() && symptom.line.abs_diff(change.line) <= BESIDE,
    }
}

/// The most times within the duration of a burst.
fn densest(times: &[f64]) -> Option<usize> {
    let mut start = 0;
    let counts = times.iter().enumerate().map(|(end, time)| {
        while times.get(start).is_some_and(|first| time - first > BURST.1) {
            start += 1;
        }
        end + 1 - start
    });
    counts.max()
}

/// The distance between errors and how often it occurs, if four of five are alike; errors of one moment count once.
fn period(times: &[f64]) -> Option<(f64, usize)> {
    let mut moments: Vec<f64> = Vec::new();
    for time in times {
        if moments.last().is_none_or(|last| time - last > SAME_MOMENT) {
            moments.push(*time);
        }
    }
    let mut gaps: Vec<f64> = moments.iter().zip(moments.iter().skip(1)).map(|(a, b)| b - a).collect();
    gaps.sort_by(f64::total_cmp);
    let median = gaps.get(gaps.len() / 2).copied()?;
    let alike = gaps.iter().filter(|gap| (*gap - median).abs() <= (median / 20.0).max(1.0)).count();
    (gaps.len() >= PERIOD && alike * 5 >= gaps.len() * 4 && median >= 5.0).then_some((median, alike))
}

#[cfg(test)]
mod tests {
    use super::super::digest::digest;
    use super::*;

    fn ranked(log: &str) -> (Vec<&'static str>, String, Vec<String>) {
        let digest = digest(&mut log.as_bytes()).expect("read");
        let shown = rank(&digest);
        let reason = shown.causes.first().map(|cause| cause.reason.clone()).unwrap_or_default();
        (shown.causes.iter().map(|cause| cause.id).collect(), reason, shown.remarks)
    }

    fn reset(time: &str) -> String {
        format!(
            "2026/11/20 {time} [error] 1#0: *1 recv() failed (104: Connection reset by peer) while reading response header from upstream, client: 10.0.0.1, request: \"GET /a HTTP/1.1\", upstream: \"http://10.0.0.7:80/\"\n"
        )
    }

    #[test]
    fn a_crash_in_the_same_second_is_the_cause() {
        let crash = "2026/11/20 14:02:11 [alert] 7#7: worker process 4122 exited on signal 11 (core dumped)\n";
        let (ids, reason, _) = ranked(&format!("{}{crash}{}", reset("14:02:11"), reset("14:02:12")));
        assert_eq!(ids[0], "process-exit");
        assert!(reason.starts_with("2 of 2 errors in the moment of: ") && reason.contains("line 2"), "{reason}");
        let (_, reason, _) = ranked(&format!("{}{crash}", reset("11:00:00")));
        assert!(!reason.contains("in the moment of"), "{reason}");
    }

    #[test]
    fn a_fixed_idle_time_is_somebodys_limit() {
        let query = |time| format!("2026-11-20 {time} query on 10.0.0.5:5432 took 3 ms\n");
        let lost =
            |time| format!("2026-11-20 {time} read tcp 10.0.0.1:9->10.0.0.5:5432: read: connection reset by peer\n");
        let log = [
            query("14:00:00"),
            lost("14:05:50"),
            query("15:00:00"),
            lost("15:05:51"),
            query("16:00:00"),
            lost("16:05:51"),
        ];
        let (ids, reason, _) = ranked(&log.concat());
        assert_eq!(ids[0], "idle-timeout");
        assert!(reason.starts_with("3 of 3 errors after 350 s without traffic: "), "{reason}");
    }

    #[test]
    fn an_idle_time_that_the_line_says_counts_alone() {
        let log = "ERROR Communications link failure\nThe last packet successfully received from the server was 351,123 milliseconds ago.\n";
        let (ids, reason, _) = ranked(log);
        assert_eq!(ids[0], "idle-timeout");
        assert!(reason.starts_with("1 of 1 error after 351 s without traffic: "), "{reason}");
    }

    #[test]
    fn errors_after_a_restart_belong_to_it() {
        let refused = |s| format!("2026-11-20 14:02:{s} dial tcp 10.0.0.5:5432: connect: connection refused\n");
        let log = format!(
            "2026-11-20 14:02:10 systemd[1]: Stopping postgresql.service\n{}{}{}",
            refused("11"),
            refused("12"),
            refused("13")
        );
        let (ids, reason, remarks) = ranked(&log);
        assert!(["peer-restarted", "port-without-listener", "upstream-refused"].contains(&ids[0]), "{ids:?}");
        assert!(reason.contains("start or stop (line 1)"), "{reason}");
        assert!(remarks[0].contains("Stopping postgresql"), "{remarks:?}");
    }

    #[test]
    fn periods_and_bursts_are_said() {
        let log: String = (0..8).map(|minute| reset(&format!("14:{minute:02}:00"))).collect();
        let (_, _, remarks) = ranked(&log);
        assert!(remarks.iter().any(|remark| remark.contains("every 60 s, 8 times")), "{remarks:?}");
        let mut log = "2026/11/20 13:00:00 [notice] fine\n".to_owned();
        log.extend((0..12).map(|_| reset("14:02:11")));
        let (_, _, remarks) = ranked(&log);
        assert!(remarks.iter().any(|remark| remark.contains("12 of 12 errors within 3 s")), "{remarks:?}");
    }

    #[test]
    fn equal_causes_stay_in_the_order_of_their_text() {
        let (ids, _, _) = ranked("connection reset by peer\n");
        let wanted: Vec<_> =
            crate::knowledge::error_texts::meant("104")[0].causes.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, wanted);
    }
}
