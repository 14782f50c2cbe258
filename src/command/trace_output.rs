//! Lines to standard output through a bounded buffer: a reader that is too slow costs lines, never time or memory.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Waits on its own thread for the reader of our output.
pub struct Output {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    limit: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    done: bool,
    error: Option<io::Error>,
    failed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    /// At most `limit` bytes wait, and as many again are being written.
    pub fn start(limit: usize, mut to: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let writer = std::thread::spawn(move || write(&theirs, &mut to));
        Self { shared, writer: Some(writer), limit }
    }

    /// Takes the text whole, or not at all when there is no room.
    pub fn offer(&self, text: &str) -> bool {
        let mut state = self.shared.lock();
        let fits = state.waiting.len() + text.len() <= self.limit && !state.failed;
        if fits {
            state.waiting.extend_from_slice(text.as_bytes());
        }
        fits
    }

    /// Lets the writer begin with what was taken.
    pub fn flush(&self) {
        self.shared.wake.notify_one();
    }

    /// Nothing more can be written: the reader went away, or the disk is full.
    pub fn has_failed(&self) -> bool {
        self.shared.lock().failed
    }

    /// Waits until everything taken is written.
    ///
    /// # Errors
    /// The first error of writing.
    pub fn finish(mut self) -> io::Result<()> {
        self.shared.lock().done = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.shared.lock().error.take().map_or(Ok(()), Err)
    }
}

fn write(shared: &Shared, to: &mut impl Write) {
    let mut chunk = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() {
            if state.done {
                return;
            }
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, &mut chunk);
        drop(state);
        if let Err(error) = to.write_all(&chunk).and_then(|()| to.flush()) {
            let mut state = shared.lock();
            (state.failed, state.error) = (true, Some(error));
            return;
        }
        chunk.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Lets one write through per message.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_nothing_else() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (go, gate) = mpsc::channel();
        let output = Output::start(100, Slow(gate, Arc::clone(&written)));
        let taken: usize = (0..1_000)
            .map(|_| {
                let taken = output.offer("0123456789");
                output.flush();
                usize::from(taken)
            })
            .sum();
        assert!((10..=20).contains(&taken), "{taken}: one buffer waits and one is being written");
        (0..1_000).for_each(|_| go.send(()).unwrap());
        output.finish().unwrap();
        assert_eq!(written.lock().unwrap().len(), taken * 10);
    }

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        let (go, gate) = mpsc::channel();
        drop(go);
        let output = Output::start(100, Slow(gate, Arc::default()));
        assert!(output.offer("x"));
        output.flush();
        while !output.has_failed() {
            std::thread::yield_now();
        }
        assert!(!output.offer("x"));
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
