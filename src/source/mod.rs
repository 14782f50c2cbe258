//! One file per evidence source: what to ask the host for, and a pure parser of the bytes that it returns.

pub mod connections;
pub mod conntrack;
pub mod counters;
pub mod destroyed_sockets;
pub mod file_nr;
mod heavy_hitters;
pub mod host_facts;
pub mod listeners;
pub mod local_addresses;
pub mod namespaces;
pub mod netstat;
pub mod node;
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

use counters::CounterFile;
use redaction::Rule;

/// Every text file of counters, in the order in which they are read. Netstat and snmp are last, next to the streams that are read
/// after them: what comes between belongs to two windows.
pub static COUNTER_FILES: &[&CounterFile] =
    &[&vmstat::FILE, &file_nr::FILE, &snmp6::FILE, &sockstat::FILE, &sockstat::FILE_6, &netstat::FILE, &snmp::FILE];

/// How the answers to each question are redacted.
pub fn redactions() -> impl Iterator<Item = &'static Rule> {
    REDACTIONS.iter().copied().chain(COUNTER_FILES.iter().map(|file| &file.redaction))
}

/// Those of the sources that are no counter files.
const REDACTIONS: &[&Rule] = &[
    &conntrack::REDACTION,
    &destroyed_sockets::REDACTION,
    &host_facts::REDACTION,
    &host_facts::HOSTNAME_REDACTION,
    &host_facts::STATUS_REDACTION,
    &namespaces::REDACTION,
    &node::REDACTION,
    &owners::REDACTION,
    &process::redaction::STAT,
    &process::redaction::LIMITS,
    &process::redaction::SCHEDSTAT,
    &process::redaction::CGROUP,
    &process::redaction::COMMAND_LINE,
    &reset_events::redaction::REDACTION,
    &reset_events::redaction::TASKS,
    &reset_packets::redaction::REDACTION,
    &sock_diag::redaction::REDACTION,
    &sysctl::REDACTION,
];
