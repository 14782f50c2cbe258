//! Lines to standard output through a buffer, so that nobody has to wait for a reader that does not read.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::runtime::thread;
use crate::value::Stop;

/// What the reader may take once the program was asked to end; then what it has not read is lost.
const PATIENCE: Duration = Duration::from_millis(700);
/// How late a request to end may be noticed.
const SLICE: Duration = Duration::from_millis(50);

/// Waits on its own thread for the reader of our output.
pub struct Output {
    shared: Arc<Shared>,
    way: Way,
    /// Bytes that may wait for [`Output::offer`].
    limit: usize,
    stop: Stop,
}

enum Way {
    Thread(JoinHandle<()>),
    /// No thread could be started: whoever flushes waits.
    Here(Mutex<Box<dyn Write + Send>>),
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is in a write.
    writing: bool,
    done: bool,
    error: Option<io::Error>,
    failed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: io::Error) {
        let mut state = self.lock();
        (state.failed, state.error, state.writing) = (true, Some(error), false);
        self.changed.notify_all();
    }
}

impl Output {
    /// Standard output, of which at most `limit` bytes wait, and as many again are being written.
    ///
    /// # Errors
    /// It is closed.
    pub fn start(limit: usize, stop: &Stop) -> io::Result<Self> {
        Ok(Self::to(limit, stop, Stdout::open()?))
    }

    fn to(limit: usize, stop: &Stop, to: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // In here until one of the two ways takes it.
        let slot = Arc::new(Mutex::new(Some(Box::new(to) as Box<dyn Write + Send>)));
        let taken = Arc::clone(&slot);
        let started = thread::start("output", move || {
            let to = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(mut to) = to {
                write(&theirs, &mut to);
            }
        });
        let here =
            || slot.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| Box::new(io::sink()));
        let way = started.map_or_else(|_| Way::Here(Mutex::new(here())), Way::Thread);
        Self { shared, way, limit, stop: Arc::clone(stop) }
    }

    /// Takes the text whole, or not at all when there is no room.
    pub fn offer(&self, text: &str) -> bool {
        let mut state = self.shared.lock();
        let fits = state.waiting.len().saturating_add(text.len()) <= self.limit && !state.failed;
        if fits {
            state.waiting.extend_from_slice(text.as_bytes());
        }
        fits
    }

    /// Takes the text, whatever waits, and waits until all is written.
    ///
    /// # Errors
    /// The first error of writing; TimedOut when the program was asked to end and the reader does not read.
    pub fn print(&self, text: &str) -> io::Result<()> {
        self.shared.lock().waiting.extend_from_slice(text.as_bytes());
        self.flush();
        self.wait()
    }

    /// Lets the writer begin with what was taken.
    pub fn flush(&self) {
        match &self.way {
            Way::Thread(_) => self.shared.changed.notify_all(),
            Way::Here(to) => {
                let chunk = std::mem::take(&mut self.shared.lock().waiting);
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = to.write_all(&chunk).and_then(|()| to.flush()) {
                    self.shared.fail(error);
                }
            }
        }
    }

    /// Nothing more can be written: the reader went away, or the disk is full.
    pub fn has_failed(&self) -> bool {
        self.shared.lock().failed
    }

    /// Waits until everything taken is written.
    ///
    /// # Errors
    /// As of [`Output::print`].
    pub fn finish(self) -> io::Result<()> {
        self.flush();
        let result = self.wait();
        self.shared.lock().done = true;
        self.shared.changed.notify_all();
        // One that hangs in a write ends with the process.
        if let (Way::Thread(thread), Ok(())) = (self.way, &result) {
            let _ = thread.join();
        }
        result
    }

    fn wait(&self) -> io::Result<()> {
        let mut asked = None;
        let mut state = self.shared.lock();
        loop {
            if state.failed {
                return Err(state.error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
            }
            if state.waiting.is_empty() && !state.writing {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) && asked.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, UNREAD));
            }
            state = self.shared.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

const UNREAD: &str = "ended although not all was written: nobody reads standard output";

fn write(shared: &Shared, to: &mut impl Write) {
    let mut chunk = Vec::new();
    loop {
        let mut state = shared.lock();
        state.writing = false;
        shared.changed.notify_all();
        while state.waiting.is_empty() {
            if state.done {
                return;
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, &mut chunk);
        state.writing = true;
        drop(state);
        if let Err(error) = to.write_all(&chunk).and_then(|()| to.flush()) {
            return shared.fail(error);
        }
        chunk.clear();
    }
}

/// Standard output past the lock and the buffer of `io::stdout`, which a thread that hangs in a write would hold.
#[derive(Debug)]
pub struct Stdout(File);

impl Stdout {
    /// # Errors
    /// It is closed.
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            // Somebody made the terminal or the pipe non-blocking: whoever writes everything tries again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20));
                Err(io::ErrorKind::Interrupted.into())
            }
            result => result.map_err(super::of_stdout),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let output = Output::to(100, &Stop::default(), Slow(gate, Arc::clone(&written)));
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
        let output = Output::to(100, &Stop::default(), Slow(gate, Arc::default()));
        assert!(output.offer("x"));
        output.flush();
        while !output.has_failed() {
            std::thread::yield_now();
        }
        assert!(!output.offer("x"));
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_reader_that_hangs_is_left_when_the_program_is_asked_to_end() {
        let (_go, gate) = mpsc::channel();
        let stop = Stop::default();
        let output = Output::to(100, &stop, Slow(gate, Arc::default()));
        let setter = Arc::clone(&stop);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            setter.store(true, Ordering::Relaxed);
        });
        let start = Instant::now();
        assert_eq!(output.print("x").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE..PATIENCE * 4).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert_eq!(output.finish().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
