//! One file per root cause. A cause is its documentation, the causes that it explains and a judge; everything else, from
//! the explain text to the man page, derives from the registry below.

mod finding;
pub(crate) mod harm;

pub use finding::{
    EvidenceItem, Finding, Impact, Judgement, Remedy, Restart, Severity, State, Subject, SubjectKind, Verdict,
};

use crate::evidence::Evidence;

/// A root cause that can be judged.
pub struct Cause {
    /// Named after the fault; stable for ever.
    pub id: &'static str,
    pub title: &'static str,
    /// Markdown from the doc comment in the cause's own file, with the headings of [`HEADINGS`].
    pub doc: &'static str,
    /// Causes that are symptoms of this one when both are found on the same subject.
    pub explains: &'static [&'static str],
    pub judge: fn(&Evidence<'_>) -> Judgement,
}

/// The headings that every cause's documentation has, in this order.
pub const HEADINGS: [&str; 5] = ["What happens", "How it shows", "How to confirm", "What to change", "Look-alikes"];

/// Declares a cause together with its documentation, which `rstdoctor explain` and the man page print.
macro_rules! cause {
    ($(#[doc = $doc:literal])* $name:ident { id: $id:literal, title: $title:literal, explains: $explains:expr, judge: $judge:ident $(,)? }) => {
        $(#[doc = $doc])*
        pub static $name: $crate::cause::Cause = $crate::cause::Cause {
            id: $id,
            title: $title,
            doc: concat!($($doc, "\n"),*),
            explains: &$explains,
            judge: $judge,
        };
    };
}

mod abortive_close;
mod accept_queue_overflow;
mod close_with_unread_data;
mod firewall_reject;
mod handshake_reset;
mod health_check_resets;
mod idle_timeout;
mod keepalive_timeout;
mod late_data_after_close;
mod listener_closed;
mod middlebox_reset;
mod out_of_window_reset;
mod peer_reset;
mod port_scan;
mod port_without_listener;
mod process_exit;
mod retransmission_timeout;
mod socket_destroyed;
mod stale_connection;
#[cfg(test)]
pub(crate) mod testing;
mod timestamp_rejected;
mod upstream_refused;
mod wrong_bind_address;

/// Every cause, in the order of the contract.
pub static REGISTRY: &[&Cause] = &[
    &accept_queue_overflow::ACCEPT_QUEUE_OVERFLOW,
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
    &keepalive_timeout::KEEPALIVE_TIMEOUT,
    &retransmission_timeout::RETRANSMISSION_TIMEOUT,
    &idle_timeout::IDLE_TIMEOUT,
    &peer_reset::PEER_RESET,
    &upstream_refused::UPSTREAM_REFUSED,
    &handshake_reset::HANDSHAKE_RESET,
    &middlebox_reset::MIDDLEBOX_RESET,
    &timestamp_rejected::TIMESTAMP_REJECTED,
    &out_of_window_reset::OUT_OF_WINDOW_RESET,
    &health_check_resets::HEALTH_CHECK_RESETS,
    &port_scan::PORT_SCAN,
];

/// The cause with this id.
pub fn by_id(id: &str) -> Option<&'static Cause> {
    REGISTRY.iter().copied().find(|cause| cause.id == id)
}
