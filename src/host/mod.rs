//! The only room that talks to the kernel: everything here implements or serves [`crate::source::Host`].

pub mod bundle;
mod bundle_format;
pub mod last_words;
pub mod live;
pub mod namespace;
pub mod netlink;
mod owners;
pub mod packet;
mod packet_ring;
mod perf;
pub mod recording;
mod redact;
pub mod rolling;
mod syscall;
mod trace_context;
pub mod tracepoint;

pub use bundle::BundleHost;
pub use bundle_format::{Manifest, Tool};
pub use live::LiveHost;
pub use recording::{RecordingFile, RecordingHost};
pub use rolling::{History, RollingHost};
