//! The live view on a real terminal: tmux plays the person and the terminal, in a network namespace of its own.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{isolated, skipped};
use ratatui::style::Style;
use rstdoctor::command::full_screen::FullScreen;

/// A terminal with a shell in it.
struct Tmux {
    /// Holds its socket.
    directory: tempfile::TempDir,
}

impl Tmux {
    /// `None`, visibly, where there is no tmux.
    fn start() -> Option<Self> {
        if !Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success()) {
            skipped("needs tmux");
            return None;
        }
        let tmux = Self { directory: tempfile::tempdir().unwrap() };
        let shell = "env -u NO_COLOR LC_ALL=C.UTF-8 'PS1=$ ' sh -i";
        tmux.run(&["-u", "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell]);
        tmux.wait("the shell", |screen| screen.starts_with('$'));
        Some(tmux)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("tmux").arg("-S").arg(self.directory.path().join("tmux")).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types a command, and Enter.
    fn type_line(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    fn watch(&self, arguments: &str) {
        let here = if arguments.contains("--from") { "" } else { "--this-netns" };
        self.type_line(&format!("{} watch {here} {arguments}", env!("CARGO_BIN_EXE_rstdoctor")));
        self.wait("the first tick", |screen| screen.contains("none so far: ") || screen.contains("1 Causes"));
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Looks until it is true.
    fn wait(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{what} does not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The settings of the terminal, as a shell sees them.
    fn settings(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("settings-{}-", COUNT.fetch_add(1, Ordering::Relaxed));
        self.type_line(&format!("echo {mark}$(stty -g | cksum | tr ' ' _)-end"));
        // Typed before the prompt was there, the answer stands behind it.
        let is = |line: &str| {
            let (_, settings) = line.split_once(&mark)?;
            settings.strip_suffix("-end").filter(|settings| !settings.contains('$')).map(str::to_owned)
        };
        let screen = self.wait("the shell", |screen| screen.lines().any(|line| is(line).is_some()));
        screen.lines().find_map(is).unwrap()
    }

    /// The program in the foreground of the shell.
    fn program(&self) -> i32 {
        let shell = self.run(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let start = Instant::now();
        loop {
            let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
            if let Some(child) = children.split_whitespace().next() {
                return child.parse().unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(20), "nothing runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn send(signal: i32, to: i32) {
    // SAFETY: kill(2) takes no pointers.
    assert_eq!(unsafe { libc::kill(to, signal) }, 0);
}

fn wait_for_end(pid: i32, after: &str) {
    let start = Instant::now();
    let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    while !gone() {
        assert!(start.elapsed() < Duration::from_secs(20), "{pid} does not end after {after}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Clients that connect to a port on which nothing listens, until it is dropped.
struct Refused {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Refused {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Columns of a rate over time in the row with this text, from the first with something in it: something, nothing.
fn columns(screen: &str, row: &str) -> Option<(usize, usize)> {
    let line = screen.lines().find(|line| line.contains(row))?;
    let block = |letter: &char| ('▁'..='█').contains(letter);
    let some = line.chars().filter(block).count();
    let after = line.chars().skip_while(|letter| !block(letter)).filter(|letter| *letter == '·').count();
    Some((some, after))
}

#[test]
fn a_fault_appears_within_two_ticks_and_ends_within_two() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        tmux.watch("-i 1s");
        tmux.wait("a verdict", |screen| screen.contains("OK  No RST was sent"));
        let fault = Refused::start(9200);
        let cause = "Nothing listens on";
        let screen = tmux.wait("the cause", |screen| screen.contains(cause));
        // The ledger counts from the first tick in which there was one.
        let (ticks, _) = columns(&screen, "nothing listens").expect("a row of the ledger");
        assert!(ticks <= 2, "it took {ticks} ticks:\n{screen}");
        tmux.wait("a second tick", |screen| columns(screen, cause).is_some_and(|(some, _)| some >= 2));
        drop(fault);
        let ended = |screen: &str| screen.lines().any(|line| line.contains(cause) && line.contains(" ended "));
        let screen = tmux.wait("the end", ended);
        let (_, quiet) = columns(&screen, cause).expect("a row of the causes");
        assert!(quiet <= 2, "it took {quiet} ticks:\n{screen}");
        tmux.keys(&["q"]);
        // What was seen stays on the terminal.
        let screen = tmux.wait("the summary", |screen| screen.contains("Watched "));
        assert!(screen.contains("Nothing listens on the port (port 9200)"), "{screen}");
    });
}

#[test]
fn the_terminal_is_given_back() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        let before = tmux.settings();
        for end in ["q", "C-c"] {
            tmux.watch("-i 200ms");
            tmux.keys(&[end]);
            tmux.wait("the summary", |screen| screen.contains("Watched ") || screen.contains("Nothing was watched"));
            assert_eq!(tmux.settings(), before, "after {end}");
            tmux.type_line("clear");
        }
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            tmux.watch("-i 200ms");
            let program = tmux.program();
            send(signal, program);
            wait_for_end(program, "a signal");
            assert_eq!(tmux.settings(), before, "after signal {signal}");
            let screen = tmux.screen();
            assert!(!screen.contains("1 Causes"), "the shell's screen is back:\n{screen}");
            tmux.type_line("clear");
        }
    });
}

#[test]
fn suspended_it_gives_the_terminal_back_until_it_returns() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        let before = tmux.settings();
        tmux.watch("-i 200ms");
        let program = tmux.program();
        for how in ["the key", "SIGTSTP"] {
            match how {
                "the key" => tmux.keys(&["C-z"]),
                _ => send(libc::SIGTSTP, program),
            }
            tmux.wait("the shell", |screen| !screen.contains("1 Causes"));
            assert_eq!(tmux.settings(), before, "after {how}");
            tmux.type_line("fg");
            tmux.wait("the picture", |screen| screen.contains("1 Causes") && screen.contains("2 Resets by reason"));
        }
        // Killed while it is stopped: the shell's terminal stays as it is.
        tmux.keys(&["C-z"]);
        tmux.wait("the shell", |screen| !screen.contains("1 Causes"));
        send(libc::SIGTERM, program);
        send(libc::SIGCONT, program);
        wait_for_end(program, "a signal");
        assert_eq!(tmux.settings(), before);
    });
}

#[test]
fn a_terminal_that_is_killed_takes_it_along() {
    isolated(|| {
        for (how, blocked) in [("SIGHUP", false), ("the end of its input", true)] {
            let Some(tmux) = Tmux::start() else { return };
            if blocked {
                let exe = std::env::current_exe().unwrap();
                tmux.type_line(&format!(
                    "{} watch_terminal::watches_without_hangups --exact --ignored --nocapture",
                    exe.display()
                ));
                tmux.wait("the first tick", |screen| screen.contains("none so far: "));
            } else {
                tmux.watch("-i 200ms");
            }
            let program = tmux.program();
            let status = std::fs::read_to_string(format!("/proc/{program}/status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("proc_pid_status(5)");
            assert_eq!(mask.trim().ends_with('1'), blocked, "bit 0 is SIGHUP: {mask}");
            let server = tmux.run(&["display-message", "-p", "#{pid}"]);
            send(libc::SIGKILL, server.trim().parse().unwrap());
            wait_for_end(program, how);
        }
    });
}

/// Run by the test above, inside its terminal: SIGHUP stays blocked over the exec.
#[test]
#[ignore = "it is a live view, for the test above"]
fn watches_without_hangups() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    command.args(["watch", "--this-netns", "-i", "200ms"]);
    // SAFETY: the set is made before it is used, and both calls may be made at any time.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGHUP);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    panic!("{}", command.exec());
}

#[test]
fn a_storm_of_resizes_ends_in_a_whole_picture() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        tmux.watch("-i 200ms");
        for round in 0..60 {
            let (width, height) = (20 + round * 37 % 170, 5 + round * 13 % 50);
            tmux.run(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
        }
        tmux.run(&["resize-window", "-x", "50", "-y", "10"]);
        tmux.wait("the one line", |screen| screen.starts_with("50 x 10 is too small"));
        tmux.run(&["resize-window", "-x", "160", "-y", "50"]);
        let whole = |screen: &str| {
            ["1 Causes", "2 Resets", "3 Listeners", "4 Sockets", "5 Latest", "? help"]
                .iter()
                .all(|part| screen.contains(part))
        };
        tmux.wait("all panes", whole);
        tmux.keys(&["q"]);
        tmux.wait("the shell", |screen| screen.contains("Watched "));
    });
}

#[test]
fn a_recording_plays_to_its_end_and_stays_there() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/accept-queue-overflow/positive.rst");
        tmux.watch(&format!("--from {}", recording.display()));
        let screen = tmux.wait("the end", |screen| screen.contains("END of the recording"));
        assert!(screen.contains("CRITICAL") && screen.contains("Accept queue overflow"), "{screen}");
        tmux.keys(&["Enter"]);
        tmux.wait("the cause", |screen| screen.contains("Raise the backlog"));
        tmux.keys(&["Escape"]);
        tmux.wait("the panes", |screen| screen.contains("1 Causes"));
        tmux.keys(&["q"]);
        tmux.wait("the summary", |screen| screen.contains("Watched "));
    });
}

