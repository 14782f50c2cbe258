//! The screen of a live view. Pure: bytes of the keyboard become [`Key`]s, keys and ticks become a new [`State`], the state
//! is drawn into a buffer, and the difference of two buffers becomes bytes for the terminal. `command::watch` owns the
//! terminal, the clock and the threads.

pub mod ansi;
mod detail;
mod glyphs;
mod history;
mod input;
mod keys;
mod rows;
mod state;
mod view;

pub use input::Input;
pub use keys::Key;
pub use state::{Event, Order, Pane, Play, Setup, State};
pub use view::draw;
