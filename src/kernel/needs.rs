//! What a person has to have for something that was refused.

use std::os::unix::fs::MetadataExt;

use super::sys;

/// This capability, named so that it helps: root of a user namespace has it there only, and gains nothing by it; and root without
/// it, as in a container, is told by being root nothing.
pub fn capability(name: &str) -> String {
    named(name, is_user_namespace(), rustix::process::geteuid().is_root())
}

fn named(name: &str, in_user_namespace: bool, is_root: bool) -> String {
    match (in_user_namespace, is_root) {
        (true, _) => format!("{name} on the host: this is a user namespace, and its root is an ordinary user there"),
        (false, true) => name.to_owned(),
        (false, false) => format!("root or {name}"),
    }
}

/// The same of what the kernel asks for in the user namespace that owns the network namespace (ns_capable()): where that is the own
/// one, its own capability is enough.
pub fn capability_of_netns(name: &str) -> String {
    let owner = std::fs::File::open("/proc/thread-self/ns/net").ok().and_then(|netns| sys::owner_of(&netns).ok());
    let own = std::fs::File::open("/proc/thread-self/ns/user").ok();
    let inode = |file: std::fs::File| file.metadata().ok().map(|place| place.ino());
    match (owner.and_then(inode), own.and_then(inode)) {
        (Some(owner), Some(own)) if is_user_namespace() && owner == own => name.to_owned(),
        _ => capability(name),
    }
}

/// Whether this process lives in a user namespace other than the first, which maps every number to itself.
fn is_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_first(&map))
}

fn is_first(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::{is_first, named};

    #[test]
    fn who_is_root_is_told_the_capability_and_not_to_become_root() {
        assert_eq!(named("CAP_NET_RAW", false, false), "root or CAP_NET_RAW");
        assert_eq!(named("CAP_NET_RAW", false, true), "CAP_NET_RAW");
        assert!(
            named("CAP_SYS_ADMIN or read access to tracefs", true, true)
                .starts_with("CAP_SYS_ADMIN or read access to tracefs on the host: this is a user namespace")
        );
    }

    #[test]
    fn the_first_user_namespace_maps_all_numbers_to_themselves() {
        assert!(is_first("         0          0 4294967295\n"));
        assert!(!is_first("         0       1000          1\n"));
        assert!(!is_first("         0          0      65536\n"));
    }
}
