//! What is kept of a row of ticks for a long time: an account of each minute and of each tick with trouble, and what happened
//! to causes. And what can be told from that afterwards: episodes, a day of each service, and what was not recorded. Pure.

mod account;
mod entry;
mod past;
mod recorder;
mod service;

pub use account::{Account, ActiveCause, Line, MOST_SERVICES, Totals};
pub use entry::{Direction, Entry, Event, Place, Root, Started, Stopped, millis};
pub use past::{Ending, Episode, Gap, Past, Row, Span, Stamped, Wanted, Why, total};
pub use recorder::Recorder;
pub use service::Service;
