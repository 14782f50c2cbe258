//! What a program with file capabilities or started as root does not need. See capabilities(7).

use std::io;

use rustix::process::{DumpableBehavior, getegid, geteuid, getgid, getuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// The user who started this is not the one that it runs as: a set-user-ID program. rstdoctor is not made for it, since root may
/// more than file capabilities allow.
pub fn is_borrowed() -> bool {
    getuid() != geteuid() || getgid() != getegid()
}

/// Gives up all capabilities that an ordinary user has from the file or from whoever started it, for good. Root keeps its own.
/// Call it before the first thread.
///
/// # Errors
/// The kernel refused; then they are still there.
pub fn drop_borrowed() -> io::Result<()> {
    if geteuid().is_root() || capabilities(None)?.permitted.is_empty() {
        return Ok(());
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // Only now is what it may read its own again: /proc/self of a program with file capabilities belongs to root (proc(5)).
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

/// Keeps of all capabilities only these, for this process and all that it starts, and no program that it starts gains any.
///
/// # Errors
/// The kernel refused; then some may still be there.
pub fn keep_only(wanted: CapabilitySet) -> io::Result<()> {
    let _ = clear_ambient_capability_set();
    // Those that this kernel does not know are refused, and are none.
    for capability in CapabilitySet::all().difference(wanted).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let permitted = capabilities(None)?.permitted.intersection(wanted);
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() })?;
    Ok(set_no_new_privs(true)?)
}
