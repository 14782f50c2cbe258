//! The only room that talks to the kernel.

mod addresses;
mod at_once;
pub mod clock;
mod containers;
mod cpu;
pub mod destroyed_sockets;
pub mod live;
pub mod namespace;
pub mod needs;
pub mod netlink;
pub mod node;
mod owners;
pub mod packet;
mod packet_ring;
mod perf;
mod proc_file;
mod reach;
mod ready;
pub mod scope;
mod sys;
pub mod trace_context;
mod tracefs;
pub mod tracepoint;

pub use live::LiveHost;
