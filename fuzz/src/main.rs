//! Runs the targets over their corpus and its mutations, on stable Rust. Ends with status 1 at the first input that does
//! harm, which it keeps in `corpus/NAME/`.
//!
//! `mutate [--seconds N] [--count N] [--seed N] [--jobs N] [TARGET...]`; `mutate --write DIRECTORY` writes the seeds for libFuzzer.
//!
//! Each target has an equal share of the count and of the time. One that has its number leaves the rest of its time to the
//! others; those that need most time for an input are short of their number, and the result says by how much. With a count and no
//! time each target gets its number. With `--jobs` so many targets run side by side, each in a process of its own, and without a
//! time unless they have one: nobody leaves anything to another there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rstdoctor_fuzz::limits::{self, Counting};
use rstdoctor_fuzz::mutate::Random;
use rstdoctor_fuzz::targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What runs now, for the thread that ends an input that does not end.
static NOW: Mutex<Option<Running>> = Mutex::new(None);

/// A shorter rest of the time is not shared again.
const LEAST: Duration = Duration::from_secs(1);

struct Running {
    target: &'static Target,
    input: Vec<u8>,
    since: Instant,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut seconds, mut count, mut seed, mut jobs, mut names) = (None, None, 1, 1, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is not a number"));
        match argument.as_str() {
            "--seconds" => seconds = Some(number(value())),
            "--count" => count = Some(number(value())),
            "--seed" => seed = number(value()),
            "--jobs" => jobs = number(value()),
            "--write" => return write(Path::new(&value())),
            name => names.push(name.to_owned()),
        }
    }
    let all = TARGETS.iter().map(|target| target.name);
    let unknown: Vec<_> = names.iter().filter(|name| all.clone().all(|known| known != *name)).collect();
    assert!(unknown.is_empty(), "no target {unknown:?}, but: {}", all.collect::<Vec<_>>().join(", "));
    let targets: Vec<_> =
        TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name)).collect();
    let seconds = seconds.or(count.is_none().then_some(90));
    if jobs > 1 {
        return side_by_side(&targets, jobs, count, seconds, seed);
    }
    std::thread::spawn(watch);
    run(targets, count, seconds.map(Duration::from_secs), seed);
}

/// Each target in a process of its own, for its share, so many at a time; the last of the list, which take longest, first.
fn side_by_side(targets: &[&'static Target], jobs: u64, count: Option<u64>, seconds: Option<u64>, seed: u64) {
    let started = Instant::now();
    let among = |all: u64| all.div_ceil(targets.len() as u64);
    let share = count.map(among);
    let left = Mutex::new(targets.to_vec());
    let results = Mutex::new((0, 0));
    println!("{HEAD}");
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(target) = left.lock().expect("not poisoned").pop() else { return };
                    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
                    command.args([target.name, "--seed", &seed.to_string()]);
                    let options = [("--count", share), ("--seconds", seconds.map(|seconds| among(seconds * jobs)))];
                    for (option, value) in options.into_iter().filter_map(|(option, value)| Some((option, value?))) {
                        command.args([option, &value.to_string()]);
                    }
                    let output = command.output().expect("this program runs");
                    let said = String::from_utf8_lossy(&output.stdout);
                    let row = said.lines().find(|line| line.starts_with(target.name)).unwrap_or_default();
                    let inputs: Option<u64> = row.split_whitespace().nth(2).and_then(|inputs| inputs.parse().ok());
                    let (true, Some(inputs)) = (output.status.success(), inputs) else {
                        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
                        std::process::exit(1);
                    };
                    println!("{row}");
                    let mut results = results.lock().expect("not poisoned");
                    results.0 += inputs;
                    results.1 += usize::from(share.is_some_and(|share| inputs < share));
                }
            });
        }
    });
    let (inputs, short) = *results.lock().expect("not poisoned");
    conclude(inputs, started.elapsed(), share, targets.len(), short);
}

const HEAD: &str = "target              seeds     inputs        s      longest  most heap";

/// What was done, in all.
fn conclude(inputs: u64, took: Duration, share: Option<u64>, targets: usize, short: usize) {
    let took = took.as_secs();
    println!("{inputs} inputs in {took} s, no harm (limits: {:?}, {} MiB)", limits::TIME, limits::MEMORY >> 20);
    if let Some(share) = share {
        println!("{share} inputs for each of {targets} targets; the time was too short for {short}");
    }
}

