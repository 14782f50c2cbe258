//! What a scenario works with: namespaces, actors, faults that run in the window, and the observation.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::How;
use super::arena::{End, Namespace, join};
use super::counters::{self, Movement};
use super::diagnose::diagnose;
use super::evidence::{self, Evidence};
use super::findings::Diagnosed;
use super::installed::search_path;
use super::program::Program;
pub use super::stop::Stop;
use super::tally::Tally;
use crate::runtime;

/// Addresses of the observed host and of the client at the other end of its link.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
/// Beyond the router.
pub const FAR_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));

/// Beside the counters of the kernel: records of events that it could not deliver, of all namespaces.
pub const LOST_RECORDS: &str = "lost records";

/// The time in which the observed host is watched, as the faults see it.
#[derive(Debug, Default)]
pub struct Window(AtomicU8);

impl Window {
    const OPEN: u8 = 1;
    const CLOSED: u8 = 2;

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OPEN
    }

    /// Repeats `work` with a pause between, until the window closes.
    pub fn every(&self, pause_ms: u64, mut work: impl FnMut()) {
        while self.is_open() {
            work();
            self.sleep(pause_ms);
        }
    }

    /// Sleeps, but not beyond the window.
    pub fn sleep(&self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while self.is_open() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

/// A server or client that is a process of its own. It ends with the scenario at the latest.
#[derive(Debug, Clone)]
pub struct Actor {
    pid: Pid,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
}

impl Actor {
    pub fn tell(&self, command: &str) -> io::Result<()> {
        match self.stdin.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(stdin) => writeln!(stdin, "{command}").and_then(|()| stdin.flush()),
            None => Err(io::Error::other("this process takes no commands")),
        }
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // A child that nobody has waited for, so its pid is its own.
        Ok(kill_process(self.pid, signal)?)
    }
}

pub struct Stage {
    /// The observed host's network: the one of this process.
    pub here: Namespace,
    /// Another host, joined to it by a link: [`CLIENT`] and [`SERVER`], IPv4 and IPv6.
    pub client: Namespace,
    /// Further hosts that were joined to it, and how their captures are called.
    others: Vec<(&'static str, Namespace)>,
    how: How,
    tally: Tally,
    window: Arc<Window>,
    /// Those that could not start fail the scenario.
    faults: Vec<io::Result<thread::JoinHandle<()>>>,
    /// With their ends of the pipes: a program of the lab ends when its standard input does.
    children: Vec<(Child, Actor)>,
    diagnosed: Option<Result<Diagnosed, String>>,
    movement: Movement,
}

impl Stage {
    pub fn new(how: &How) -> io::Result<Self> {
        let (here, client) = (Namespace::current()?, Namespace::create()?);
        join(&end(&here, "eth0", 77, 1), &end(&client, "eth0", 77, 2))?;
        Ok(Self {
            here,
            client,
            others: Vec::new(),
            how: how.clone(),
            tally: Tally::default(),
            window: Arc::default(),
            faults: Vec::new(),
            children: Vec::new(),
            diagnosed: None,
            movement: Movement::default(),
        })
    }

    /// One more host next to the observed one, on a network of its own (10.NETWORK.0.2, the observed host is .1).
    pub fn neighbour(&mut self, interface: &'static str, network: u8) -> io::Result<Namespace> {
        let neighbour = Namespace::create()?;
        join(&end(&self.here, interface, network, 1), &end(&neighbour, "eth0", network, 2))?;
        self.others.push(("neighbour.pcap", neighbour.clone()));
        Ok(neighbour)
    }

