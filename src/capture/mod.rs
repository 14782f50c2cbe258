//! What a capture tells of TCP connections: a tracker that follows each in bounded memory, and what an expert reads from those
//! that were reset, refused or not answered.
//!
//! Counted as tshark counts: connections are its streams, resets are packets with RST. What is counted is not what happened:
//! three RSTs may be one refused connect ([`Reading`]).

use std::io::Read;
use std::net::IpAddr;

mod around;
mod ends;
pub mod file;
pub mod flow;
pub mod flows;
mod here;
mod kept;
pub mod link;
mod past;
mod protocol;
pub mod reading;
pub mod reset;
mod sides;
pub mod story;
#[cfg(test)]
mod tests;
mod tracker;

pub use file::is_capture;
pub use flow::{Flow, Side};
pub use flows::{Ends, Flows, Told};
pub use reset::{Doubt, Phase, Rst};
pub use story::{Alike, Place, Reading, Story, Sure, alike};
pub use tracker::Tracker;

/// Reads a whole capture. `local`: the addresses of the host on which it was made, where they are given.
///
/// # Errors
/// See [`file::read`].
pub fn read(input: Box<dyn Read + Send + '_>, local: &[IpAddr]) -> Result<Flows, file::Problem> {
    let mut tracker = Tracker::default();
    tracker.local(local);
    follow(input, tracker)
}

/// Reads a capture and keeps every connection, for what another end saw of it.
///
/// # Errors
/// See [`file::read`].
pub fn read_all(input: Box<dyn Read + Send + '_>, local: &[IpAddr]) -> Result<Flows, file::Problem> {
    let mut tracker = Tracker::default();
    tracker.keep_all();
    tracker.local(local);
    follow(input, tracker)
}

/// Reads two captures of the same connections, one from each end.
///
/// # Errors
/// See [`file::read`]; the flag says whether it was the second.
pub fn read_both(
    first: Box<dyn Read + Send + '_>,
    second: Box<dyn Read + Send + '_>,
    local: &[IpAddr],
) -> Result<Flows, (bool, file::Problem)> {
    let mut flows = read_all(first, local).map_err(|problem| (false, problem))?;
    let second = read_all(second, &[]).map_err(|problem| (true, problem))?;
    ends::join(&mut flows, second);
    Ok(flows)
}

fn follow(input: Box<dyn Read + Send + '_>, mut tracker: Tracker) -> Result<Flows, file::Problem> {
    let ending = file::read(input, &mut |frame| {
        let at = tracker.time(frame.at);
        tracker.packet(link::read(frame, at), at, frame.interface, frame.link, frame.cut > 0);
    })?;
    Ok(tracker.finish(ending.format, ending.broken))
}
