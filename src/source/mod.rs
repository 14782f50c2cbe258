//! One file per evidence source: what to ask the host for, and a pure parser of the bytes that it returns.

pub mod connections;
pub mod conntrack;
pub mod counters;
pub mod destroyed_sockets;
pub mod file_nr;
mod heavy_hitters;
pub mod host_facts;
pub mod listeners;
mod local_addresses;
pub mod namespaces;
pub mod netstat;
pub mod owners;
pub mod process;
pub mod pseudonyms;
pub mod redaction;
pub mod reset_events;
pub mod reset_packets;
pub mod snmp;
pub mod snmp6;
pub mod sock_diag;
pub mod socket_dump;
pub mod sockstat;
pub mod sysctl;
mod text;
mod two_line_table;
pub mod vmstat;

use redaction::Rule;

/// How the answers to each question are redacted.
pub const REDACTIONS: &[&Rule] = &[
    &conntrack::REDACTION,
    &destroyed_sockets::REDACTION,
    &file_nr::REDACTION,
    &host_facts::REDACTION,
    &host_facts::HOSTNAME_REDACTION,
    &host_facts::STATUS_REDACTION,
    &namespaces::REDACTION,
    &netstat::REDACTION,
    &owners::REDACTION,
    &process::redaction::STAT,
    &process::redaction::LIMITS,
    &process::redaction::CGROUP,
    &process::redaction::COMMAND_LINE,
    &reset_events::redaction::REDACTION,
    &reset_events::redaction::TASKS,
    &reset_packets::redaction::REDACTION,
    &snmp::REDACTION,
    &snmp6::REDACTION,
    &sock_diag::redaction::REDACTION,
    &sockstat::REDACTION,
    &sysctl::REDACTION,
    &vmstat::REDACTION,
];
