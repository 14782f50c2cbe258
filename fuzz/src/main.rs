//! Runs the targets over their corpus and its mutations, on stable Rust. Ends with status 1 at the first input that does
//! harm, which it keeps in `corpus/NAME/`.
//!
//! `mutate [--seconds N | --count N] [--seed N] [TARGET...]`; `mutate --write DIRECTORY` writes the seeds for libFuzzer.

use std::collections::HashMap;
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

struct Running {
    target: &'static Target,
    input: Vec<u8>,
    since: Instant,
}

/// How long to mutate each target.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Count(u64),
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut until, mut seed, mut names) = (Until::Time(Duration::from_secs(90)), 1, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is not a number"));
        match argument.as_str() {
            "--seconds" => until = Until::Time(Duration::from_secs(number(value()))),
            "--count" => until = Until::Count(number(value())),
            "--seed" => seed = number(value()),
            "--write" => return write(Path::new(&value())),
            name => names.push(name.to_owned()),
        }
    }
    let all = TARGETS.iter().map(|target| target.name);
    let unknown: Vec<_> = names.iter().filter(|name| all.clone().all(|known| known != *name)).collect();
    assert!(unknown.is_empty(), "no target {unknown:?}, but: {}", all.collect::<Vec<_>>().join(", "));
    let targets: Vec<_> =
        TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name)).collect();
    std::thread::spawn(watch);
    let count = u32::try_from(targets.len()).expect("a short list");
    let until = match until {
        Until::Time(time) => Until::Time(time / count),
        Until::Count(number) => Until::Count(number / u64::from(count)),
    };
    println!("{:<18} {:>6} {:>10} {:>12} {:>10}", "target", "seeds", "inputs", "longest", "most heap");
    let inputs: u64 = targets.into_iter().map(|target| fuzz(target, until, seed)).sum();
    println!("{inputs} inputs, no harm (limits: {:?}, {} MiB)", limits::TIME, limits::MEMORY >> 20);
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

/// Runs one target until its time is over. The number of inputs.
fn fuzz(target: &'static Target, until: Until, seed: u64) -> u64 {
    let seeds = target.seeds();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let mut costs = Costs::default();
    let mut sound = HashMap::new();
    for (number, seed) in seeds.iter().enumerate() {
        sound.insert(number, costs.run(target, seed));
    }
    let (started, mut random, mut inputs) = (Instant::now(), Random::new(seed), seeds.len() as u64);
    let over = |inputs: u64| match until {
        Until::Time(time) => started.elapsed() >= time,
        Until::Count(count) => inputs >= count,
    };
    while !over(inputs) {
        let number = random.below(seeds.len());
        let mut input = seeds[number].clone();
        (target.damage)(&mut input, &seeds[random.below(seeds.len())], &mut random);
        let result = costs.run(target, &input);
        if result.is_some() && result != sound[&number] {
            harm(target, &input, "a damaged input gives another result, which is called whole");
        }
        inputs += 1;
    }
    let heap = format!("{:.1} MiB", costs.heap as f64 / f64::from(1 << 20));
    println!("{:<18} {:>6} {inputs:>10} {:>12.1?} {heap:>10}", target.name, seeds.len(), costs.longest);
    inputs
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
