//! One file per evidence source: what to ask the host for, and a pure parser of the bytes that it returns.

pub mod connections;
pub mod conntrack;
pub mod counters;
pub mod destroyed_sockets;
pub mod file_nr;
mod heavy_hitters;
pub mod host_facts;
pub mod listeners;
pub mod namespaces;
pub mod netstat;
pub mod owners;
pub mod process;
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
