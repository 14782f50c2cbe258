//! What people would hold of a scenario, in files of one directory: a recording, captures of both ends, `netstat -s` before and
//! after, what the programs logged, and beside them what was true. A data set for judging by less than a host.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::arena::Namespace;
use super::installed::search_path;
use super::report::Report;
use super::stop::Stop;
use super::temporary::DIRECTORY;

pub const RECORDING: &str = "recording.rst";
pub const BEFORE: &str = "netstat-before.txt";
pub const AFTER: &str = "netstat-after.txt";
pub const LOG: &str = "log.txt";
pub const TRUTH: &str = "truth.json";
/// The capture of the observed host; those of the other hosts are called by their names.
pub const HERE: &str = "here.pcap";

/// Bytes of a packet that are kept: headers, and how the data begins.
const SNAPLEN: &str = "256";
/// Lines of one outcome in the log.
const REPEATS: u64 = 50;
/// A packet is with tcpdump within this time of being sent.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Captures that run.
pub struct Evidence {
    directory: PathBuf,
    captures: Vec<Capture>,
}

struct Capture {
    tcpdump: Child,
    /// It says at its end how many it took, and would fail where nobody hears it.
    _said: BufReader<std::process::ChildStderr>,
}

impl Evidence {
    /// Reads the counters of this process's namespace, and captures in those places, by names, until the end.
    ///
    /// # Errors
    /// tcpdump or netstat is not there, or does not do it.
    pub fn begin(directory: &Path, places: &[(&str, &Namespace)]) -> Result<Self, Stop> {
        let captures =
            places.iter().map(|(name, place)| capture(&directory.join(name), place)).collect::<Result<_, _>>()?;
        counters(&directory.join(BEFORE))?;
        Ok(Self { directory: directory.to_owned(), captures })
    }

    /// Reads the counters again, and ends the captures.
    ///
    /// # Errors
    /// As at the beginning.
    pub fn end(mut self) -> Result<(), Stop> {
        counters(&self.directory.join(AFTER))?;
        thread::sleep(ON_ITS_WAY);
        for Capture { tcpdump, .. } in &mut self.captures {
            kill_process(Pid::from_child(tcpdump), Signal::TERM).map_err(io::Error::from)?;
            tcpdump.wait()?;
        }
        Ok(())
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        for Capture { tcpdump, .. } in &mut self.captures {
            let _ = tcpdump.kill();
            let _ = tcpdump.wait();
        }
    }
}

fn capture(file: &Path, place: &Namespace) -> Result<Capture, Stop> {
    let mut command = Command::new("tcpdump");
    // Root keeps its name: another user may not write there.
    command
        .args(["-i", "any", "-n", "-U", "--immediate-mode", "-B", "16384", "-Z", "root", "-s", SNAPLEN, "-w"])
        .arg(file);
    command.env("PATH", search_path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    place.start(&mut command);
    let mut tcpdump = command.spawn().map_err(|error| absent("tcpdump", error))?;
    let stderr = tcpdump.stderr.take().ok_or_else(|| io::Error::other("tcpdump has no standard error"))?;
    let mut said = BufReader::new(stderr);
    let mut line = String::new();
    // `tcpdump: listening on any, ...` once its socket is open.
    while said.by_ref().take(4_096).read_line(&mut line)? > 0 {
        if line.contains("listening on") {
            return Ok(Capture { tcpdump, _said: said });
        }
    }
    let _ = tcpdump.wait();
    Err(io::Error::other(format!("tcpdump: {}", line.trim())).into())
}

fn counters(file: &Path) -> Result<(), Stop> {
    let mut netstat = Command::new("netstat");
    netstat.arg("-s").env("LC_ALL", "C").env("PATH", search_path()).stdin(Stdio::null());
    let output = netstat.output().map_err(|error| absent("netstat", error))?;
    Ok(fs::write(file, output.stdout)?)
}

fn absent(program: &str, error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::NotFound => Stop::Skip(format!("{program} is not installed")),
        _ => io::Error::other(format!("{program}: {error}")).into(),
    }
}

/// Where what a program prints goes.
pub fn printed(directory: Option<&PathBuf>) -> io::Result<[Stdio; 2]> {
    let Some(directory) = directory else { return Ok([Stdio::null(), Stdio::null()]) };
    let file = File::options().create(true).append(true).open(directory.join(LOG))?;
    Ok([file.try_clone()?.into(), file.into()])
}

/// Writes what was true, and ends the log by what nginx wrote (`own`: there is a file of its own) and what the clients met, a
/// line each.
pub fn finish(directory: &Path, own: bool, report: &Report) -> io::Result<()> {
    let log = directory.join(LOG);
    let mut text = fs::read(&log).unwrap_or_default();
    if own {
        text.extend(fs::read(format!("{DIRECTORY}/error.log")).unwrap_or_default());
    }
    for (outcome, count) in report.experienced.iter().filter(|(outcome, _)| !outcome.ends_with(": ok")) {
        (0..(*count).min(REPEATS)).for_each(|_| text.extend(format!("client: {outcome}\n").bytes()));
    }
    fs::write(&log, text)?;
    fs::write(directory.join(TRUTH), serde_json::to_vec_pretty(report)?)
}
