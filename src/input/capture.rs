//! A packet capture: the connections in it, and of the hosts nothing else.

use std::sync::Arc;
use std::time::Duration;

use super::held::HeldHost;
use super::{Given, Held, Kind, Namespace, Opened, Unusable, plan};
use crate::capture::{self, Flows};
use crate::observation::{Covers, Input, SourceStatus};
use crate::value::{Failure, FailureKind, Moment};

/// A capture of one packet has no length, and a window has one.
const SHORTEST: Duration = Duration::from_millis(1);

pub const KIND: Kind = Kind { name: "a capture", begins: capture::is_capture, open };

/// One, or one from each end.
fn open(captures: Vec<Held>, given: &Given) -> anyhow::Result<Opened> {
    let mut captures = captures.into_iter();
    let flows = match (captures.next(), captures.next(), captures.next()) {
        (Some(one), None, _) => {
            let flows = capture::read(one.input, &given.local)
                .map_err(|problem| Unusable::new(&one.name, problem.to_string()))?;
            if flows.here.is_given_in_vain() && flows.segments > 0 {
                let local: Vec<_> = given.local.iter().map(ToString::to_string).collect();
                let why = format!("holds no TCP packet of {}: --local names the host that captured", local.join(", "));
                return Err(Unusable::new(&one.name, why).into());
            }
            flows
        }
        (Some(first), Some(second), None) => {
            capture::read_both(first.input, second.input, &given.local).map_err(|(is_second, problem)| {
                Unusable::new(if is_second { &second.name } else { &first.name }, problem.to_string())
            })?
        }
        (_, _, third) => {
            let name = third.map_or_else(|| "--from".to_owned(), |third| third.name);
            return Err(Unusable::new(&name, "is one capture too many: two are read as both ends").into());
        }
    };
    Ok(of_flows(flows))
}

/// What was seen in packets, as an observation.
pub fn of_flows(flows: Flows) -> Opened {
    let failure = flows.broken.as_ref().map(|why| Failure::new(FailureKind::Broken, format!("the capture: {why}")));
    let status =
        SourceStatus { name: "capture", partial: failure.is_some(), failure, note: None, took: Duration::ZERO };
    let length = flows.window().max(SHORTEST);
    let begin = Moment { wall: flows.span.map(|(first, _)| first).unwrap_or_default(), ..Moment::default() };
    let end = Moment { mono: begin.mono + length, wall: begin.wall + length, ..begin };
    let covers =
        Covers { input: Input::Capture, status: Some(status), flows: Some(Arc::new(flows)), ..Covers::default() };
    Opened {
        host: Box::new(HeldHost { begin, end, lacks: "a capture", ..HeldHost::default() }),
        plan: plan(length, false, covers),
        namespace: Namespace::default(),
        recorded: None,
    }
}
