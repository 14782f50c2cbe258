//! Output of netstat, nstat, ss, tcpdump, sysctl, sar and the kernel's tracepoints that a person pasted. One file per kind.

mod counters;
mod events;
mod packets;
mod sar;
mod settings;
mod sockets;

pub use counters::{Counter, Counters};
pub use events::Events;
pub use packets::Packets;
pub use sar::Rates;
pub use settings::Settings;
pub use sockets::{Listening, Sockets};

use super::error_texts::ErrorText;

/// All that was pasted.
#[derive(Debug, Default)]
pub struct Paste {
    pub counters: Counters,
    pub sockets: Sockets,
    pub packets: Packets,
    pub settings: Settings,
    pub events: Events,
    pub rates: Rates,
}

/// Takes a cause's id, its score, the reason for it and the text with the advice.
pub type Support<'a> = dyn FnMut(&'static str, f64, String, &'static ErrorText) + 'a;

/// Whether a line is of output that people paste.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Understood,
    /// It is of such output, and too little of it was understood.
    Unread,
    No,
}

impl Paste {
    /// Takes the line if it belongs to such output.
    pub fn line(&mut self, line: &[u8]) -> Taken {
        // Nothing of this kind is longer than the longest header of /proc/net/netstat.
        let Ok(text) = std::str::from_utf8(line) else { return Taken::No };
        if self.counters.line(text) || self.sockets.line(text) {
            return Taken::Understood;
        }
        match self.packets.line(text) {
            Taken::No => {}
            taken => return taken,
        }
        match self.settings.line(text) || self.events.line(text) || self.rates.line(text) {
            true => Taken::Understood,
            false => Taken::No,
        }
    }

    /// Whether some of that output was seen, so that other lines near it may be parts of it that nobody understood.
    pub fn inside(&self) -> bool {
        self.lines() > 0
    }

    /// Lines that were understood.
    pub fn lines(&self) -> u64 {
        let others = self.settings.lines + self.events.lines + self.rates.lines;
        self.counters.lines + self.sockets.lines + self.packets.packets + others
    }

    /// The causes that it supports.
    pub fn rank(&self, support: &mut Support<'_>) {
        self.counters.rank(support);
        self.sockets.rank(support);
        self.packets.rank(support);
        self.events.rank(support);
        self.rates.rank(support);
    }

    /// What it shows beside the causes, in words.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let first = self.sockets.remarks().into_iter().chain(self.packets.remarks());
        first.chain(self.events.remarks()).chain(self.rates.remarks())
    }
}
