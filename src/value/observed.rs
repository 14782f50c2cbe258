//! A value that may not have been observed. Not observed is never zero.

use crate::value::{Failure, FailureKind, Missing};

/// What one source gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed<T> {
    /// All of it.
    Full(T),
    /// Some of it; the failure says what is missing.
    Partial(T, Failure),
    /// None of it.
    Unavailable(Failure),
}

impl<T> Observed<T> {
    /// Nobody has asked yet.
    pub fn not_asked() -> Self {
        Self::Unavailable(Failure::new(FailureKind::NotCollected, "not asked for"))
    }

    /// Nobody asked, or a recording does not hold it.
    pub fn is_not_collected(&self) -> bool {
        matches!(self, Self::Unavailable(Failure { kind: FailureKind::NotCollected, .. }))
    }

    /// The value, whole or in part.
    pub fn value(&self) -> Option<&T> {
        match self {
            Observed::Full(value) | Observed::Partial(value, _) => Some(value),
            Observed::Unavailable(_) => None,
        }
    }

    /// The value, or why there is none.
    pub fn get(&self) -> Result<&T, &Failure> {
        match self {
            Observed::Full(value) | Observed::Partial(value, _) => Ok(value),
            Observed::Unavailable(failure) => Err(failure),
        }
    }

    /// The value, or that `source` is missing.
    pub(crate) fn required(&self, source: &'static str) -> Result<&T, Missing> {
        self.get().map_err(|failure| Missing::from_failure(source, failure))
    }

    /// What is missing: all of it or a part.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Observed::Full(_) => None,
            Observed::Partial(_, failure) | Observed::Unavailable(failure) => Some(failure),
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Observed<U> {
        match self {
            Observed::Full(value) => Observed::Full(f(value)),
            Observed::Partial(value, failure) => Observed::Partial(f(value), failure),
            Observed::Unavailable(failure) => Observed::Unavailable(failure),
        }
    }
}

/// Text or bytes that do not have the form that the kernel documents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}{}: {problem}", .line.map(|n| format!(", line {n}")).unwrap_or_default())]
pub struct ParseError {
    /// The source, by the path or protocol a person would look it up under.
    pub source_name: String,
    /// Line number from 1, where the source is text.
    pub line: Option<usize>,
    /// What is wrong, naming the field.
    pub problem: String,
}

impl ParseError {
    pub fn new(source_name: impl Into<String>, line: Option<usize>, problem: impl Into<String>) -> Self {
        Self { source_name: source_name.into(), line, problem: problem.into() }
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Failure::new(FailureKind::Broken, error.to_string())
    }
}
