//! What is kept of a row of ticks for a long time: an account of each minute and of each tick with trouble, and what happened
//! to causes. And what can be told from that afterwards: episodes, a day of each service, and what was not recorded. Pure.

mod account;
mod entry;
mod past;
mod recorder;

pub use account::{Account, ActiveCause, Line, MOST_SERVICES, Service, Totals};
pub use entry::{Direction, Entry, Event, Place, Started, Stopped, millis};
pub use past::{Ending, Episode, Past, Row, Span, Stamped, Wanted, total};
pub use recorder::Recorder;
