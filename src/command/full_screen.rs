//! The terminal while a program has all of it: no echo, no line editing, the alternate screen. It is given back however the
//! program ends: [`leave`] is called by drop, by the panic hook and by whoever ends the process.

use std::io::{self, BufWriter, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::style::ResetColor;
use crossterm::terminal::{
    DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::event::PollFlags;

use super::terminal::poll;
use crate::output::Stdout;

/// For a terminal that takes no output.
const PATIENCE: Duration = Duration::from_secs(1);
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back when it goes.
#[derive(Debug)]
pub struct FullScreen {
    terminal: Terminal<CrosstermBackend<BufWriter<Ours>>>,
    /// What it shows has to be drawn from nothing.
    anew: bool,
}

impl FullScreen {
    /// Takes the terminal, and sees to it that a panic of any thread gives it back before it is told.
    ///
    /// # Errors
    /// Standard input or output is no terminal.
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        let mut screen = Self { terminal: Terminal::new(CrosstermBackend::new(BufWriter::new(Ours)))?, anew: true };
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                hook(panic);
            }));
        });
        screen.again()?;
        Ok(screen)
    }

    /// Takes it again after [`leave`]. Nothing happens in the background, where the terminal is someone else's.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn again(&mut self) -> io::Result<()> {
        if !is_foreground() {
            return Ok(());
        }
        ENTERED.store(true, Ordering::SeqCst);
        self.anew = true;
        enable_raw_mode()?;
        execute!(Ours, EnterAlternateScreen, cursor::Hide, DisableLineWrap)
    }

    /// It was taken, and not given back.
    pub fn is_ours(&self) -> bool {
        ENTERED.load(Ordering::SeqCst)
    }

    /// The next picture is drawn from nothing.
    pub fn draw_anew(&mut self) {
        self.anew = true;
    }

    /// Shows a picture of this size and gives what its drawing gave; `None` if the terminal is not ours now.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw<T>(
        &mut self,
        (width, height): (u16, u16),
        picture: impl FnOnce(&mut Buffer) -> T,
    ) -> io::Result<Option<T>> {
        if !self.is_ours() {
            return Ok(None);
        }
        let area = Rect::new(0, 0, width, height);
        // Not `Terminal::clear`: it asks the terminal where the cursor is, and waits for the answer. Nor `Terminal::draw`: it
        // asks for the size by a way that may start tput(1).
        if self.anew || self.terminal.current_buffer_mut().area != area {
            self.terminal.resize(area)?;
            self.anew = false;
        }
        let drawn = picture(self.terminal.current_buffer_mut());
        self.terminal.apply_buffer().map(|_| Some(drawn))
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back as it was found. Any thread may call it at any time: the only lock is one that crossterm holds for
/// the system calls that set the modes, which wait for nothing; and a terminal that takes no output gets none.
pub fn leave() {
    if ENTERED.swap(false, Ordering::SeqCst) {
        // Whoever ends has no use for an error: the terminal may be gone.
        if !poll(&io::stdout(), PollFlags::OUT, PATIENCE).is_empty() {
            let _ = execute!(Past, ResetColor, EnableLineWrap, cursor::Show, LeaveAlternateScreen);
        }
        let _ = disable_raw_mode();
    }
}

/// The terminal's foreground process group is ours. Without job control it always is.
pub fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).map_or(true, |owner| owner == rustix::process::getpgrp())
}

/// What is written while the terminal is not ours goes nowhere.
#[derive(Debug)]
struct Ours;

impl Write for Ours {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if ENTERED.load(Ordering::SeqCst) { Past.write(bytes) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Past whatever another thread holds while it hangs in a write.
struct Past;

impl Write for Past {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Stdout::open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
