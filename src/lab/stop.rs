//! Why a scenario ended early.

use std::io;

use super::report::Status;

#[derive(Debug)]
pub enum Stop {
    /// It cannot run here.
    Skip(String),
    Failed(io::Error),
}

impl Stop {
    pub fn outcome(self) -> (Status, String) {
        match self {
            Self::Skip(reason) => (Status::Skipped, reason),
            Self::Failed(error) => (Status::Fail, format!("the scenario itself failed: {error}")),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}
