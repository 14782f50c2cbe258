//! The only room that talks to the kernel: everything here implements or serves [`crate::source::Host`].

pub mod live;
pub mod namespace;
pub mod netlink;
mod owners;

pub use live::LiveHost;
