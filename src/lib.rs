pub mod lab;
pub mod snapshot;
pub mod source;
