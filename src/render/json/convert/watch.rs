//! A tick of a live view.

use super::report::report;
use super::shared::{place, rounded, severity, state, status};
use crate::diagnosis::Diagnosis;
use crate::render::json::rfc3339_millis;
use crate::render::json::wire::report::Report;
use crate::render::json::wire::watch::*;
use crate::timeline::{self, Phase, Why};

/// The report of one tick.
pub fn tick(tick: &timeline::Tick) -> Report {
    let watch = Watch {
        tick: tick.number,
        status: status(tick.status),
        late_s: tick.late.map(|late| rounded(late.as_secs_f64())),
        learning_s: tick.learning.map(|left| rounded(left.as_secs_f64())),
        sweep: Sweep { taken: tick.sweep.taken.map(sweep_reason), age_s: rounded(tick.sweep.age.as_secs_f64()) },
        events: tick.events.iter().map(|one| event(one, tick)).collect(),
        changes: tick.changes.iter().map(change).collect(),
        episodes: tick.episodes.iter().map(|one| episode(one, &tick.diagnosis)).collect(),
    };
    Report { watch: Some(watch), ..report(&tick.diagnosis) }
}

fn event(event: &timeline::Event, tick: &timeline::Tick) -> Event {
    let latest = tick.episode(&event.key).map(|episode| &episode.latest.finding);
    Event {
        what: match event.what {
            timeline::What::Appeared => EventKind::Appeared,
            timeline::What::Again => EventKind::Again,
            timeline::What::Worsened => EventKind::Worsened,
            timeline::What::Eased => EventKind::Eased,
            timeline::What::Ended => EventKind::Ended,
        },
        at: rfc3339_millis(event.at.wall),
        id: event.key.id.to_owned(),
        place: place(&event.key.place, latest, &tick.diagnosis),
        severity: severity(event.severity),
        state: state(event.state),
        summary: event.summary.clone(),
        per_s: rounded(event.per_s),
        lasted_s: rounded(event.lasted.as_secs_f64()),
        events: event.events,
        times: event.times,
    }
}

fn change(change: &timeline::Change) -> Change {
    Change { at: rfc3339_millis(change.at.wall), kind: change_kind(change.kind), text: change.text.clone() }
}

fn episode(episode: &timeline::Episode, diagnosis: &Diagnosis) -> Episode {
    Episode {
        id: episode.key.id.to_owned(),
        place: place(&episode.key.place, Some(&episode.latest.finding), diagnosis),
        phase: match episode.phase {
            Phase::Active => EpisodePhase::Active,
            Phase::Quiet => EpisodePhase::Quiet,
            Phase::Ended => EpisodePhase::Ended,
        },
        severity: severity(episode.severity),
        state: state(episode.latest.finding.state),
        since: rfc3339_millis(episode.since.wall),
        from_start: episode.from_start,
        last: rfc3339_millis(episode.last.wall),
        times: episode.times,
        events: episode.events,
        peak_per_s: rounded(episode.peak_per_s),
        usual_per_s: episode.usual.map(|usual| rounded(usual.mean)),
    }
}

fn sweep_reason(why: Why) -> SweepReason {
    match why {
        Why::First => SweepReason::First,
        Why::Cause => SweepReason::Cause,
        Why::Listeners => SweepReason::Listeners,
        Why::Sockets => SweepReason::Sockets,
        Why::Age => SweepReason::Age,
        Why::Asked => SweepReason::Asked,
        Why::Last => SweepReason::Last,
    }
}

fn change_kind(kind: timeline::ChangeKind) -> ChangeKind {
    use timeline::ChangeKind as Inner;
    match kind {
        Inner::Late => ChangeKind::Late,
        Inner::ClockSet => ChangeKind::ClockSet,
        Inner::Suspended => ChangeKind::Suspended,
        Inner::CountersReset => ChangeKind::CountersReset,
        Inner::SysctlChanged => ChangeKind::SysctlChanged,
        Inner::ListenerAppeared => ChangeKind::ListenerAppeared,
        Inner::ListenerGone => ChangeKind::ListenerGone,
        Inner::ListenerReplaced => ChangeKind::ListenerReplaced,
        Inner::ListenerMoved => ChangeKind::ListenerMoved,
        Inner::BacklogChanged => ChangeKind::BacklogChanged,
        Inner::ProcessReplaced => ChangeKind::ProcessReplaced,
        Inner::NamespaceGone => ChangeKind::NamespaceGone,
        Inner::NamespaceAppeared => ChangeKind::NamespaceAppeared,
    }
}
