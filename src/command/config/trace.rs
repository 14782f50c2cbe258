//! The settings of `trace`.

use std::time::Duration;

use super::{Live, Origin, Terminal, UsageError, netns, not_empty, origin, ports, positive};
use crate::command::cli::TraceArgs;
use crate::source::reset_events::Direction;
use crate::trace;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub filter: trace::Filter,
    pub json: bool,
    /// `None`: until interrupted.
    pub count: Option<u64>,
    /// `duration` of a live origin is [`Duration::MAX`] where it ends only when interrupted.
    pub origin: Origin,
    pub terminal: Terminal,
}

impl Trace {
    /// It ends only when interrupted.
    pub fn endless(&self) -> bool {
        matches!(&self.origin, Origin::Live(live) if live.duration == Duration::MAX)
    }
}

/// Validates the arguments of `trace`.
///
/// # Errors
/// [`UsageError`] names the option and what to write instead.
pub fn trace(args: &TraceArgs, terminal: Terminal) -> Result<Trace, UsageError> {
    if args.count == Some(0) {
        return Err(UsageError::NotOne { option: "--count" });
    }
    let direction = match (args.sent, args.received) {
        (true, true) => {
            let why = "without either, both are shown";
            return Err(UsageError::Conflict { one: "--sent", other: "--received", why });
        }
        (true, false) => Some(Direction::Sent),
        (false, true) => Some(Direction::Received),
        (false, false) => None,
    };
    let duration = positive("--duration", args.duration.as_ref(), "30s")?;
    let netns = netns(&args.place)?;
    let given = [
        ("--duration", duration.is_some()),
        ("--netns", args.place.netns.is_some()),
        ("--this-netns", args.place.this_netns),
    ];
    let live = Live { duration: duration.unwrap_or(Duration::MAX), netns, events: true, unattended: false };
    Ok(Trace {
        origin: match &args.span.stored {
            Some(stored) => Origin::Stored(stored.clone()),
            None => origin(super::recording(args.from.as_ref()), given, live)?,
        },
        filter: trace::Filter {
            direction,
            ports: ports(&args.port)?,
            process: not_empty("--process", args.process.as_ref())?,
        },
        json: args.json,
        count: args.count,
        terminal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_runs_until_interrupted_unless_told_otherwise() {
        let given = |args: &TraceArgs| trace(args, Terminal::default());
        let all = given(&TraceArgs::default()).expect("no argument is needed");
        assert_eq!((all.count, all.endless(), all.filter.is_empty()), (None, true, true));
        let sent = given(&TraceArgs { sent: true, ..TraceArgs::default() }).expect("valid");
        assert_eq!(sent.filter.direction, Some(Direction::Sent));
        let both = given(&TraceArgs { sent: true, received: true, ..TraceArgs::default() });
        assert!(matches!(both, Err(UsageError::Conflict { .. })));
        assert_eq!(
            given(&TraceArgs { count: Some(0), ..TraceArgs::default() }),
            Err(UsageError::NotOne { option: "--count" })
        );
        let nothing = given(&TraceArgs { duration: Some("0s".into()), ..TraceArgs::default() });
        assert!(matches!(nothing, Err(UsageError::Zero { .. })));
    }
}
