//! A packet capture: the connections in it, and of the hosts nothing else.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::held::HeldHost;
use super::{Namespace, Opened, Unusable, plan};
use crate::capture::{self, Flows};
use crate::observation::{Covers, Input, SourceStatus};
use crate::value::{Failure, FailureKind, Moment};

/// A capture of one packet has no length, and a window has one.
const SHORTEST: Duration = Duration::from_millis(1);

pub fn open(name: &str, input: Box<dyn Read + Send>, local: &[IpAddr]) -> anyhow::Result<Opened> {
    let flows = capture::read(input, local).map_err(|problem| Unusable::new(name, problem.to_string()))?;
    Ok(of_flows(flows))
}

/// The same of two, one from each end.
pub fn both(names: [&str; 2], [first, second]: [Box<dyn Read + Send>; 2], local: &[IpAddr]) -> anyhow::Result<Opened> {
    let [first_name, second_name] = names;
    let flows = capture::read_both(first, second, local).map_err(|(is_second, problem)| {
        Unusable::new(if is_second { second_name } else { first_name }, problem.to_string())
    })?;
    Ok(of_flows(flows))
}

/// What was seen in packets, as an observation.
pub fn of_flows(flows: Flows) -> Opened {
    let failure = flows.broken.as_ref().map(|why| Failure::new(FailureKind::Broken, format!("the capture: {why}")));
    let status = SourceStatus { name: "capture", partial: failure.is_some(), failure, took: Duration::ZERO };
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
