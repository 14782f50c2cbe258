//! What the recorder knew when it ended: rates that are usual here, and what went on. It is seen again in the last recordings of
//! the store, so that a restart is no news.

use std::path::Path;
use std::time::Duration;

use crate::diagnosis::filter::Filter;
use crate::recording::{ReplayHost, excerpts};
use crate::session::Plan;
use crate::store::Reading;
use crate::timeline::{Driver, Next, Watch};
use crate::value::Moment;

/// Only what is so recent says how things are now.
const RECENT: Duration = Duration::from_secs(600);
/// Two clocks of one boot, one of which may be slewed.
const SAME_BOOT: Duration = Duration::from_secs(30);

/// The judge at the end of the latest recordings; `None` if there are none of this boot and the last minutes. One who was restarted
/// twice knew what is in the recordings before the latest, too.
pub fn watch(store: &Path, now: Moment) -> Option<Watch> {
    let since = now.wall.saturating_sub(RECENT);
    let files = Reading::open(store).ok()?.recordings(since, now.wall);
    let (all, _) = excerpts(&files, since, now.wall);
    let of_now = all.iter().filter(|excerpt| is_of_this_boot(excerpt.until, now));
    of_now.fold(None, |known, excerpt| {
        let known = known.unwrap_or_else(|| Watch::new(Filter::default()));
        // What cannot be read tells nothing.
        Some(seen(&excerpt.recording, known.clone()).unwrap_or(known))
    })
}

fn is_of_this_boot(until: Moment, now: Moment) -> bool {
    let gone = now.mono.checked_sub(until.mono).zip(now.wall.checked_sub(until.wall));
    gone.is_some_and(|(mono, wall)| mono.abs_diff(wall) <= SAME_BOOT)
}

/// What the judge knows who has seen this, too.
fn seen(recording: &[u8], watch: Watch) -> Option<Watch> {
    let mut host = ReplayHost::read(recording).ok()?;
    let window = host.windows().first()?.planned;
    // The rest behind its last tick is no tick: nothing in so short a time would end what goes on.
    let plan = Plan { length: Duration::MAX, ..Plan::scan(window) };
    let mut driver = Driver::resume(&mut host, &plan, Duration::from_secs(1), watch).ok()?;
    while !matches!(driver.advance(), Next::Over) {}
    Some(driver.into_watch())
}
