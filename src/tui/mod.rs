//! The screen of a live view. Pure: keys and ticks become a new [`State`], and the state is drawn into a buffer.
//! `command::watch` owns the terminal, the clock and the threads.

mod detail;
mod glyphs;
mod history;
mod keys;
mod naming;
mod rows;
mod state;
mod view;

pub use keys::Key;
pub use state::{Drawn, Event, Order, Pane, Play, Playback, Setup, State};
pub use view::draw;
