//! The only room that talks to the kernel.

mod perf;
mod trace_context;
pub mod tracepoint;
