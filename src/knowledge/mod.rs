//! What is known about programs and devices from their documentation: data files, embedded at build time.

pub mod servers;
