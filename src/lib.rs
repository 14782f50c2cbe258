//! rstdoctor: who reset my connections, why, and what do I change?
//!
//! The rooms stand below in the order of the flow: **each imports only from those above it**. Everything up to `tui` is a
//! pure function of bytes and time; only `kernel` asks the kernel, and only the rooms after it touch files, clocks and
//! terminals. The architecture test reads this list, so a room that is not on it fails.
//!
//! # As a library
//! What is shown here is all that is meant for other programs: [`open`] an [`Origin`], [`observe`] it or drive a [`Session`]
//! over it, and [`diagnose`] each [`View`] of the [`Observation`]; [`json`] is what programs read of that. The rooms themselves
//! are open to the tests, the benchmarks and the fuzz targets of this project only, and promise nothing.
//!
//! ```no_run
//! use rstdoctor::{Live, Origin, diagnose, observe, open};
//! use std::time::Duration;
//!
//! let origin = Origin::Live(Live { duration: Duration::from_secs(3), events: true, ..Live::default() });
//! let mut opened = open(&origin, &Default::default())?;
//! let observation = observe(&mut *opened.host, &opened.plan)?;
//! for view in observation.views() {
//!     println!("{}", diagnose(view).summary);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use diagnosis::{Diagnosis, diagnose};
pub use input::{Live, Opened, Origin, open};
pub use observation::{Observation, View};
pub use render::json;
pub use session::{Plan, Session, observe};

// Points in time, what was observed and why not, TCP states, words for people.
#[doc(hidden)]
pub mod value;

// One question to the kernel, and the trait through which it is asked.
#[doc(hidden)]
pub mod ask;

// The block grammar of the streams: reset events, RST packets, destroyed sockets.
#[doc(hidden)]
pub mod stream;

// One file per evidence source: what to ask, and a pure parser of the answer.
#[doc(hidden)]
pub mod source;

// Captured packets: the connections in them, who reset each and how.
#[doc(hidden)]
pub mod capture;

// Data files: servers and their settings, idle limits, error texts.
#[doc(hidden)]
pub mod knowledge;

// One reset: event, packet and destroyed socket joined, and which kind it is.
#[doc(hidden)]
pub mod reset;

// A window: two snapshots and what was seen between them, of the host and of each network namespace.
#[doc(hidden)]
pub mod observation;

// The resets of a window by kind, and what of them TCP did not send.
#[doc(hidden)]
pub mod attribution;

// The typed questions that causes may ask about an observation.
#[doc(hidden)]
pub mod evidence;

// One file per root cause.
#[doc(hidden)]
pub mod cause;

// Causes ranked, filtered and put into one sentence.
#[doc(hidden)]
pub mod diagnosis;

// Drives a probe through windows, live or replayed.
#[doc(hidden)]
pub mod session;

// Single resets in bounded memory, as `trace` shows them.
#[doc(hidden)]
pub mod trace;

// A row of diagnoses: what appeared, worsened and ended.
#[doc(hidden)]
pub mod timeline;

// What is kept of a row of ticks for a long time, and what can be told from it afterwards.
#[doc(hidden)]
pub mod history;

// Counters and gauges for a monitoring system.
#[doc(hidden)]
pub mod metrics;

// One file per output format.
#[doc(hidden)]
pub mod render;

// The live screen: a pure state, and a view that draws it.
#[doc(hidden)]
pub mod tui;

// The only room that talks to the kernel.
#[doc(hidden)]
pub mod kernel;

// Recordings: written, read, redacted, kept in memory.
#[doc(hidden)]
pub mod recording;

// Signals, threads that may not start, privileges.
#[doc(hidden)]
pub mod runtime;

// The store of the flight recorder: a directory of recordings and of their index.
#[doc(hidden)]
pub mod store;

// One file per kind of input: a running kernel, a recording.
#[doc(hidden)]
pub mod input;

// Standard output and standard error.
#[doc(hidden)]
pub mod output;

// Reproduces faults in namespaces of its own.
#[doc(hidden)]
pub mod lab;

// The command line: wires only.
#[doc(hidden)]
pub mod command;
