//! What the threads of the screen tell the one that draws.

use crate::recording::Window;
use crate::tui::Event;

pub enum Message {
    /// The host is open, or the recording with this window.
    Opened(Option<Window>),
    Event(Event),
    Signal(i32),
    /// The keyboard is gone, and the terminal with it.
    Hangup,
    /// The thread that drives has ended.
    Ended,
}
