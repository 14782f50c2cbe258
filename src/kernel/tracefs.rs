//! Where the formats of tracepoints stand: tracefs, wherever it can be read.

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{needs, sys};
use crate::value::{Failure, FailureKind};

/// Where it is usually mounted, and where the host has it for a container that shares its process ids.
const PLACES: [&str; 4] = [
    "/sys/kernel/tracing",
    "/sys/kernel/debug/tracing",
    "/proc/1/root/sys/kernel/tracing",
    "/proc/1/root/sys/kernel/debug/tracing",
];
/// Directories that it may cover, in a mount namespace that only one thread sees.
const COVERED: [&str; 3] = ["/sys/kernel/tracing", "/sys/kernel", "/tmp"];
const NEEDS_TRACEFS: &str = "CAP_SYS_ADMIN or read access to tracefs";

/// By which way it was found, where that is worth a word.
pub type Way = Option<String>;

/// Hands its directory to `read`, and says by which way it was found. Where nobody has mounted it, a thread does so in a mount
/// namespace of its own: nobody else sees that, and the kernel drops it with the thread however that ends.
///
/// # Errors
/// It is nowhere, or may not be read.
pub fn with<T: Send>(read: impl FnOnce(&Path) -> T + Send) -> Result<(T, Way), Failure> {
    let mut denied = None;
    for place in PLACES {
        match std::fs::metadata(Path::new(place).join("events")) {
            Ok(_) => {
                let way = place.starts_with("/proc/").then(|| format!("not mounted here: read through {place}"));
                return Ok((read(Path::new(place)), way));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = denied.or(Some(place)),
            Err(_) => {}
        }
    }
    // One that this user may not read, root of the same host may: only one that is not there is mounted.
    let hidden = denied.filter(|place| !place.starts_with("/proc/"));
    if let Some(place) = hidden {
        let text = format!("{place} is not readable");
        return Err(Failure::new(FailureKind::Denied, text).needs(needs::capability(needs::events())));
    }
    match mounted_apart(read) {
        Ok(value) => Ok((value, Some("not mounted here: mounted where only this program sees it".to_owned()))),
        Err(error) => {
            let text = format!("tracefs is not mounted at /sys/kernel/tracing, and cannot be: {error}");
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => FailureKind::Denied,
                _ => FailureKind::Absent,
            };
            Err(Failure::new(kind, text).needs(needs::capability(NEEDS_TRACEFS)))
        }
    }
}

fn mounted_apart<T: Send>(read: impl FnOnce(&Path) -> T + Send) -> io::Result<T> {
    let work = || -> io::Result<T> {
        sys::unshare_mounts()?;
        // Before anything is mounted: what is shared would appear outside, too.
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        let place = COVERED.into_iter().map(Path::new).find(|place| place.is_dir());
        let place = place.ok_or_else(|| io::Error::other("there is no directory to mount it on"))?;
        // Not read-only: that would be asked of the one tracefs that all its mounts show.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tracefs", place, "tracefs", flags, None)?;
        Ok(read(place))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tracefs".to_owned()).spawn_scoped(scope, work);
        thread?.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
