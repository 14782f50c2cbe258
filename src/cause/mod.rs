//! One file per root cause. A cause is its documentation, the causes that it explains and a judge; everything else, from
//! the explain text to the man page, derives from the registry below.

mod commands;
mod engine;
mod entry;
mod exit_remedies;
mod finding;
pub mod manifest;
pub(crate) mod numbers;
pub mod packets;
mod place;
mod remedy;
pub mod severity;
mod wording;

pub use entry::Entry;
pub use finding::{EvidenceItem, Finding, Impact, Judgement, Severity, State, Subject, SubjectKind, Together, Verdict};
pub use numbers::Confidence;
pub use remedy::{Change, Fate, Remedy, Verify};

pub use crate::knowledge::servers::{Restart, Setting, SettingKind};

use crate::evidence::Evidence;
use crate::evidence::needs::Source;
use crate::value::Missing;

/// A root cause that can be judged.
pub struct Cause {
    /// Named after the fault; stable for ever.
    pub id: &'static str,
    pub title: &'static str,
    /// Markdown from the doc comment in the cause's own file, with the headings of [`HEADINGS`].
    pub doc: &'static str,
    /// Causes that are symptoms of this one when both are found on the same subject.
    pub explains: &'static [&'static str],
    /// Sources without which it may be impossible to check. With the others it is known better.
    pub needs: &'static [Source],
    pub judge: fn(&Evidence<'_>) -> Judgement,
}

impl Cause {
    /// The first paragraph of "What to change", as plain text.
    pub fn what_to_change(&self) -> String {
        let section = self.doc.split_once("## What to change").map_or("", |(_, rest)| rest);
        let lines = section.lines().map(str::trim).skip_while(|line| line.is_empty());
        let paragraph: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        paragraph.join(" ").replace('`', "")
    }

    /// What else is missing to check it, when `first` kept it from being checked.
    pub fn also_missing(&self, e: &Evidence<'_>, first: &Missing) -> Vec<Missing> {
        let missing = self.needs.iter().filter_map(|source| source.missing(e));
        missing.filter(|other| other.source != first.source).collect()
    }
}

/// The headings that every cause's documentation has, in this order.
pub const HEADINGS: [&str; 5] = ["What happens", "How it shows", "How to confirm", "What to change", "Look-alikes"];

/// Declares a cause together with its documentation, which `rstdoctor explain` and the man page print.
macro_rules! cause {
    ($(#[doc = $doc:literal])* $name:ident { id: $id:literal, title: $title:literal, explains: $explains:expr, needs: [$($need:ident),* $(,)?], judge: $judge:ident $(,)? }) => {
        $(#[doc = $doc])*
        pub static $name: $crate::cause::Cause = $crate::cause::Cause {
            id: $id,
            title: $title,
            doc: concat!($($doc, "\n"),*),
            explains: &$explains,
            needs: &[$($crate::evidence::needs::Source::$need),*],
            judge: $judge,
        };
    };
}

mod abortive_close;
mod accept_loop_stalled;
mod accept_queue_overflow;
mod busy;
mod client_gave_up;
mod close_wait_leak;
mod close_with_unread_data;
mod closed_without_answer;
mod connect_unanswered;
mod connection_limit;
mod conntrack_invalid;
mod conntrack_table_full;
mod ephemeral_ports_exhausted;
mod exchange;
mod fd_exhaustion;
mod firewall_reject;
mod half_open;
mod handshake_reset;
mod health_check_resets;
mod idle_timeout;
mod idle_without_keepalive;
mod keep_ending;
mod keepalive_timeout;
mod late_data_after_close;
mod listener_closed;
mod middlebox_reset;
mod orphan_limit;
mod out_of_window_reset;
mod packets_discarded;
mod peer_idle_limit;
mod peer_reset;
mod peer_restarted;
mod port_scan;
mod port_without_listener;
mod process_exit;
mod queue;
mod retransmission_timeout;
mod signals;
mod slow_reader;
mod socket_destroyed;
mod stale_connection;
mod syn_flood;
mod syn_queue_overflow;
mod tcp_memory_exhausted;
#[cfg(test)]
mod testing;
pub mod text;
mod time_wait_table_full;
mod timestamp_rejected;
mod upstream_refused;
mod wrong_bind_address;

/// Every cause, in the order of the contract.
pub static REGISTRY: &[&Cause] = &[
    &accept_queue_overflow::ACCEPT_QUEUE_OVERFLOW,
    &accept_loop_stalled::ACCEPT_LOOP_STALLED,
    &fd_exhaustion::FD_EXHAUSTION,
    &syn_queue_overflow::SYN_QUEUE_OVERFLOW,
    &syn_flood::SYN_FLOOD,
    &port_without_listener::PORT_WITHOUT_LISTENER,
    &wrong_bind_address::WRONG_BIND_ADDRESS,
    &firewall_reject::FIREWALL_REJECT,
    &close_with_unread_data::CLOSE_WITH_UNREAD_DATA,
    &abortive_close::ABORTIVE_CLOSE,
    &late_data_after_close::LATE_DATA_AFTER_CLOSE,
    &stale_connection::STALE_CONNECTION,
    &listener_closed::LISTENER_CLOSED,
    &process_exit::PROCESS_EXIT,
    &socket_destroyed::SOCKET_DESTROYED,
    &orphan_limit::ORPHAN_LIMIT,
    &tcp_memory_exhausted::TCP_MEMORY_EXHAUSTED,
    &time_wait_table_full::TIME_WAIT_TABLE_FULL,
    &ephemeral_ports_exhausted::EPHEMERAL_PORTS_EXHAUSTED,
    &conntrack_table_full::CONNTRACK_TABLE_FULL,
    &conntrack_invalid::CONNTRACK_INVALID,
    &keepalive_timeout::KEEPALIVE_TIMEOUT,
    &retransmission_timeout::RETRANSMISSION_TIMEOUT,
    &idle_timeout::IDLE_TIMEOUT,
    &idle_without_keepalive::IDLE_WITHOUT_KEEPALIVE,
    &close_wait_leak::CLOSE_WAIT_LEAK,
    &peer_reset::PEER_RESET,
    &upstream_refused::UPSTREAM_REFUSED,
    &connect_unanswered::CONNECT_UNANSWERED,
    &peer_restarted::PEER_RESTARTED,
    &handshake_reset::HANDSHAKE_RESET,
    &middlebox_reset::MIDDLEBOX_RESET,
    &timestamp_rejected::TIMESTAMP_REJECTED,
    &out_of_window_reset::OUT_OF_WINDOW_RESET,
    &health_check_resets::HEALTH_CHECK_RESETS,
    &port_scan::PORT_SCAN,
    &connection_limit::CONNECTION_LIMIT,
    &peer_idle_limit::PEER_IDLE_LIMIT,
    &slow_reader::SLOW_READER,
    &client_gave_up::CLIENT_GAVE_UP,
    &packets_discarded::PACKETS_DISCARDED,
    &closed_without_answer::CLOSED_WITHOUT_ANSWER,
];

/// The cause with this id.
pub fn by_id(id: &str) -> Option<&'static Cause> {
    REGISTRY.iter().copied().find(|cause| cause.id == id)
}
