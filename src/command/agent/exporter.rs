//! Metrics of the recorder: served, and written to a file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;

use crate::command::config::Agent;
use crate::history::Account;
use crate::metrics::{self, Metrics, Own};
use crate::output::say;
use crate::runtime::http::{self, Response, Status};
use crate::timeline::Tick;

/// Both texts of the latest tick.
#[derive(Debug, Default)]
struct Texts {
    text: String,
    openmetrics: String,
}

/// Keeps the metrics, if anybody wants them.
pub struct Exporter {
    metrics: Option<Metrics>,
    texts: Arc<RwLock<Texts>>,
    textfile: Option<PathBuf>,
}

impl Exporter {
    /// Begins to serve.
    ///
    /// # Errors
    /// The address is in use, or not of this host.
    pub fn start(config: &Agent) -> anyhow::Result<Self> {
        let texts: Arc<RwLock<Texts>> = Arc::default();
        if let Some(address) = config.listen {
            let served = Arc::clone(&texts);
            let answer = move |path: &str, accept: &str| answer(path, accept, &served);
            let bound = http::serve(address, Arc::new(answer)).with_context(|| format!("--listen {address}"))?;
            say(format_args!("rstdoctor: metrics at http://{bound}/metrics"));
            if !bound.ip().is_loopback() {
                say("rstdoctor: whoever reaches that address can read names of processes and ports of this host");
            }
        }
        let wanted = config.listen.is_some() || config.textfile.is_some();
        Ok(Self { metrics: wanted.then(Metrics::default), texts, textfile: config.textfile.clone() })
    }

    /// Takes a tick. What went wrong with the file.
    pub fn tick(&self, tick: &Tick, own: impl FnOnce() -> Own) -> Result<(), String> {
        let Some(metrics) = &self.metrics else { return Ok(()) };
        metrics.window(&Account::of(tick), &metrics::sources(&tick.diagnosis));
        metrics.own(own());
        let (Ok(text), Ok(openmetrics)) = (metrics.text(), metrics.openmetrics()) else { return Ok(()) };
        let written = self.textfile.as_ref().map_or(Ok(()), |path| replace(path, &text));
        *self.texts.write().unwrap_or_else(PoisonError::into_inner) = Texts { text, openmetrics };
        let path = || self.textfile.as_deref().unwrap_or(Path::new("")).display();
        written.map_err(|error| format!("cannot write {}: {error}", path()))
    }
}

fn answer(path: &str, accept: &str, texts: &RwLock<Texts>) -> Response {
    let texts = texts.read().unwrap_or_else(PoisonError::into_inner);
    match path {
        "/metrics" if texts.text.is_empty() => Response::plain(Status::Unavailable, "the first window is not over"),
        "/metrics" if accept.contains("application/openmetrics-text") => {
            Response { status: Status::Ok, content_type: metrics::OPENMETRICS, body: texts.openmetrics.clone() }
        }
        "/metrics" => Response { status: Status::Ok, content_type: metrics::TEXT, body: texts.text.clone() },
        "/healthz" if texts.text.is_empty() => Response::plain(Status::Unavailable, "the first window is not over"),
        "/healthz" => Response::plain(Status::Ok, "ok"),
        "/" => Response::plain(Status::Ok, "rstdoctor: /metrics, /healthz"),
        _ => Response::plain(Status::NotFound, "there is /metrics and /healthz"),
    }
}

/// Whoever reads it sees the old text or the new one: written beside it, then renamed. The collector reads `*.prom` only.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    // Whoever may write in the directory can guess the name: what stands there goes, and is never written through.
    let written = create(&beside).and_then(|mut file| file.write_all(text.as_bytes()));
    let renamed = written.and_then(|()| fs::rename(&beside, path));
    if renamed.is_err() {
        // Nothing useful can be done about an error here.
        let _ = fs::remove_file(&beside);
    }
    renamed
}

/// A new file. One of the same name is removed: a link that was planted, or what a killed recorder of the same number left.
fn create(path: &Path) -> io::Result<fs::File> {
    let new = || fs::OpenOptions::new().write(true).create_new(true).open(path);
    new().or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => fs::remove_file(path).and_then(|()| new()),
        _ => Err(error),
    })
}

/// What this process costs, proc_pid_stat(5) and proc_pid_statm(5).
pub fn own() -> Own {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let field = |number: usize| after.split_whitespace().nth(number - 3).and_then(|text| text.parse::<u64>().ok());
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let cpu = field(14).zip(field(15)).map(|(user, system)| user.saturating_add(system) as f64 / ticks as f64);
    let page = rustix::param::page_size() as u64;
    let resident = field(24).map(|pages| pages.saturating_mul(page));
    let fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
    Own { cpu_s: cpu, resident_bytes: resident, open_fds: fds, ..Own::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_link_is_replaced_and_what_it_points_to_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        let beside = of(&format!("rst.prom.{}.tmp", std::process::id()));
        for planted in [of("rst.prom"), beside.clone()] {
            fs::write(of("victim"), "mine").unwrap();
            std::os::unix::fs::symlink(of("victim"), &planted).unwrap();
            replace(&of("rst.prom"), "metrics").unwrap();
            assert_eq!(fs::read_to_string(of("victim")).unwrap(), "mine");
            assert_eq!(fs::read_to_string(of("rst.prom")).unwrap(), "metrics");
            assert!(!of("rst.prom").is_symlink() && !beside.exists());
        }
    }
}
