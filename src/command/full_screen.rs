//! The terminal while a program has all of it: no echo, no line editing, the alternate screen. It is given back however the
//! program ends: [`leave`] is called by drop, by the panic hook and by whoever ends the process.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

/// As the shell left it.
static FOUND: OnceLock<libc::termios> = OnceLock::new();
static ENTERED: AtomicBool = AtomicBool::new(false);

/// xterm's alternate screen, no cursor, no wrapping: DECSET 1049, 25, 7. A terminal that lacks one ignores it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Gives the terminal back when it goes.
#[derive(Debug)]
pub struct FullScreen(());

impl FullScreen {
    /// Takes the terminal, and sees to it that a panic of any thread gives it back before it is told.
    ///
    /// # Errors
    /// Standard input or output is no terminal.
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        if FOUND.get().is_none() {
            let _ = FOUND.set(attributes()?);
        }
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                hook(panic);
            }));
        });
        let screen = Self(());
        screen.again()?;
        Ok(screen)
    }

    /// Takes it again after [`leave`]. Nothing happens in the background, where the terminal is someone else's.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn again(&self) -> io::Result<()> {
        let (Some(found), true) = (FOUND.get(), is_foreground()) else { return Ok(()) };
        let mut raw = *found;
        // SAFETY: a valid termios.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        ENTERED.store(true, Ordering::SeqCst);
        set(&raw)?;
        write(ENTER)
    }

    /// It was taken, and not given back.
    pub fn is_ours(&self) -> bool {
        ENTERED.load(Ordering::SeqCst)
    }

    /// Shows the text, unless the terminal is not ours now.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn show(&self, text: &str) -> io::Result<()> {
        if self.is_ours() { write(text) } else { Ok(()) }
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back as it was found. Takes no lock, so that any thread may call it at any time.
pub fn leave() {
    if let (true, Some(found)) = (ENTERED.swap(false, Ordering::SeqCst), FOUND.get()) {
        // Whoever ends has no use for an error: the terminal may be gone.
        let _ = write(LEAVE);
        let _ = set(found);
    }
}

/// The terminal's foreground process group is ours. Without job control it always is.
pub fn is_foreground() -> bool {
    // SAFETY: neither takes a pointer.
    let (owner, own) = unsafe { (libc::tcgetpgrp(libc::STDIN_FILENO), libc::getpgrp()) };
    owner < 0 || owner == own
}

fn attributes() -> io::Result<libc::termios> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: it writes one termios, which is read only if it did.
    match unsafe { libc::tcgetattr(libc::STDIN_FILENO, found.as_mut_ptr()) } {
        // SAFETY: the call above filled it.
        0 => Ok(unsafe { found.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// At once: waiting for the output to drain would hang with a terminal that takes none.
fn set(attributes: &libc::termios) -> io::Result<()> {
    // SAFETY: a valid termios that lives until after the call.
    match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, attributes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Past the lock and the buffer of `io::stdout`, which a thread that hangs in a write would hold.
fn write(text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the slice is valid for its length.
        let written = unsafe { libc::write(libc::STDOUT_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody made the terminal non-blocking.
                error if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut room = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
                    // SAFETY: one pollfd, which lives until after the call.
                    unsafe { libc::poll(&raw mut room, 1, 100) };
                }
                error => return Err(error),
            },
        }
    }
    Ok(())
}
