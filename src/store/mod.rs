//! The store of the flight recorder: a directory that holds a row of recordings, the minutes around faults and a sparse
//! baseline, and an index of everything, both of the format of [`crate::recording`].
//!
//! Files are named `NUMBER-START.rst` (recordings) and `NUMBER-START.idx` (index): a number that only grows, so that the order
//! holds when the clock is set back, and the time of their beginning in UTC. One program writes, which holds a lock (flock(2)) on
//! the file `lock`; whoever reads needs none. Files only grow until they are closed, and are deleted as a whole, the oldest
//! first, recordings before the index; recordings have three tenths of the room.

mod budget;
mod journal;
mod name;
mod read;
mod retention;
mod write;

pub use journal::Journal;
pub use read::{Flaw, ReadProblem, Reading, is_store};
pub use retention::Retention;
pub use write::{Limits, Store, StoreFile};

use std::io;
use std::path::PathBuf;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is written by another rstdoctor agent{who}; give each its own --store", path.display())]
    InUse { path: PathBuf, who: String },
    #[error("{} can be read or written by others (mode {mode:o}), and recordings hold addresses and command lines; chmod 700 it, or give another --store", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} is no directory, and a store is one", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} belongs to user {owner}, not to this one", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("there is no store at {}: `rstdoctor agent` keeps one, --store names it", path.display())]
    None { path: PathBuf },
    #[error("the store {} cannot be used", path.display())]
    File { path: PathBuf, source: io::Error },
}
