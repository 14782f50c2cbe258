//! Why something could not be read.

use std::fmt;

/// Why a source gave nothing. This is a normal outcome: the scan goes on and the report names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// In plain words, with the path or call that failed.
    pub reason: String,
    /// What would make it work ("root or CAP_SYS_PTRACE", "a kernel with CONFIG_INET_DIAG"), if anything would.
    pub needs: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The kernel, or this namespace, does not have it.
    Absent,
    /// Permission denied.
    Denied,
    /// It exists but could not be read or understood.
    Broken,
    /// It was not asked for (`--no-events`), or the recording does not contain it.
    NotCollected,
}

impl Failure {
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), needs: None }
    }

    pub fn needs(mut self, needs: impl Into<String>) -> Self {
        self.needs = Some(needs.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.needs {
            Some(needs) => write!(f, " (needs {needs})"),
            None => Ok(()),
        }
    }
}

/// A question without an answer: the source that would have given it, and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub source: &'static str,
    pub reason: String,
    pub needs: Option<String>,
}

impl Missing {
    pub fn new(source: &'static str, reason: impl Into<String>) -> Self {
        Self { source, reason: reason.into(), needs: None }
    }

    pub(crate) fn from_failure(source: &'static str, failure: &Failure) -> Self {
        Self { source, reason: failure.reason.clone(), needs: failure.needs.clone() }
    }
}
