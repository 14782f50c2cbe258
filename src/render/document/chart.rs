//! The drawings of a time of a store: columns over the time that can be compared with each other.

use std::collections::BTreeMap;

use super::safe;
use crate::history::{Direction, Past, Row, total};
use crate::render::history::{Calendar, share};
use crate::value::words::{counted, percent, seconds, thousands};

/// Of a drawing; it is scaled to the page.
pub const WIDTH: u64 = 720;
const HEIGHT: u64 = 40;
/// Parts of the time between two lines.
pub const QUARTERS: u64 = 4;
/// Services that are drawn.
pub const MOST: usize = 12;
/// Fewer never fill a drawing: two of 804 are not drawn as an outage is.
const FEW: u64 = 10;
/// So much of a queue, of 1,000, is worth to be looked at.
const WAITING: u16 = 100;
/// A longer time is marked by days.
const DAYS_MS: u64 = 48 * 3_600_000;
/// A shorter one by seconds.
const SECONDS_MS: u64 = 3_600_000;

/// Columns over the time.
pub struct Chart {
    pub title: String,
    pub note: String,
    /// What a column of full height stands for.
    pub scale: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub class: &'static str,
    pub x: String,
    pub y: String,
    pub width: String,
    pub height: String,
}

/// What failed of each service, how full its queue was, and the resets by reason. Drawings of one kind have one scale.
pub fn charts(past: &Past) -> Vec<Chart> {
    let recorded = past.recorded();
    let part = seconds(past.part());
    let mut charts = Vec::new();
    let failed: Vec<(&Row, Vec<u64>)> = past
        .services
        .iter()
        .take(MOST)
        .map(|row| (row, row.failed.iter().map(|failed| failed.unwrap_or(0)).collect()))
        .collect();
    let most_failed = whole(failed.iter().flat_map(|(_, failed)| failed));
    for (row, failed) in failed {
        let place = safe(&row.service.place.words());
        if row.failures() > 0 {
            charts.push(Chart {
                title: format!("{place}: failed connections and lost attempts"),
                note: share(past, row),
                scale: format!("full height: {} in {part}", thousands(most_failed)),
                bars: bars("bar", &failed, most_failed, &recorded),
            });
        }
        if has_queue(row) {
            charts.push(queue(row, &place, &recorded));
        }
    }
    let mut by_reason: BTreeMap<(String, &str), Vec<u64>> = BTreeMap::new();
    // They are of the whole host.
    for ((direction, reason), counts) in past.by_reason.iter().filter(|_| !past.wanted.is_narrow()) {
        let (title, unit) = match direction {
            Direction::Dropped => (format!("Lost attempts, {reason}"), "attempt"),
            direction => (format!("Resets, {} {reason}", direction.word()), "reset"),
        };
        by_reason.insert((title, unit), counts.clone());
    }
    let mut by_reason: Vec<_> = by_reason.into_iter().collect();
    by_reason.sort_by_key(|(_, counts)| std::cmp::Reverse(total(counts)));
    by_reason.truncate(MOST / 2);
    let most_resets = whole(by_reason.iter().flat_map(|(_, counts)| counts));
    for ((title, unit), counts) in by_reason {
        charts.push(Chart {
            title: safe(&title),
            note: counted(total(&counts), unit),
            scale: format!("full height: {} in {part}", thousands(most_resets)),
            bars: bars("bar", &counts, most_resets, &recorded),
        });
    }
    charts
}

/// Services of which there is nothing to draw, because nothing failed and nothing waited, in words.
pub fn quiet(past: &Past) -> Vec<String> {
    let quiet = past.services.iter().take(MOST).filter(|row| row.failures() == 0 && !has_queue(row));
    quiet.map(|row| format!("{}: {}", safe(&row.service.place.words()), share(past, row))).collect()
}

/// A few that wait for a moment are none.
fn has_queue(row: &Row) -> bool {
    row.fill.iter().any(|fill| *fill >= WAITING)
}

/// The least round number that none of these exceeds.
fn whole<'a>(counts: impl Iterator<Item = &'a u64>) -> u64 {
    let most = counts.copied().max().unwrap_or(0).max(FEW);
    let mut unit = 1u64;
    while let Some(next) = unit.checked_mul(10).filter(|next| *next <= most) {
        unit = next;
    }
    [1, 2, 5, 10].into_iter().filter_map(|times| unit.checked_mul(times)).find(|round| *round >= most).unwrap_or(most)
}

fn queue(row: &Row, place: &str, recorded: &[bool]) -> Chart {
    let fill: Vec<u64> = row.fill.iter().map(|fill| u64::from(*fill)).collect();
    let highest = fill.iter().copied().max().unwrap_or(0);
    Chart {
        title: format!("{place}: longest accept queue"),
        note: format!(
            "up to {} of backlog {}",
            percent(highest as f64 / 1000.0),
            thousands(u64::from(row.service.backlog))
        ),
        scale: "full height: a full queue".to_owned(),
        bars: bars("fill", &fill, 1000, recorded),
    }
}

/// `whole`: the value of a column of full height.
fn bars(class: &'static str, values: &[u64], whole: u64, recorded: &[bool]) -> Vec<Bar> {
    let step = WIDTH as f64 / values.len().max(1) as f64;
    let bar = |(index, (value, recorded)): (usize, (&u64, &bool))| {
        let (class, height) = match (*value, *recorded) {
            (0, false) => ("gap", HEIGHT as f64),
            (0, true) => return None,
            // Something is never drawn as nothing.
            (value, _) => (class, (value as f64 / whole.max(1) as f64 * HEIGHT as f64).clamp(2.0, HEIGHT as f64)),
        };
        Some(Bar {
            class,
            x: format!("{:.1}", index as f64 * step),
            y: format!("{:.1}", HEIGHT as f64 - height),
            width: format!("{:.1}", (step - 1.0).max(1.0)),
            height: format!("{height:.1}"),
        })
    };
    values.iter().zip(recorded).enumerate().filter_map(bar).collect()
}

/// The times at the lines of a drawing, its beginning and its end included.
pub fn ticks(past: &Past, calendar: &Calendar<'_>) -> Vec<String> {
    let (since, until) = (past.wanted.since, past.wanted.until);
    let length = until.saturating_sub(since);
    let short = |quarter: u64| {
        let text = (calendar.time)(since + length / QUARTERS * quarter);
        let (date, time) = text.split_once(' ').unwrap_or((&text, ""));
        let day = date.split_once('-').map_or(date, |(_, day)| day);
        let minute = time.get(..5).unwrap_or(time);
        match quarter {
            _ if length >= DAYS_MS => day.to_owned(),
            _ if length < SECONDS_MS => time.to_owned(),
            0 | QUARTERS => format!("{day} {minute}"),
            _ => minute.to_owned(),
        }
    };
    (0..=QUARTERS).map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn a_drawing_ends_at_a_round_number() {
        let of = |counts: &[u64]| whole(counts.iter());
        assert_eq!((of(&[]), of(&[2]), of(&[11, 3]), of(&[4_802, 2]), of(&[5_000])), (10, 10, 20, 5_000, 5_000));
        assert_eq!(of(&[u64::MAX]), u64::MAX);
    }
}
