//! Drives a host tick by tick: the kernel's side of a live view, of a recording and of its playback.

use std::time::Duration;

use super::{Tick, Watch};
use crate::ask::Host;
use crate::diagnosis::filter::Filter;
use crate::session::{NothingObserved, Plan, Step, Ticked, Watching};
use crate::value::Moment;

/// A host and the judge of its windows.
pub struct Driver<'a> {
    host: &'a mut dyn Host,
    watching: Watching,
    watch: Watch,
    /// The window has an end, which is a tick too.
    ends: bool,
    over: bool,
}

/// What came next.
pub enum Next {
    /// A look at the listeners: a good moment to ask what the user wants.
    Looked,
    Tick(Box<Tick>),
    Over,
}

impl<'a> Driver<'a> {
    /// Opens the first window.
    ///
    /// # Errors
    /// The host has nothing to observe.
    pub fn start(
        host: &'a mut dyn Host,
        plan: &Plan,
        interval: Duration,
        filter: Filter,
    ) -> Result<Self, NothingObserved> {
        // Queues are looked at less often while they are short, but for a recording, which is looked at later.
        let ends = plan.window != Duration::MAX;
        let watching = Watching::start(host, plan, interval, !ends)?;
        Ok(Self { host, watching, watch: Watch::new(filter), ends, over: false })
    }

    /// Waits for what comes next. The closing frame of a recording or of a window with an end is the last tick.
    pub fn advance(&mut self) -> Next {
        if self.over {
            return Next::Over;
        }
        match self.watching.step(self.host) {
            Step::Looked => Next::Looked,
            Step::Tick(ticked) => self.judge(*ticked),
            Step::Over => {
                self.over = true;
                match self.ends.then(|| self.watching.finish(self.host)).flatten() {
                    Some(ticked) => self.judge(ticked),
                    None => Next::Over,
                }
            }
        }
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Ticks come at this distance from now on.
    pub fn set_interval(&mut self, interval: Duration, now: Moment) {
        self.watching.set_interval(interval, now);
    }

    /// The next tick looks at all sockets, so that a recording can end with it.
    pub fn sweep_next(&mut self) {
        self.watch.sweep_next();
        self.watching.settings_next();
    }

    fn judge(&mut self, mut ticked: Ticked) -> Next {
        let (watching, host) = (&mut self.watching, &mut *self.host);
        let tick = self.watch.tick(&mut ticked, &mut |observation| watching.sweep(host, observation));
        self.watching.remember(ticked.observation);
        Next::Tick(Box::new(tick))
    }
}
