//! The thread behind the screen: it drives the host, or plays the recording at its own pace, and does what the keys order.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::message::Message;
use super::{View, status};
use crate::command::SAW_NOTHING;
use crate::command::config::{Origin, Watch};
use crate::command::hook::Hook;
use crate::kernel::clock::now;
use crate::recording::History;
use crate::render::watch::Lines;
use crate::runtime::thread;
use crate::timeline::{Driver, Next};
use crate::tui::{Event, Order, Play};
use crate::value::escape::visible;
use crate::value::words::seconds;
use crate::value::{Moment, Stop};

/// Starts it. Its result is the summary of what was seen, and the exit status. It ends with `stop`, or when nobody listens to it any more.
pub fn start(
    config: Watch,
    stop: Stop,
    screen: SyncSender<Message>,
    orders: Receiver<Order>,
) -> io::Result<JoinHandle<anyhow::Result<(String, ExitCode)>>> {
    thread::start("driver", move || {
        // However it ends, by a panic too.
        let _ended = Ended(screen.clone());
        drive(&config, &stop, &screen, &orders)
    })
}

struct Ended(SyncSender<Message>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(Message::Ended);
    }
}

fn drive(
    config: &Watch,
    stop: &Stop,
    screen: &SyncSender<Message>,
    orders: &Receiver<Order>,
) -> anyhow::Result<(String, ExitCode)> {
    let mut view = View::open(config, stop)?;
    let driver = Driver::start(&mut *view.host, &view.plan, config.interval, config.filter.clone())?;
    let pace = (!matches!(config.origin, Origin::Live(_))).then(Pace::default);
    let mut playing = Playing { driver, pace, history: view.history, wanted: None };
    let lines = Lines::new(config.terminal.width);
    let mut hook = Hook::start(config.exec.clone())?;
    // They end before the program does, and the summary names them all.
    let mut saving = Vec::new();
    let _ = screen.send(Message::Opened(view.recorded));
    while !stop.load(Ordering::Relaxed) {
        orders.try_iter().for_each(|order| playing.obey(order));
        let mut tick = match playing.driver.advance() {
            Next::Looked => continue,
            Next::Tick(tick) => tick,
            Next::Over => {
                let _ = screen.send(Message::Event(Event::Over));
                // The last tick stays until the user ends it.
                orders.iter().for_each(|order| playing.obey(order));
                break;
            }
        };
        view.namespace.complete(&mut tick);
        hook.tick(&tick);
        if tick.number == 1 && tick.diagnosis.saw_nothing() {
            anyhow::bail!(SAW_NOTHING);
        }
        if !playing.wait(tick.at, orders) {
            break;
        }
        let last = config.count == Some(tick.number);
        if screen.send(Message::Event(Event::Tick(tick))).is_err() || last {
            break;
        }
        if let Some(path) = playing.wanted.take() {
            let (screen, history) = (screen.clone(), playing.history.clone());
            // The ticks go on meanwhile.
            let (told, target) = (screen.clone(), path.clone());
            let started = thread::start("save", move || {
                let result = save(history.as_ref(), &target);
                let _ = told.send(Message::Event(Event::Saved(result.clone())));
                result
            });
            match started {
                Ok(thread) => saving.push(thread),
                Err(error) => {
                    let text = format!("not saved: {}: {error}", path.display());
                    let _ = screen.send(Message::Event(Event::Saved(text)));
                }
            }
        }
    }
    hook.finish();
    let mut summary = lines.summary(playing.driver.watch());
    let mut saved: Vec<String> = saving.into_iter().filter_map(|thread| thread.join().ok()).collect();
    saved.extend(playing.wanted.map(|path| save(playing.history.as_ref(), &path)));
    saved.iter().for_each(|result| summary.push_str(&format!("{}\n", visible(result))));
    Ok((config.terminal.shown(&summary).into_owned(), status(config, playing.driver.watch())))
}

struct Playing<'a> {
    driver: Driver<'a>,
    /// Of a recording.
    pace: Option<Pace>,
    /// Of a live host.
    history: Option<History>,
    /// The recording that is written after the next tick.
    wanted: Option<PathBuf>,
}

impl Playing<'_> {
    /// Waits until the tick of this time is due. False if the screen is gone.
    fn wait(&mut self, at: Moment, orders: &Receiver<Order>) -> bool {
        while let Some(wait) = self.pace.as_ref().and_then(|pace| pace.wait(at)) {
            match orders.recv_timeout(wait) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        if let Some(pace) = &mut self.pace {
            pace.shown(at);
        }
        true
    }

    fn obey(&mut self, order: Order) {
        match (order, &mut self.pace) {
            (Order::Interval(interval), None) => self.driver.set_interval(interval, now()),
            (Order::Play(play), Some(pace)) => pace.order(play),
            (Order::Save(path), None) => {
                // With a last look at everything, who it was is in the recording, too.
                self.driver.sweep_next();
                self.wanted = Some(path);
            }
            _ => {}
        }
    }
}

/// Writes a recording of the last minutes, and says what became of it.
fn save(history: Option<&History>, path: &Path) -> String {
    let Some(history) = history else { return "not saved: nothing is remembered".to_owned() };
    match history.save(path) {
        Ok(covered) => format!("saved {}, the last {}", path.display(), seconds(covered)),
        Err(error) => format!("not saved: {:#}", anyhow::Error::from(error)),
    }
}

/// The pace of a playback.
struct Pace {
    speed: f64,
    stopped: bool,
    /// Ticks that are shown although it is stopped.
    steps: u32,
    latest: Option<(Moment, Instant)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { speed: 1.0, stopped: false, steps: 0, latest: None }
    }
}

impl Pace {
    fn order(&mut self, play: Play) {
        match play {
            Play::Stop => self.stopped = true,
            Play::Go => (self.stopped, self.steps) = (false, 0),
            Play::Step => {
                self.stopped = true;
                self.steps += 1;
            }
            Play::Speed(speed) => self.speed = speed,
        }
    }

    /// How long the tick of this time has to wait before one looks again; `None` if it is due. The first one always is.
    fn wait(&self, at: Moment) -> Option<Duration> {
        let (latest, shown) = self.latest?;
        if self.steps > 0 {
            return None;
        }
        if self.stopped {
            return Some(Duration::from_secs(3600));
        }
        let gap = at.mono.saturating_sub(latest.mono).as_secs_f64() / self.speed;
        let gap = Duration::try_from_secs_f64(gap).unwrap_or(Duration::MAX);
        gap.checked_sub(shown.elapsed()).filter(|left| !left.is_zero())
    }

    fn shown(&mut self, at: Moment) {
        self.steps = self.steps.saturating_sub(1);
        self.latest = Some((at, Instant::now()));
    }
}
