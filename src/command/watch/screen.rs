//! `rstdoctor watch` on a terminal: three threads bring ticks, keys and signals; this one owns the terminal and the state.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

use super::message::Message;
use super::{keyboard, playing};
use crate::command::config::{Live, Netns, Origin, Watch};
use crate::command::full_screen::{self, FullScreen};
use crate::command::terminal;
use crate::input::Stored;
use crate::kernel::clock::now;
use crate::output;
use crate::recording::Window;
use crate::runtime::{self, signals};
use crate::tui::{self, Event, Order, Playback, Setup, State};
use crate::value::Stop;

/// Messages that wait for a terminal that is slow; then ticks wait, too.
const WAITING: usize = 64;
const SECOND: Duration = Duration::from_secs(1);
/// Between two tries to tell the one that draws of the end.
const RETRY: Duration = Duration::from_millis(20);
/// What the end may take before the process goes without it: with a signal, and by a key, where a recording may still be
/// written.
const PATIENCE: Duration = Duration::from_secs(2);
const SAVING: Duration = Duration::from_secs(15);

/// Shows it until it ends. What was seen stays on the terminal as a summary.
///
/// # Errors
/// It cannot be opened, or nothing can be collected.
pub fn run(config: &Watch) -> anyhow::Result<ExitCode> {
    let stop = Stop::default();
    let (sender, inbox) = mpsc::sync_channel(WAITING);
    let (orders, driven) = mpsc::channel();
    // First of all: none is lost while the host is opened.
    pass_on(signals::listen(&[SIGTSTP, SIGCONT, SIGWINCH])?, sender.clone())?;
    let driver = playing::start(config.clone(), Arc::clone(&stop), sender.clone(), driven)?;
    let mut told = true;
    // Until it is open, the terminal stays as it is: an error is then an ordinary line.
    if let Some(Message::Opened(recorded)) = inbox.iter().find(|message| !is_of_no_interest(message)) {
        keyboard::start(sender)?;
        let mut screen = FullScreen::enter()?;
        told = show(setup(config, recorded), &mut screen, &inbox, &orders);
    }
    stop.store(true, Ordering::Relaxed);
    drop((orders, inbox));
    let (summary, status) = finish(driver)?;
    if told {
        output::print(&summary)?;
    }
    Ok(status)
}

/// What the driver says at the end; nothing if it takes too long.
fn finish(driver: JoinHandle<anyhow::Result<(String, ExitCode)>>) -> anyhow::Result<(String, ExitCode)> {
    let start = Instant::now();
    while !driver.is_finished() {
        if start.elapsed() > SAVING {
            return Ok((String::new(), ExitCode::SUCCESS));
        }
        thread::sleep(Duration::from_millis(5));
    }
    // The panic was told by the hook.
    driver.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it ended because of an error in rstdoctor itself")))
}

fn setup(config: &Watch, recorded: Option<Window>) -> Setup {
    let playback = match &config.origin {
        Origin::Recording(path) | Origin::Stored(Stored { directory: path, .. }) => Some(Playback {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            started: recorded.map(|window| window.started).unwrap_or_default(),
            length: recorded.map(|window| window.length).unwrap_or_default(),
        }),
        Origin::Live(_) | Origin::Given(_) => None,
    };
    let size = terminal::size().unwrap_or((80, 24));
    let terminal = config.terminal;
    let netns = match &config.origin {
        Origin::Live(Live { netns: Netns::Named(name), .. }) => Some(name.clone()),
        Origin::Live(_) | Origin::Recording(_) | Origin::Given(_) | Origin::Stored(_) => None,
    };
    Setup { netns, ..Setup::new(!terminal.no_color, terminal.unicode, size, config.interval, playback) }
}

/// Until the end. False if there is nobody left to tell what was seen.
fn show(setup: Setup, screen: &mut FullScreen, inbox: &Receiver<Message>, orders: &mpsc::Sender<Order>) -> bool {
    let mut state = State::new(setup, now());
    loop {
        // It was suspended and may be back in the foreground.
        if !screen.is_ours() && screen.again().is_err() {
            return false;
        }
        match screen.draw(state.size, |buffer| tui::draw(&state, buffer)) {
            Ok(drawn) => drawn.into_iter().for_each(|drawn| state.drawn(drawn)),
            Err(_) => return false,
        }
        let mut next = match inbox.recv_timeout(SECOND) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => Some(Message::Event(Event::Second(now()))),
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        // All that waits is one picture: a storm of resizes or keys is drawn once.
        while let Some(message) = next {
            let event = match message {
                Message::Opened(_) => None,
                Message::Event(event) => Some(event),
                Message::Ended => return true,
                Message::Hangup => return false,
                Message::Signal(SIGWINCH) => terminal::size().map(|(columns, rows)| Event::Resize(columns, rows)),
                Message::Signal(SIGTSTP) => {
                    suspend(&mut state);
                    None
                }
                // Somebody else may have drawn meanwhile.
                Message::Signal(SIGCONT) => {
                    full_screen::leave();
                    None
                }
                Message::Signal(signal) => return signal != SIGHUP,
            };
            match event.and_then(|event| state.update(event)) {
                None => {}
                Some(Order::Quit) => return true,
                Some(Order::Suspend) => suspend(&mut state),
                Some(Order::Redraw) => screen.draw_anew(),
                Some(order) => {
                    // The driver has ended if nobody takes it, and that is a message of its own.
                    let _ = orders.send(order);
                }
            }
            next = inbox.try_recv().ok();
        }
    }
}

/// Stops the job as Ctrl-Z does elsewhere; it goes on here with SIGCONT.
fn suspend(state: &mut State) {
    full_screen::leave();
    if !signals::stop_job() {
        state.message = Some("there is no shell to come back from; q quits".to_owned());
    }
}

/// While nothing is shown, a signal that does not end it.
fn is_of_no_interest(message: &Message) -> bool {
    matches!(message, Message::Signal(SIGTSTP | SIGCONT | SIGWINCH))
}

/// Passes signals on. A terminal that hangs must not keep the process: with the second signal, or when the first one is not
/// heeded in time, it ends from here.
fn pass_on(mut signals: Signals, sender: SyncSender<Message>) -> std::io::Result<()> {
    // Where the one that draws is stuck there may be no room for a message and no thread to wait for it.
    let (ending, due) = mpsc::channel::<i32>();
    let ends = sender.clone();
    runtime::thread::start("end", move || {
        let Ok(signal) = due.recv() else { return };
        let until = Instant::now() + PATIENCE + SECOND;
        let mut told = false;
        while Instant::now() < until {
            told = told || !matches!(ends.try_send(Message::Signal(signal)), Err(TrySendError::Full(_)));
            match due.recv_timeout(RETRY) {
                Ok(SIGHUP) | Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        full_screen::leave();
        signals::end_now();
    })?;
    runtime::thread::start("signals", move || {
        for signal in signals.forever() {
            match signal {
                // A size that is not told now is asked for with the next.
                SIGTSTP | SIGCONT | SIGWINCH => drop(sender.try_send(Message::Signal(signal))),
                _ => drop(ending.send(signal)),
            }
        }
    })
    .map(|_| ())
}