/// Mutates all targets, each for its share of the inputs and of the time.
fn run(targets: Vec<&'static Target>, count: Option<u64>, time: Option<Duration>, seed: u64) {
    let started = Instant::now();
    let share = count.map(|count| count.div_ceil(targets.len() as u64));
    let mut open: Vec<_> = targets.into_iter().map(|target| Run::new(target, seed)).collect();
    let mut over: Vec<Run> = Vec::new();
    // One that has its number leaves time, which those that remain share in the next round.
    while !open.is_empty() {
        let left = time.map(|time| time.saturating_sub(started.elapsed()));
        if left.is_some_and(|left| left < LEAST) {
            break;
        }
        let mut remaining = open.len() as u32;
        for run in &mut open {
            let left = time.map(|time| time.saturating_sub(started.elapsed()) / remaining);
            run.go(share, left);
            remaining -= 1;
        }
        let (whole, rest) = open.into_iter().partition(|run| share.is_some_and(|share| run.inputs >= share));
        over.extend::<Vec<_>>(whole);
        open = rest;
    }
    over.extend(open);
    over.sort_by_key(|run| TARGETS.iter().position(|target| target.name == run.target.name));
    println!("{HEAD}");
    over.iter().for_each(Run::print);
    let short = over.iter().filter(|run| share.is_some_and(|share| run.inputs < share)).count();
    let inputs: u64 = over.iter().map(|run| run.inputs).sum();
    conclude(inputs, started.elapsed(), share, over.len(), short);
}

fn write(directory: &Path) {
    for target in TARGETS {
        let directory = directory.join(target.name);
        std::fs::create_dir_all(&directory).expect("a directory");
        for (number, seed) in target.seeds().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number:04}")), seed).expect("a file");
        }
    }
}

/// A target that is mutated.
struct Run {
    target: &'static Target,
    seeds: Vec<Vec<u8>>,
    /// What each seed gives.
    sound: Vec<Option<String>>,
    random: Random,
    inputs: u64,
    costs: Costs,
    took: Duration,
}

impl Run {
    /// Reads the seeds as they are.
    fn new(target: &'static Target, seed: u64) -> Self {
        let started = Instant::now();
        let seeds = target.seeds();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let mut costs = Costs::default();
        let sound = seeds.iter().map(|seed| costs.run(target, seed)).collect();
        let inputs = seeds.len() as u64;
        Self { target, seeds, sound, random: Random::new(seed), inputs, costs, took: started.elapsed() }
    }

    /// Until it has had so many inputs, or so much more time.
    fn go(&mut self, share: Option<u64>, time: Option<Duration>) {
        let started = Instant::now();
        let over =
            |inputs| share.is_some_and(|share| inputs >= share) || time.is_some_and(|time| started.elapsed() >= time);
        while !over(self.inputs) {
            let number = self.random.below(self.seeds.len());
            let mut input = self.seeds[number].clone();
            let other = &self.seeds[self.random.below(self.seeds.len())];
            (self.target.damage)(&mut input, other, &mut self.random);
            let result = self.costs.run(self.target, &input);
            if result.is_some() && result != self.sound[number] {
                harm(self.target, &input, "a damaged input gives another result, which is called whole");
            }
            self.inputs += 1;
        }
        self.took += started.elapsed();
    }

    fn print(&self) {
        let heap = format!("{:.1} MiB", self.costs.heap as f64 / f64::from(1 << 20));
        let (name, seeds, inputs) = (self.target.name, self.seeds.len(), self.inputs);
        let (took, longest) = (self.took.as_secs_f64(), self.costs.longest);
        println!("{name:<18} {seeds:>6} {inputs:>10} {took:>8.0} {longest:>12.1?} {heap:>10}");
    }
}

#[derive(Default)]
struct Costs {
    longest: Duration,
    heap: usize,
}

impl Costs {
    fn run(&mut self, target: &'static Target, input: &[u8]) -> Option<String> {
        *NOW.lock().expect("not poisoned") = Some(Running { target, input: input.to_vec(), since: Instant::now() });
        let (began, before) = (limits::cpu(), limits::heap());
        limits::peak();
        let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        let (time, heap) = (limits::cpu() - began, limits::peak().saturating_sub(before));
        self.longest = self.longest.max(time);
        self.heap = self.heap.max(heap);
        match result {
            Err(_) => harm(target, input, "it panics"),
            Ok(_) if time > limits::TIME => harm(target, input, &format!("it takes {time:?}")),
            Ok(_) if heap > limits::MEMORY => harm(target, input, &format!("it takes {} MiB", heap >> 20)),
            Ok(result) => result,
        }
    }
}

/// Keeps the input and ends the program.
fn harm(target: &Target, input: &[u8], what: &str) -> ! {
    let hash = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let path: PathBuf = target.corpus().join(format!("{hash:016x}"));
    std::fs::create_dir_all(target.corpus()).expect("a directory");
    std::fs::write(&path, input).expect("a file");
    println!("{}: {what}; kept as {}", target.name, path.display());
    std::process::exit(1);
}

/// Ends an input that does not end, or takes the memory of the machine.
fn watch() {
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = NOW.lock().expect("not poisoned");
        let Some(running) = now.as_ref() else { continue };
        // Far above the limits, which are looked at when it ends.
        if running.since.elapsed() > 30 * limits::TIME || limits::heap() > 8 * limits::MEMORY {
            let heap = limits::heap() >> 20;
            harm(
                running.target,
                &running.input,
                &format!("it goes on after {:?} with {heap} MiB", running.since.elapsed()),
            );
        }
    }
}
