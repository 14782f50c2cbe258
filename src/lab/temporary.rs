//! Where temporary files of a scenario live.

use std::io;

use rustix::mount::{MountFlags, mount};

/// A tmpfs that only the mount namespace of the scenario sees.
pub const DIRECTORY: &str = "/mnt";

/// An empty directory over this one, in this mount namespace only.
pub fn mount_tmpfs(directory: &str) -> io::Result<()> {
    mount_new("tmpfs", directory, MountFlags::NOSUID | MountFlags::NODEV)
}

/// A file system of this kind over that directory.
pub fn mount_new(kind: &str, target: &str, flags: MountFlags) -> io::Result<()> {
    Ok(mount(kind, target, kind, flags, None)?)
}
