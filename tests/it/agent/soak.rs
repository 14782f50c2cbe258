//! The flight recorder for hours, beside harmless resets that never end and a fault every few minutes: what it costs, whether it
//! grows, and whether its history tells each fault with its cause and its time, and nothing else.
//!
//! `RSTDOCTOR_SOAK_MINUTES=360 cargo test --release --locked --test it agent::soak -- --ignored --nocapture` as root; needs nft,
//! nginx and redis. The store, what the agent said and the faults are kept in `RSTDOCTOR_SOAK_DIRECTORY`, if that is named.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Agent, directory, run, said, text};
use crate::common::{isolated, linger_0, skipped};

/// Checks that end with a RST: one every hundredth of a second.
const NOISE: (u16, Duration) = (7000, Duration::from_millis(10));
/// As long as two ticks of two seconds.
const EXACT: Duration = Duration::from_millis(4_000);
/// All that is kept of a window was kept once.
const WARM: Duration = Duration::from_secs(180);

/// What happens to a service for some time.
struct Fault {
    /// What must be found.
    cause: &'static str,
    port: u16,
    /// What may be found of it at other places: what the client's end of it sees, what follows from it.
    besides: &'static [&'static str],
    make: fn(&Fault, &mut Services, Instant),
}

const FAULTS: &[Fault] = &[
    Fault { cause: "close-with-unread-data", port: 7001, besides: &[], make: unread },
    Fault { cause: "port-without-listener", port: 7002, besides: &["upstream-refused"], make: refused },
    Fault { cause: "accept-loop-stalled", port: 7003, besides: &["accept-queue-overflow"], make: stalled },
    Fault { cause: "abortive-close", port: 7004, besides: &[], make: aborted },
    Fault { cause: "process-exit", port: 7005, besides: &["listener-closed", "accept-loop-stalled"], make: killed },
    Fault { cause: "accept-queue-overflow", port: 7006, besides: &[], make: slow },
    Fault { cause: "firewall-reject", port: 7007, besides: &["upstream-refused"], make: rejected },
];

/// The programs that faults happen to.
struct Services {
    directory: PathBuf,
    nginx: Child,
    /// It takes one connection each 200 ms.
    slow: TcpListener,
    open: TcpListener,
}

impl Services {
    fn start(directory: &Path) -> Self {
        let configuration = directory.join("nginx.conf");
        let log = directory.join("nginx.log");
        let text = format!(
            "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {1};\nevents {{}}\nhttp {{ access_log off;\n\
             server {{ listen 127.0.0.1:7003 backlog=8; return 200 ok; }}\n}}\n",
            directory.display(),
            log.display()
        );
        fs::write(&configuration, text).unwrap();
        let nginx = Command::new("nginx").arg("-c").arg(&configuration).spawn().expect("nginx is installed");
        let slow = TcpListener::bind(("127.0.0.1", 7006)).unwrap();
        // SAFETY: listen(2) takes no pointers; once more on the same socket it changes the backlog.
        assert_eq!(unsafe { libc::listen(slow.as_raw_fd(), 4) }, 0);
        slow.set_nonblocking(true).unwrap();
        let open = TcpListener::bind(("127.0.0.1", 7007)).unwrap();
        Self { directory: directory.to_owned(), nginx, slow, open }
    }

    fn worker(&self) -> Pid {
        let pid = self.nginx.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().expect("a worker").parse().unwrap()).unwrap()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.nginx), Signal::TERM).unwrap();
        let _ = self.nginx.wait();
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn connect(port: u16, patience: u64) -> Option<TcpStream> {
    TcpStream::connect_timeout(&local(port), Duration::from_millis(patience)).ok()
}

fn pause(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// Requests that nobody reads before the connection is closed.
fn unread(fault: &Fault, _: &mut Services, until: Instant) {
    let listener = TcpListener::bind(local(fault.port)).unwrap();
    while Instant::now() < until {
        let mut client = TcpStream::connect(local(fault.port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[b'x'; 100]).unwrap();
        pause(50);
        drop(server);
        let _ = client.read(&mut [0]);
    }
}

fn aborted(fault: &Fault, _: &mut Services, until: Instant) {
    let listener = TcpListener::bind(local(fault.port)).unwrap();
    while Instant::now() < until {
        let mut client = TcpStream::connect(local(fault.port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let _ = server.read(&mut [0; 100]);
        linger_0(&server);
        drop(server);
        let _ = client.read(&mut [0]);
        pause(50);
    }
}

fn refused(fault: &Fault, _: &mut Services, until: Instant) {
    while Instant::now() < until {
        assert!(connect(fault.port, 1000).is_none());
        pause(50);
    }
}

/// nginx whose only worker stands still; it goes on afterwards.
fn stalled(fault: &Fault, services: &mut Services, until: Instant) {
    let worker = services.worker();
    kill_process(worker, Signal::STOP).unwrap();
    clients(fault.port, until);
    kill_process(worker, Signal::CONT).unwrap();
}

/// Five of twenty connections are taken.
fn slow(fault: &Fault, services: &mut Services, until: Instant) {
    thread::scope(|scope| {
        scope.spawn(|| clients(fault.port, until));
        while Instant::now() < until {
            let _ = services.slow.accept();
            pause(200);
        }
    });
    while services.slow.accept().is_ok() {}
}

/// Clients that wait a quarter of a second for a connection.
fn clients(port: u16, until: Instant) {
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                while Instant::now() < until {
                    let client = connect(port, 250);
                    pause(50);
                    drop(client);
                }
            });
        }
    });
}

