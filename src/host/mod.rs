//! The only room that talks to the kernel.

pub mod packet;
mod perf;
mod trace_context;
pub mod tracepoint;
