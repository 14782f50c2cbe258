//! Recordings: raw answers of a host in a file, written while it is asked and replayed through the live code.
//!
//! # Layout
//! All numbers are little-endian and unsigned. A checksum is CRC-32 as of gzip and zlib (reflected polynomial 0xEDB88320).
//! Reserved bytes are 0.
//!
//! A recording is a row of **segments**, and nothing before, between or behind them. A segment is a head of 32 bytes:
//!
//! | at | bytes | what |
//! |---:|---:|---|
//! | 0 | 8 | `89 52 53 54 0D 0A 1A 0A` |
//! | 8 | 2 | version of the format: 1. A reader refuses a newer one, whatever follows |
//! | 10 | 2 | kind of the segment: 1, the answers of one host; 2, the index of a store |
//! | 12 | 4 | number of the segment in the recording, from 0 |
//! | 16 | 4 | length of the manifest, at most 65,536 |
//! | 20 | 4 | checksum of the manifest |
//! | 24 | 4 | reserved |
//! | 28 | 4 | checksum of the 28 bytes before |
//!
//! then the manifest, [`Manifest`] as JSON, the same in every segment of a recording; then frames; then an end. A frame and an
//! end have a head of 24 bytes:
//!
//! | at | bytes | what |
//! |---:|---:|---|
//! | 0 | 4 | 1 dump, 2 before, 3 poll, 4 tick, 5 after ([`crate::ask::Frame`]), 6 an entry of an index, 7 an opening; 0xFE the segment ends and another one follows, 0xFF the recording ends |
//! | 4 | 4 | number of the frame in its segment, from 0; in an end the number of frames |
//! | 8 | 4 | length of the packed frame behind this head; 0 in an end |
//! | 12 | 4 | length of the frame when unpacked, at most 96 MiB; 0 in an end |
//! | 16 | 4 | checksum of the packed frame; 0 in an end |
//! | 20 | 4 | checksum of the 20 bytes before |
//!
//! Frames are packed with raw deflate (RFC 1951). The frames of one segment are one deflate stream without a last block, flushed
//! to a byte boundary behind each frame (an empty stored block, zlib's `Z_SYNC_FLUSH`): a frame may refer to the 32 KiB before
//! it, and a segment needs no other. Unpacked, a frame is
//! - five times of 8 bytes, ns: when it was due and when the window was to end, since the start of the window; CLOCK_BOOTTIME,
//!   CLOCK_REALTIME, and the time in suspend when it was opened ([`crate::value::Moment`]);
//! - the answers in the order of the questions, up to the end of the frame. An answer is
//!   - length (2 bytes) and text of its [`crate::ask::Ask::key`]. A key that comes again was asked again;
//!   - parts: length (4 bytes) and bytes, at most about 1 MiB unless one message is longer. A netlink message or a line never
//!     lies in two parts. A length of 0 ends them;
//!   - how it went (1 byte): 0 well, or why not: 1 absent, 2 denied, 3 broken, 4 not collected
//!     ([`crate::value::FailureKind`]), then length (2 bytes) and text of the reason, and the same of what it needs.
//!
//! An entry of an index is a frame with one answer, whose key is `host/entry` and whose text is JSON
//! ([`crate::history::Entry`]).
//!
//! An opening is the first frame of a segment that is not the first: the answers of a host that say once and for all what holds (its
//! settings, what a stream is, its totals so far), as they were then. One who has read the segments before passes over it; one who
//! could not begins with it. The recordings of a store have one in each segment, a new one every half a minute; its index begins a
//! segment every two minutes, and each of its entries stands for itself.
//!
//! # What a reader may rely on
//! - A file that grows consists of whole frames up to its last one. One without an end was cut off: it is read up to its last
//!   whole frame, and the last tick with counters closes its window. If no window can be closed it is refused. Zeros from some
//!   byte to the end of the file are what a power cut leaves: cut off there, too.
//! - Whatever else does not fit (a checksum, a number, an order) is damage, and the recording is refused with the place. Of a file
//!   of a store, which nobody can copy again, is read what is whole: it goes on with the next segment of the same recording whose head
//!   is sound, and what lies between is a time of which nothing is known.
//! - Frames follow each other in time: dump and before open a window, after closes it, polls and ticks lie within.
//! - A recording unpacks to at most 128 MiB plus 256 times its size. The writer leaves out what does not fit and says so in the
//!   answer.
//! - To append, replace nothing and add a segment. To cut, drop bytes from the end.

mod contents;
mod encoder;
mod file;
mod format;
mod frame;
mod index;
mod kept;
mod problem;
mod reader;
mod redact;
pub mod replay;
pub mod rolling;
mod row;
mod segments;
pub mod show;
pub mod write;

pub use contents::Window;
pub use file::RecordingFile;
pub use format::{FrameKind, Manifest, Tool, is_recording};
pub use index::{Found, IndexWriter, entries};
pub use problem::{Place, RecordingError, RecordingProblem};
pub use reader::{Cut, Hole};
pub use replay::ReplayHost;
pub use rolling::{History, RollingHost};
pub use row::{Excerpt, Lost, Raw, excerpts};
pub use segments::{Closed, SegmentingHost, Segments};
pub use write::{RecordError, RecordingHost, RedactingHost};