/// A redis that answers no more is killed with requests unread, and started again.
fn killed(fault: &Fault, services: &mut Services, until: Instant) {
    let port = fault.port.to_string();
    while Instant::now() < until {
        let mut redis = Command::new("redis-server")
            .args(["--port", &port, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir"])
            .arg(&services.directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        pause(700);
        let mut open: Vec<_> = (0..20).filter_map(|_| connect(fault.port, 1000)).collect();
        for client in &mut open {
            let _ = client.write_all(b"PING\r\n").and_then(|()| client.read(&mut [0; 16]));
        }
        kill_process(Pid::from_child(&redis), Signal::STOP).unwrap();
        open.iter_mut().for_each(|client| drop(client.write_all(b"PING\r\n")));
        pause(200);
        redis.kill().unwrap();
        redis.wait().unwrap();
        open.iter_mut().for_each(|client| drop(client.read(&mut [0; 16])));
        pause(300);
    }
}

fn nft(rules: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
}

/// A rule before a service that listens.
fn rejected(fault: &Fault, services: &mut Services, until: Instant) {
    nft(&format!(
        "table inet soak {{\nchain input {{\ntype filter hook input priority 0\ntcp dport {} counter reject with tcp reset\n}}\n}}\n",
        services.open.local_addr().unwrap().port()
    ));
    while Instant::now() < until {
        assert!(connect(fault.port, 1000).is_none());
        pause(50);
    }
    nft("delete table inet soak");
}

/// A balancer that checks whether a port is open, and ends each check with a RST.
fn noise(stop: &AtomicBool) -> u64 {
    let listener = TcpListener::bind(local(NOISE.0)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(listener.accept().map(|(mut server, _)| server.read(&mut [0])));
            }
        });
        let (start, mut checks) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let check = TcpStream::connect(local(NOISE.0)).unwrap();
            linger_0(&check);
            drop(check);
            checks += 1;
            thread::sleep((NOISE.1 * checks).saturating_sub(start.elapsed()));
        }
        // The last one wakes the server.
        drop(TcpStream::connect(local(NOISE.0)));
        u64::from(checks)
    })
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu: Duration,
    resident: u64,
    files: usize,
    store: u64,
}

impl Cost {
    fn of(agent: &Agent) -> Self {
        let of = |what: &str| format!("/proc/{}/{what}", agent.child.id());
        let stat = fs::read_to_string(of("stat")).expect("it runs");
        let fields: Vec<u64> =
            stat.rsplit_once(')').unwrap().1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let status = fs::read_to_string(of("status")).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let sizes = fs::read_dir(&agent.store).unwrap().flatten().filter_map(|file| file.metadata().ok());
        Self {
            cpu: Duration::from_millis((fields[11] + fields[12]) * 10),
            resident: kib.unwrap().parse::<u64>().unwrap() << 10,
            files: fs::read_dir(of("fd")).expect("it runs").count(),
            store: sizes.map(|file| file.len()).sum(),
        }
    }

    fn share(self, earlier: Self, wall: Duration) -> f64 {
        (self.cpu - earlier.cpu).as_secs_f64() / wall.as_secs_f64() * 100.0
    }
}

/// The noise ends when the test does, however it does.
pub(super) struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn history(store: &Path) -> Vec<Value> {
    let output = run(&["history", "--since", "7d", "--json"], store);
    let history: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    history["episodes"].as_array().unwrap().iter().filter(|episode| episode["fault"] == true).cloned().collect()
}

fn time(value: &Value) -> Option<SystemTime> {
    humantime::parse_rfc3339(value.as_str()?).ok()
}

fn told(episode: &Value) -> String {
    format!("{} {} {} to {}", episode["id"], episode["place"], episode["from"], episode["until"])
}

