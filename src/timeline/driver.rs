//! Drives a host tick by tick: a live view, a recording and its playback.

use std::time::Duration;

use super::{Dumped, Tick, Watch};
use crate::ask::Host;
use crate::diagnosis::filter::Filter;
use crate::session::{NothingObserved, Plan, Session, Step, Window};
use crate::value::Moment;

/// A host and the judge of its windows.
pub struct Driver<'a> {
    host: &'a mut dyn Host,
    session: Session,
    watch: Watch,
    /// The row has an end, which is a tick too.
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
        Self::resume(host, plan, interval, Watch::new(filter))
    }

    /// As [`Driver::start`], with a judge that knows what came before.
    ///
    /// # Errors
    /// As there.
    pub fn resume(
        host: &'a mut dyn Host,
        plan: &Plan,
        interval: Duration,
        watch: Watch,
    ) -> Result<Self, NothingObserved> {
        // Queues are looked at less often while they are short, but for a recording, which is looked at later.
        let ends = plan.length != Duration::MAX;
        let session = Session::open(host, &Plan { interval: Some(interval), relaxed: !ends, ..plan.clone() })?;
        Ok(Self { host, session, watch, ends, over: false })
    }

    /// Waits for what comes next. The closing frame of a recording or of a row with an end is the last tick.
    pub fn advance(&mut self) -> Next {
        if self.over {
            return Next::Over;
        }
        match self.session.step(self.host) {
            Step::Looked => Next::Looked,
            Step::Window(window) => self.judge(*window),
            Step::Over => {
                self.over = true;
                match self.ends.then(|| self.session.close(self.host)).flatten() {
                    Some(window) => self.judge(window),
                    None => Next::Over,
                }
            }
        }
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What it knows, for one who goes on with another host.
    pub fn into_watch(self) -> Watch {
        self.watch
    }

    /// Ticks come at this distance from now on.
    pub fn set_interval(&mut self, interval: Duration, now: Moment) {
        self.session.set_interval(interval, now);
    }

    /// The next tick looks at all sockets, so that a recording can end with it.
    pub fn sweep_next(&mut self) {
        self.watch.sweep_next();
        self.session.settings_next();
    }

    fn judge(&mut self, mut window: Window) -> Next {
        let (session, host) = (&self.session, &mut *self.host);
        let tick = self.watch.tick(&mut window, &mut |observation, which| {
            let before = host.used();
            let dumped = session.dump(host, observation, which);
            dumped.then(|| Dumped { used: host.used().zip(before).map(|(after, before)| after.saturating_sub(before)) })
        });
        self.session.remember(window.observation);
        tick.map_or(Next::Over, |tick| Next::Tick(Box::new(tick)))
    }
}
