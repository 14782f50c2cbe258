//! Resets as they are shown, for the tests of this room and of the renderers.

use std::time::Duration;

use super::Reset;
use crate::reset::{self, Surroundings, Traced};
use crate::source::reset_events::ResetEvent;
use crate::source::reset_packets::{PeerTtls, ResetPacket};

pub use crate::reset::testing::{destroyed, event, packet};

pub fn joined(event: Option<ResetEvent>, packet: Option<ResetPacket>) -> Reset {
    let around = Surroundings { traced: Traced::ALL, ..Surroundings::default() };
    let joined = reset::Reset { event, packet, ..reset::Reset::default() };
    let what = around.kind(&joined, &PeerTtls::default());
    Reset { wall: Duration::from_millis(1_800_000_131_031), what, joined, end: None, process: None, location: None }
}
