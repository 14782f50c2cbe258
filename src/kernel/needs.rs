//! What a person has to have for something that was refused.

use std::os::unix::fs::MetadataExt;

use rustix::thread::{CapabilitySet, capabilities};

use super::sys;
use crate::source::host_facts::{is_first, needed};

/// This capability, named so that it helps: root of a user namespace has it there only, and gains nothing by it; root without
/// it, as in a container, is told by being root nothing; and who has it is stopped by something else.
pub fn capability(name: &str) -> String {
    named(name, is_user_namespace(), rustix::process::geteuid().is_root(), is_held(name))
}

/// Of the events and their formats: who lacks both is told so at once.
pub fn events() -> &'static str {
    match is_held("CAP_PERFMON") || is_held("CAP_SYS_ADMIN") {
        true => "CAP_DAC_READ_SEARCH",
        false => "CAP_PERFMON with CAP_DAC_READ_SEARCH",
    }
}

fn named(name: &str, in_user_namespace: bool, is_root: bool, is_held: bool) -> String {
    if in_user_namespace || !is_held {
        return needed(name, in_user_namespace, is_root);
    }
    // seccomp answers EPERM where Docker's profile, or a unit's SystemCallFilter=, forbids a system call.
    let held: Vec<&str> = these(name).collect();
    format!("a sandbox that allows it (seccomp, SELinux, AppArmor): {} is there", held.join(" with "))
}

/// What is asked for: not what older kernels ask for instead, nor another way.
fn these(name: &str) -> impl Iterator<Item = &str> {
    let asked = name.split(['(', ';']).next().unwrap_or_default();
    let asked = asked.split_once(" or ").map_or(asked, |(first, _)| first);
    asked.split([' ', ',']).filter(|word| word.starts_with("CAP_"))
}

/// This process has all of them, where it lives.
fn is_held(name: &str) -> bool {
    let Ok(held) = capabilities(None).map(|sets| sets.effective) else { return false };
    let of = |word: &str| CapabilitySet::from_name(word.trim_start_matches("CAP_"));
    these(name).count() > 0 && these(name).all(|word| of(word).is_some_and(|one| held.contains(one)))
}

/// The same of what the kernel asks for in the user namespace that owns the network namespace (ns_capable()): where that is the own
/// one, its own capability is enough.
pub fn capability_of_netns(name: &str) -> String {
    let owner = std::fs::File::open("/proc/thread-self/ns/net").ok().and_then(|netns| sys::owner_of(&netns).ok());
    let own = std::fs::File::open("/proc/thread-self/ns/user").ok();
    let inode = |file: std::fs::File| file.metadata().ok().map(|place| place.ino());
    match (owner.and_then(inode), own.and_then(inode)) {
        (Some(owner), Some(own)) if is_user_namespace() && owner == own => named(name, false, true, is_held(name)),
        _ => capability(name),
    }
}

/// Whether this process lives in a user namespace other than the first, which maps every number to itself.
fn is_user_namespace() -> bool {
    std::fs::read("/proc/self/uid_map").is_ok_and(|map| !is_first(&map))
}

#[cfg(test)]
mod tests {
    use super::{named, these};

    #[test]
    fn who_is_root_is_told_the_capability_and_not_to_become_root() {
        assert_eq!(named("CAP_NET_RAW", false, false, false), "root or CAP_NET_RAW");
        assert_eq!(named("CAP_NET_RAW", false, true, false), "CAP_NET_RAW");
        assert!(
            named("CAP_SYS_ADMIN or read access to tracefs", true, true, true)
                .starts_with("CAP_SYS_ADMIN or read access to tracefs on the host: this is a user namespace")
        );
    }

    #[test]
    fn who_has_it_is_not_told_to_get_it() {
        for is_root in [true, false] {
            let said = named("CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8)", false, is_root, true);
            assert_eq!(said, "a sandbox that allows it (seccomp, SELinux, AppArmor): CAP_PERFMON is there");
        }
        assert_eq!(these("CAP_SYS_PTRACE with CAP_DAC_READ_SEARCH").count(), 2);
        assert_eq!(these("CAP_SYS_ADMIN or read access to tracefs").collect::<Vec<_>>(), ["CAP_SYS_ADMIN"]);
    }
}
