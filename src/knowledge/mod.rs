//! What is known about programs and devices from their documentation: data files, embedded at build time.

pub mod error_texts;
pub mod idle_timeouts;
pub mod log;
pub mod paste;
pub mod reset_kinds;
pub mod reset_reasons;
pub mod servers;
