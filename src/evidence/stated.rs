//! What RSTs say of their own reason, in words.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::evidence::Evidence;
use crate::knowledge::reset_reasons;
use crate::source::reset_events::Direction;
use crate::source::reset_packets::{ResetPacket, Stated};

/// What the RSTs of one place say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub words: String,
    pub resets: u64,
    /// A function on the path says so of itself: a NAT, a firewall, a proxy.
    pub by_the_path: bool,
}

/// The reason in a packet, in words; text from outside is not escaped.
pub fn stated_words(packet: &ResetPacket) -> Option<String> {
    Some(match packet.stated.as_ref()? {
        Stated::Diagnostic { code, enterprise: 0 } => match reset_reasons::failure_cause(*code) {
            Some(words) => format!("{words} (diagnostic code {code})"),
            None => format!("diagnostic code {code}"),
        },
        Stated::Diagnostic { code, enterprise } => format!("code {code} of enterprise {enterprise}"),
        Stated::Text(text) => text.clone(),
        Stated::Mptcp(reason) => match reset_reasons::mptcp(*reason) {
            Some(words) => format!("{words} (MPTCP reason {reason})"),
            None => format!("MPTCP reason {reason}"),
        },
    })
}

/// So many connections must end with one code in the window field: it may be a window by chance.
const REPEATED: u64 = 3;

impl Evidence<'_> {
    /// What received RSTs say, the most frequent first; of those from this destination, or to this port of ours.
    pub fn statements(&self, called: Option<SocketAddr>, port: Option<u16>) -> Vec<Statement> {
        let here = |packet: &&ResetPacket| match called {
            Some(called) => packet.peer == called,
            None => port.is_some_and(|port| packet.local.port() == port),
        };
        let packets = self.resets().iter().filter_map(|reset| reset.packet.as_ref());
        let received: Vec<_> = packets
            .filter(|packet| packet.direction == Direction::Received && packet.local_here)
            .filter(here)
            .collect();
        let mut found: BTreeMap<(String, bool), u64> = BTreeMap::new();
        for packet in &received {
            let Some(words) = stated_words(packet) else { continue };
            let by_the_path = match packet.stated {
                Some(Stated::Diagnostic { code, enterprise: 0 }) => reset_reasons::is_of_the_path(code),
                Some(Stated::Mptcp(reason)) => reset_reasons::mptcp_is_of_the_path(reason),
                _ => false,
            };
            *found.entry((words, by_the_path)).or_default() += 1;
        }
        // Without scale factor, timestamps or other options the window of one connection is hardly that of the next.
        let mut windows: BTreeMap<u16, u64> = BTreeMap::new();
        received.iter().for_each(|packet| *windows.entry(packet.window).or_default() += 1);
        for (window, resets) in windows {
            let all = resets >= REPEATED && resets * 2 > received.len() as u64;
            if let Some(words) = reset_reasons::netscaler(window).filter(|_| all) {
                let words = format!("window {window}, by which a NetScaler means: {words}");
                *found.entry((words, true)).or_default() += resets;
            }
        }
        let of = |((words, by_the_path), resets)| Statement { words, resets, by_the_path };
        let mut found: Vec<_> = found.into_iter().map(of).collect();
        found.sort_by_key(|statement| std::cmp::Reverse(statement.resets));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::testing::Case;
    use crate::value::Observed;

    const SERVER: [&str; 2] = ["10.0.0.9:0", "10.0.7.1:443"];

    fn case(count: u16, window: u16, stated: Option<Stated>) -> Case {
        let mut case = Case::new().packets(count, Direction::Received, 0x14, 60, SERVER);
        if let Observed::Full(packets) = &mut case.packets {
            packets.iter_mut().for_each(|packet| (packet.window, packet.stated) = (window, stated.clone()));
        }
        case
    }

    fn said(case: &Case) -> Vec<(String, u64)> {
        let evidence = Evidence::new(case.view());
        let statements = evidence.statements(SERVER[1].parse().ok(), None);
        statements.into_iter().map(|statement| (statement.words, statement.resets)).collect()
    }

    #[test]
    fn what_a_reset_says_is_told_in_words_with_its_number() {
        let timeout = Stated::Diagnostic { code: 14, enterprise: 0 };
        assert_eq!(said(&case(2, 500, Some(timeout))), [("connection timeout (diagnostic code 14)".to_owned(), 2)]);
        let text = Stated::Text("No local listener".to_owned());
        assert_eq!(said(&case(1, 500, Some(text))), [("No local listener".to_owned(), 1)]);
        assert_eq!(said(&case(5, 500, None)), []);
    }

    #[test]
    fn a_window_is_a_code_only_where_it_is_that_of_most_connections() {
        let words = "window 9303, by which a NetScaler means: idle, or the service is down";
        assert_eq!(said(&case(4, 9303, None)), [(words.to_owned(), 4)]);
        assert_eq!(said(&case(2, 9303, None)), [], "two may be chance");
        assert_eq!(said(&case(9, 9999, None)), [], "no code of the vendor");
    }
}