    /// A second client at [`FAR_CLIENT`], behind a router: (router, client).
    pub fn client_behind_router(&mut self) -> io::Result<(Namespace, Namespace)> {
        let (router, client) = (Namespace::create()?, Namespace::create()?);
        join(&end(&self.here, "eth1", 79, 1), &end(&router, "near", 79, 254))?;
        join(&end(&router, "far", 78, 254), &end(&client, "eth0", 78, 2))?;
        router.sysctl("net.ipv4.ip_forward", 1)?;
        let router_at = |network| Ipv4Addr::new(10, network, 0, 254).into();
        self.here.route_to(FAR_CLIENT, 32, router_at(79))?;
        client.route_to(SERVER, 32, router_at(78))?;
        router.route_to(SERVER, 32, Ipv4Addr::new(10, 79, 0, 1).into())?;
        self.others.push(("far-client.pcap", client.clone()));
        Ok((router, client))
    }

    /// Starts a program of the lab on the observed host, and waits until it is ready.
    pub fn spawn(&mut self, name: &str, program: &Program) -> io::Result<Actor> {
        let here = self.here.clone();
        self.spawn_in(&here, name, program)
    }

    pub fn spawn_in(&mut self, namespace: &Namespace, name: &str, program: &Program) -> io::Result<Actor> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["lab", "actor", name]).arg(serde_json::to_string(program)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        namespace.start(&mut command);
        let mut child = command.spawn()?;
        let (ready, is_ready) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            let tally = self.tally.clone();
            runtime::thread::start("actor", move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    match line.split_once(' ') {
                        Some(("ready", _)) => drop(ready.send(())),
                        Some(("note", note)) => {
                            if let Some((count, text)) = note.split_once(' ') {
                                tally.add(text, count.parse().unwrap_or(1));
                            }
                        }
                        _ => {}
                    }
                }
            })?;
        }
        let actor = Actor { pid: Pid::from_child(&child), stdin: Arc::new(Mutex::new(child.stdin.take())) };
        self.children.push((child, actor.clone()));
        let limit = self.how.patient(Duration::from_secs(5));
        match is_ready.recv_timeout(limit) {
            Ok(()) => Ok(actor),
            Err(RecvTimeoutError::Timeout) => {
                Err(io::Error::other(format!("{name} did not start in {} s", limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other(format!("{name} ended before it was ready"))),
        }
    }

    /// Starts an installed program in `place` and waits until something listens on `port` there.
    pub fn daemon(&mut self, place: &Namespace, command: &mut Command, port: u16) -> io::Result<Actor> {
        let [stdout, stderr] = evidence::printed(self.how.evidence.as_ref())?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).env("PATH", search_path());
        place.start(command);
        let child = command.spawn()?;
        let actor = Actor { pid: Pid::from_child(&child), stdin: Arc::default() };
        self.children.push((child, actor.clone()));
        let (start, limit) = (Instant::now(), self.how.patient(Duration::from_secs(8)));
        while start.elapsed() < limit {
            // A look at the listeners, not a connect: that would take part in what is observed.
            if place.run(|| listens(port))? {
                return Ok(actor);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!("{:?} does not listen on port {port}", command.get_program())))
    }

    /// Adds a fault: `work` runs on a thread in `place` while the window is open. It must end soon after the window
    /// closes.
    pub fn fault(&mut self, place: &Namespace, work: impl FnOnce(&Window, &Tally) + Send + 'static) {
        let (place, tally, window) = (place.clone(), self.tally.clone(), Arc::clone(&self.window));
        self.faults.push(runtime::thread::start("fault", move || {
            while window.0.load(Ordering::Relaxed) < Window::OPEN {
                thread::sleep(Duration::from_millis(2));
            }
            // Not before: perf reports how a thread moves, but a list of processes shows the namespace of their first
            // thread only, which is the observed one.
            if let Err(error) = place.enter() {
                return tally.add(format!("the lab could not enter a namespace: {error}"), 1);
            }
            work(&window, &tally);
        }));
    }

    /// Watches the observed host for `seconds` while the faults run, and diagnoses it.
    pub fn observe(&mut self, seconds: f64) -> Result<(), Stop> {
        self.observe_stalled(seconds, 0.0)
    }

    /// Watches all network namespaces in which a program of the scenario runs, as `scan` does by default.
    pub fn observe_node(&mut self, seconds: f64) -> Result<(), Stop> {
        self.how.node = true;
        self.observe(seconds)
    }

    /// The same by an observer that gets no CPU for `stall` of these seconds, from their beginning.
    pub fn observe_stalled(&mut self, seconds: f64, stall: f64) -> Result<(), Stop> {
        let evidence =
            self.how.evidence.as_deref().map(|directory| Evidence::begin(directory, &self.places())).transpose()?;
        let before = counters::read()?;
        let window = Arc::clone(&self.window);
        // Only from not yet to open: this is called again and again, and never reopens.
        let mut open = || {
            let _ = window.0.compare_exchange(0, Window::OPEN, Ordering::Relaxed, Ordering::Relaxed);
        };
        // Slow programs make their faults later and more slowly: they get a longer window for it.
        let (seconds, stall) = (self.how.patient(Duration::from_secs_f64(seconds)), Duration::from_secs_f64(stall));
        let diagnosed = diagnose(seconds, stall, &self.how, &mut open);
        self.movement = counters::movement(&before, &counters::read()?);
        let lost = diagnosed.as_ref().map_or(0, |diagnosed| diagnosed.lost_records);
        self.movement.0.extend((lost > 0).then(|| (LOST_RECORDS.to_owned(), lost)));
        self.diagnosed = Some(diagnosed);
        self.window.0.store(Window::CLOSED, Ordering::Relaxed);
        for fault in self.faults.drain(..) {
            fault?.join().map_err(|_| io::Error::other("a fault panicked"))?;
        }
        // Actors report what they experienced every 50 ms.
        thread::sleep(Duration::from_millis(80));
        evidence.map_or(Ok(()), Evidence::end)
    }

    /// The hosts at which a capture is made.
    fn places(&self) -> Vec<(&'static str, &Namespace)> {
        let first = [(evidence::HERE, &self.here), ("client.pcap", &self.client)];
        first.into_iter().chain(self.others.iter().map(|(name, place)| (*name, place))).collect()
    }

    /// Loads nftables rules in a namespace. `rules` is what `nft -f` takes.
    pub fn firewall(&self, place: &Namespace, rules: &str) -> Result<(), Stop> {
        place.run(|| {
            let mut nft = Command::new("nft")
                .env("PATH", search_path())
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = nft.stdin.take() {
                stdin.write_all(rules.as_bytes())?;
            }
            let output = nft.wait_with_output()?;
            if output.status.success() {
                return Ok(());
            }
            Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
        })?;
        Ok(())
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub fn experienced(&self) -> BTreeMap<String, u64> {
        self.tally.take()
    }

    pub fn diagnosed(&self) -> Option<&Result<Diagnosed, String>> {
        self.diagnosed.as_ref()
    }

    pub fn movement(&self) -> &Movement {
        &self.movement
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `address:port`, for the eye.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// Addresses 10.NETWORK.0.HOST and fdNETWORK::HOST; the network is written alike in both.
fn end<'a>(namespace: &'a Namespace, interface: &'static str, network: u8, host: u8) -> End<'a> {
    let digits = u16::from(network / 10) << 4 | u16::from(network % 10);
    End {
        namespace,
        interface,
        v4: Ipv4Addr::new(10, network, 0, host),
        v6: Ipv6Addr::new(0xfd00 | digits, 0, 0, 0, 0, 0, 0, host.into()),
    }
}

/// Whether a socket of the calling thread's namespace listens on the port: proc_pid_net(5) tcp and tcp6, state 0A.
fn listens(port: u16) -> io::Result<bool> {
    let needle = format!(":{port:04X}");
    for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = std::fs::read_to_string(path)?;
        let found = text.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&needle)) && fields.nth(1) == Some("0A")
        });
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