#[test]
fn the_last_minutes_are_saved_and_can_be_diagnosed() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        let directory = tempfile::tempdir().unwrap();
        tmux.type_line(&format!("cd {}", directory.path().display()));
        tmux.watch("-i 500ms");
        let _fault = Refused::start(9200);
        tmux.wait("the cause", |screen| screen.contains("Nothing listens on"));
        tmux.keys(&["w"]);
        tmux.wait("the file", |screen| screen.contains(", the last ") && !screen.contains("not saved"));
        let file = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let scan = Command::new(env!("CARGO_BIN_EXE_rstdoctor")).args(["scan", "--from"]).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&scan.stdout);
        assert!(text.contains("port-without-listener") || text.contains("Nothing listens"), "{text}");
        tmux.keys(&["q"]);
        tmux.wait("the summary", |screen| screen.contains("Watched "));
    });
}

#[test]
fn an_error_is_an_ordinary_line() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        let before = tmux.settings();
        tmux.type_line(&format!("{} watch --from /nonesuch", env!("CARGO_BIN_EXE_rstdoctor")));
        tmux.wait("the error", |screen| screen.contains("rstdoctor: /nonesuch: cannot be read"));
        tmux.type_line(&format!("TERM=dumb {} watch --this-netns -i 100ms -n 1", env!("CARGO_BIN_EXE_rstdoctor")));
        tmux.wait("lines", |screen| screen.contains("Watching ") && screen.contains("Watched "));
        assert_eq!(tmux.settings(), before);
    });
}

#[test]
fn a_panic_gives_the_terminal_back_and_is_told() {
    isolated(|| {
        let Some(tmux) = Tmux::start() else { return };
        let before = tmux.settings();
        let exe = std::env::current_exe().unwrap();
        let exe = exe.display();
        tmux.type_line(&format!(
            "RUST_BACKTRACE=0 {exe} watch_terminal::panics_with_the_terminal --exact --ignored --nocapture"
        ));
        tmux.wait("what it said", |screen| screen.contains("as it was meant to"));
        assert_eq!(tmux.settings(), before);
    });
}

/// Run by the test above, inside its terminal.
#[test]
#[ignore = "it panics on purpose, for the test above"]
fn panics_with_the_terminal() {
    let mut screen = FullScreen::enter().unwrap();
    screen.draw((20, 5), |buffer| buffer.set_string(0, 0, "a picture", Style::new())).unwrap();
    // Of another thread, as the one that drives is.
    let _ = std::thread::spawn(|| panic!("as it was meant to")).join();
    assert!(!screen.is_ours());
    std::process::exit(101);
}
