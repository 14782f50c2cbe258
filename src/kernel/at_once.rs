//! Calls that are made for many at once: those that wait for the kernel, and those that keep it busy.
//!
//! To give a packet socket its ring, to take it away and to close the socket waits each time for a grace period of RCU
//! (net/packet/af_packet.c packet_set_ring(), packet_release()), 10 ms in which nothing is done. Who waits at the same time waits
//! for the same one.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// On a node of 500 nobody waits for another.
const THREADS: usize = 512;
/// Nothing that runs here goes deep.
const STACK: usize = 128 << 10;
/// Fewer than this are not worth a thread.
const SHARE: usize = 64;

/// Does `work` with each of them, on the calling thread as well as on others where they can be started. A thread begins in the
/// network namespace of the calling one.
pub fn each<T: Send, R: Send>(all: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = all.len().min(THREADS);
    on(threads, all, work)
}

/// The same for calls that do not wait: on as many threads as there are CPUs, and few only on the calling one.
pub fn share<T: Send, R: Send>(all: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = match all.len() / SHARE {
        0 | 1 => 1,
        // It reads files of the control group.
        worth => worth.min(thread::available_parallelism().map_or(1, usize::from)),
    };
    on(threads, all, work)
}

fn on<T: Send, R: Send>(threads: usize, all: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let (left, done) = (Mutex::new(all.into_iter()), Mutex::new(Vec::new()));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(one) = next() {
            let result = work(one);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where no thread may start, the calling one does it all.
            if thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_once() {
        for count in [0, 1, 5, 1000] {
            for mut done in
                [each((0..count).collect(), |number| number * 2), share((0..count).collect(), |number| number * 2)]
            {
                done.sort_unstable();
                assert_eq!(done, (0..count).map(|number| number * 2).collect::<Vec<_>>());
            }
        }
    }
}
