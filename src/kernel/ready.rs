//! Which of hundreds of sockets have something to read: one call, where to read each costs one for each.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Sockets by a number of the caller's. One that is closed is watched no more: epoll(7).
#[derive(Debug)]
pub struct Ready {
    /// `None` where the kernel gives none: then all count as ready.
    epoll: Option<OwnedFd>,
    /// How many are or were watched.
    watched: usize,
    /// Those that could not be watched.
    unknown: BTreeSet<u64>,
    found: BTreeSet<u64>,
}

impl Default for Ready {
    fn default() -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).ok();
        Self { epoll, watched: 0, unknown: BTreeSet::new(), found: BTreeSet::new() }
    }
}

impl Ready {
    pub fn watch(&mut self, socket: impl AsFd, number: u64) {
        let add = |epoll: &OwnedFd| epoll::add(epoll, socket, EventData::new_u64(number), EventFlags::IN).is_ok();
        if self.epoll.as_ref().is_some_and(add) {
            self.watched += 1;
            self.unknown.remove(&number);
        } else {
            self.unknown.insert(number);
        }
    }

    /// Asks the kernel. [`Ready::is`] tells of this moment from then on.
    pub fn look(&mut self) {
        self.found.clone_from(&self.unknown);
        let Some(epoll) = &self.epoll else { return };
        // With room for all, one call tells of all.
        let mut events: Vec<Event> = Vec::with_capacity(self.watched.max(1));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Where it is interrupted, what is there is found by the next look.
        if epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).is_ok() {
            self.found.extend(events.iter().map(|event| event.data.u64()));
        }
    }

    /// It has something to read, or nobody knows.
    pub fn is(&self, number: u64) -> bool {
        self.found.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_those_with_something_to_read_are_told_until_it_is_read_or_closed() {
        let mut ready = Ready::default();
        let mut pairs: Vec<(UnixStream, UnixStream)> = (0..100).map(|_| UnixStream::pair().unwrap()).collect();
        (0..).zip(&pairs).for_each(|(number, (ours, _))| ready.watch(ours, number));
        let told = |ready: &mut Ready| {
            ready.look();
            (0..100).filter(|number| ready.is(*number)).collect::<Vec<u64>>()
        };
        const NONE: [u64; 0] = [];
        assert_eq!(told(&mut ready), NONE);
        for (place, (_, theirs)) in pairs.iter_mut().enumerate() {
            if place % 2 == 1 {
                theirs.write_all(b"x").unwrap();
            }
        }
        assert_eq!(told(&mut ready), (0..100).filter(|place| place % 2 == 1).collect::<Vec<_>>());
        for (ours, _) in pairs.iter_mut().skip(1).step_by(2) {
            ours.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(told(&mut ready), NONE);
        pairs[7].1.write_all(b"x").unwrap();
        assert_eq!(told(&mut ready), [7]);
        drop(pairs.remove(7));
        assert_eq!(told(&mut ready), NONE);
    }
}
