//! rstdoctor: who reset my connections, why, and what do I change?
//!
//! The rooms stand below in the order of the flow: **each imports only from those above it**. Everything up to `tui` is a
//! pure function of bytes and time; only `kernel` asks the kernel, and only the rooms after it touch files, clocks and
//! terminals. The architecture test reads this list, so a room that is not on it fails.

// Points in time, what was observed and why not, TCP states, words for people.
pub mod value;

// One question to the kernel, and the trait through which it is asked.
pub mod ask;

// The block grammar of the streams: reset events, RST packets, destroyed sockets.
pub mod stream;

// One file per evidence source: what to ask, and a pure parser of the answer.
pub mod source;

// Data files: servers and their settings, idle limits, error texts.
pub mod knowledge;

// One reset: event, packet and destroyed socket joined, and which kind it is.
pub mod reset;

// A window: two snapshots and what was seen between them, of the host and of each network namespace.
pub mod observation;

// The resets of a window by kind, and what of them TCP did not send.
pub mod attribution;

// The typed questions that causes may ask about an observation.
pub mod evidence;

// One file per root cause.
pub mod cause;

// Causes ranked, filtered and put into one sentence.
pub mod diagnosis;

// Drives a probe through windows, live or replayed.
pub mod session;

// Single resets in bounded memory, as `trace` shows them.
pub mod trace;

// A row of diagnoses: what appeared, worsened and ended.
pub mod timeline;

// One file per output format.
pub mod render;

// The live screen: a pure state, and a view that draws it.
pub mod tui;

// The only room that talks to the kernel.
pub mod kernel;

// Recordings: written, read, redacted, kept in memory.
pub mod recording;

// Signals, threads that may not start, privileges.
pub mod runtime;

// One file per kind of input: a running kernel, a recording.
pub mod input;

// Standard output and standard error.
pub mod output;

// Reproduces faults in namespaces of its own.
pub mod lab;

// The command line: wires only.
pub mod command;
