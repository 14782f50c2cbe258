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

/// The judge at the end of the latest recordings; `None` if there are none of this boot and the last minutes.
pub fn watch(store: &Path, now: Moment) -> Option<Watch> {
    let since = now.wall.saturating_sub(RECENT);
    let files = Reading::open(store).ok()?.recordings(since, now.wall);
    let latest = excerpts(&files, since, now.wall).0.pop()?;
    let gone = (now.mono.checked_sub(latest.until.mono)?, now.wall.checked_sub(latest.until.wall)?);
    if gone.0.abs_diff(gone.1) > SAME_BOOT {
        return None;
    }
    let mut host = ReplayHost::read(&latest.recording).ok()?;
    let window = host.windows().first()?.planned;
    // The rest behind its last tick is no tick: nothing in so short a time would end what goes on.
    let plan = Plan { length: Duration::MAX, ..Plan::scan(window) };
    let mut driver = Driver::start(&mut host, &plan, Duration::from_secs(1), Filter::default()).ok()?;
    while !matches!(driver.advance(), Next::Over) {}
    Some(driver.into_watch())
}
