//! What is asked for.

use std::collections::BTreeSet;

use super::{Place, Service};

/// What is asked for. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub since: u64,
    pub until: u64,
    /// One of these; none for any.
    pub ports: BTreeSet<u16>,
    pub process: Option<String>,
    pub cause: Option<String>,
    /// Of another namespace than the recorder's own.
    pub netns: Option<String>,
}

/// A time, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub until: u64,
}

impl Wanted {
    /// Not all that happened in the time is asked for.
    pub fn is_narrow(&self) -> bool {
        !self.ports.is_empty() || self.process.is_some() || self.cause.is_some() || self.netns.is_some()
    }

    pub(super) fn cause(&self, id: &str) -> bool {
        self.cause.as_ref().is_none_or(|cause| cause == id)
    }

    /// Of a port also those who call it: they see what the service itself may not.
    pub(super) fn place(&self, place: &Place) -> bool {
        (self.ports.is_empty() || place.any_port().is_some_and(|port| self.ports.contains(&port)))
            && self.process.as_ref().is_none_or(|name| place.process.as_ref() == Some(name))
            && self.netns.as_ref().is_none_or(|netns| place.is_in(netns))
    }

    pub(super) fn service(&self, service: &Service) -> bool {
        self.place(&service.place)
    }

    /// The part of a time that was asked for.
    pub(super) fn clip(&self, span: Span) -> Option<Span> {
        let within = Span { from: span.from.max(self.since), until: span.until.min(self.until) };
        (within.from < within.until).then_some(within)
    }
}
