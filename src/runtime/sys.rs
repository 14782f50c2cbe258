//! All `unsafe` of this room: memory, signal masks and actions, for which neither std nor rustix has calls.
#![allow(unsafe_code, reason = "the one file of this room that has any")]

use std::io;
use std::mem::MaybeUninit;

/// Large pieces that are freed go back to the system at once: glibc would keep as much as was needed at the worst moment, because each
/// that is freed raises the size from which on it maps and unmaps them (mallopt(3)). musl always unmaps.
pub fn map_large_pieces() {
    #[cfg(target_env = "gnu")]
    {
        /// A look that needs this much for a moment, each few seconds, maps it each time.
        const LARGE: libc::c_int = 512 << 10;
        /// So much is kept for the next look.
        const KEPT: libc::c_int = 1 << 20;
        // SAFETY: sets numbers of the allocator; called before there are other threads.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            libc::mallopt(libc::M_ARENA_MAX, 2);
        }
    }
}

/// What is free between small pieces goes back to the system, too (malloc_trim(3)): after a storm glibc would keep it for months.
/// musl unmaps what is free by itself.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches only what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(256 << 10);
    }
}

/// Runs `work` while the calling thread takes none of these signals; what comes meanwhile is delivered afterwards.
pub fn with_blocked<T>(signals: &[i32], work: impl FnOnce() -> T) -> io::Result<T> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that the others read; each call writes only what it is given.
    let result = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr())
    };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    /// Also where `work` panics.
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: a mask that the kernel gave.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
        }
    }
    // SAFETY: pthread_sigmask filled it.
    let _restore = Restore(unsafe { before.assume_init() });
    Ok(work())
}

/// Runs `work` while a signal has its default action (SIG_DFL).
pub fn with_default_action<T>(signal: i32, work: impl FnOnce() -> T) -> io::Result<T> {
    // SAFETY: sigaction is plain data, valid as zeros (SIG_DFL, no flags); all live across the calls.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut ours: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, &raw const default, &raw mut ours) != 0 {
            return Err(io::Error::last_os_error());
        }
        let result = work();
        libc::sigaction(signal, &raw const ours, std::ptr::null_mut());
        Ok(result)
    }
}
