//! The only room that talks to the kernel.

pub mod destroyed_sockets;
pub mod live;
pub mod namespace;
pub mod netlink;
mod owners;
pub mod packet;
mod packet_ring;
mod perf;
mod syscall;
pub mod trace_context;
pub mod tracepoint;

pub use live::LiveHost;