/// It is of this time, as exactly as it has to be.
fn overlaps(episode: &Value, (from, until): (SystemTime, SystemTime)) -> bool {
    let end = time(&episode["until"]).unwrap_or_else(SystemTime::now);
    end + EXACT >= from && time(&episode["from"]).unwrap() <= until + EXACT
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// What the history says of the time of a fault; what is wrong with it.
fn judge(episodes: &[Value], fault: &Fault, (from, until): (SystemTime, SystemTime)) -> Vec<String> {
    let near = |value: &Value, then: SystemTime| {
        time(value).is_some_and(|at| at.duration_since(then).unwrap_or_else(|e| e.duration()) <= EXACT)
    };
    let mut wrong = Vec::new();
    let mut found = false;
    for episode in episodes.iter().filter(|episode| overlaps(episode, (from, until))) {
        if episode["id"] == fault.cause && episode["place"]["port"] == fault.port && !found {
            found = true;
            if !near(&episode["from"], from) || !near(&episode["until"], until) || episode["ending"] != "ended" {
                wrong.push(format!("other times: {}", told(episode)));
            }
        } else if !fault.besides.contains(&episode["id"].as_str().unwrap()) {
            wrong.push(format!("no such fault: {}", told(episode)));
        }
    }
    if !found {
        wrong.push("no episode".to_owned());
    }
    wrong
}

#[test]
#[ignore = "runs for RSTDOCTOR_SOAK_MINUTES, 20 by default; root"]
fn for_hours_it_costs_little_and_tells_each_fault_and_nothing_else() {
    isolated(|| {
        for (program, flag) in [("nft", "--version"), ("nginx", "-v"), ("redis-server", "--version")] {
            if !Command::new(program).arg(flag).output().is_ok_and(|output| output.status.success()) {
                return skipped(format!("needs {program}"));
            }
        }
        let minutes = std::env::var("RSTDOCTOR_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
        let (temporary, mut store) = directory();
        let kept = std::env::var_os("RSTDOCTOR_SOAK_DIRECTORY").map(PathBuf::from);
        if let Some(kept) = &kept {
            fs::create_dir_all(kept).unwrap();
            store = kept.join("store");
        }
        let mut services = Services::start(temporary.path());
        let (stop, began) = (AtomicBool::new(false), Instant::now());
        let length = Duration::from_secs(minutes * 60);
        thread::scope(|scope| {
            let _stops = Stops(&stop);
            let noise = scope.spawn(|| noise(&stop));
            let agent = Agent::start(&store, &["--this-netns", "--interval", "2s"]).ready();
            let first = Cost::of(&agent);
            let (mut warm, mut wrong, mut faults) = (None, Vec::new(), Vec::new());
            let mut minute = (0, first);
            let mut cost = |calm: Duration| {
                let end = Instant::now() + calm;
                while Instant::now() < end {
                    pause(200);
                    let elapsed = began.elapsed();
                    if elapsed >= WARM && warm.is_none() {
                        warm = Some((elapsed, Cost::of(&agent)));
                    }
                    if elapsed.as_secs() / 60 > minute.0 {
                        let now = Cost::of(&agent);
                        println!(
                            "cost {} {:.2} % {now:?}",
                            rfc3339(SystemTime::now()),
                            now.share(minute.1, Duration::from_secs(60))
                        );
                        minute = (elapsed.as_secs() / 60, now);
                    }
                }
            };
            for (round, fault) in (0..).zip(FAULTS.iter().cycle()) {
                cost(Duration::from_secs(60 + round % 4 * 15));
                if began.elapsed() >= length {
                    break;
                }
                let from = SystemTime::now();
                (fault.make)(fault, &mut services, Instant::now() + Duration::from_secs(20 + round % 3 * 10));
                let until = SystemTime::now();
                // Until a window without it is over, and a few more: what comes back at once is no other episode.
                cost(Duration::from_secs(30));
                let judged = judge(&history(&store), fault, (from, until));
                println!("fault {} {} {} {} {judged:?}", fault.cause, fault.port, rfc3339(from), rfc3339(until));
                wrong.extend(judged.into_iter().map(|text| format!("{}: {text}", fault.cause)));
                faults.push((from, until));
            }
            stop.store(true, Ordering::Relaxed);
            let checks = noise.join().unwrap();
            let (warmed, warm) = warm.expect("it ran for three minutes");
            let (last, wall) = (Cost::of(&agent), began.elapsed());
            let week = last.store as f64 / wall.as_secs_f64() * 7.0 * 86_400.0 / 1e6;
            println!(
                "{} faults, {checks} checks in {wall:?}: {:.2} % of a CPU, {} MB, {} files, {:.1} MB of store, at this rate {week:.0} MB in 7 days",
                faults.len(),
                last.share(warm, wall - warmed),
                last.resident / 1_000_000,
                last.files,
                last.store as f64 / 1e6
            );
            println!("{}", said(&store));
            agent.end(Signal::TERM);
            let episodes = history(&store);
            let of_none = |episode: &&Value| !faults.iter().any(|time| overlaps(episode, *time));
            wrong.extend(episodes.iter().filter(of_none).map(|episode| format!("nothing happened: {}", told(episode))));
            assert_eq!(wrong, Vec::<String>::new());
            assert!(last.resident <= warm.resident + (8 << 20), "it grows: {warm:?} -> {last:?}");
            assert_eq!(last.files, warm.files);
        });
    });
}
