//! What looking costs each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rstdoctor::ask::{Ask, Probe, What};
use rstdoctor::kernel::LiveHost;
use rstdoctor::kernel::namespace::Handle;

use crate::reader::{FEW, Reader, TEXT};
use crate::{load, median, print_details, storm};

/// A refused connect with each reader, as fast as the machine can.
pub fn of_readers(readers: &[Reader], seconds: Duration, rounds: usize) {
    println!("cost of a refused connect, two threads as fast as they can; median of {rounds}");
    beside(readers, seconds, rounds, |seconds| load::refused(seconds, None).micros);
}

/// A connection that its server aborts, with each reader: a RST sent by a call, whose record has the call chain, and one received,
/// with the error that the client gets.
pub fn of_aborts(readers: &[Reader], seconds: Duration, rounds: usize) {
    println!("cost of an aborted connection, one thread as fast as it can; median of {rounds}");
    beside(readers, seconds, rounds, load::aborted);
}

/// Each reader in turn beside the load, whose every RST is sent and received here.
fn beside(readers: &[Reader], seconds: Duration, rounds: usize, load: impl Fn(Duration) -> f64) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut turn = |reader: &Reader| {
        let running = reader.start();
        let (before, cpu) = (load::out_rsts(), load::cpu());
        let micros = load(seconds);
        let (made, cpu) = (2 * (load::out_rsts() - before), load::cpu() - cpu);
        let used = running.end();
        if !reader.is_none() {
            let rate = made as f64 / seconds.as_secs_f64();
            println!("    {:18} made {made} ({rate:.0}/s): {}", reader.name, storm::account(reader.name, made, &used));
        }
        // Whatever else runs on the machine takes less from that than from the time.
        let cpu = (cpu + used.cpu * 1e6) / made as f64;
        match reader.name {
            TEXT => with.push(cpu),
            FEW => without.push(cpu),
            _ => {}
        }
        micros
    };
    let names: Vec<_> = readers.iter().map(|reader| reader.name).collect();
    take_turns(&names, rounds, |index| turn(&readers[index]));
    print_details("CPU of the connections and the reader", &with, &without);
}

/// A regular connection while one source of the kernel is open.
pub fn of_sources(seconds: Duration, rounds: usize) {
    println!("cost of a regular connection, one thread; median of {rounds}");
    let netns = Handle::current().id();
    let sources = [
        None,
        Some(Ask::netns(netns, What::DestroyedSockets)),
        Some(Ask::netns(netns, What::ResetPackets)),
        Some(Ask::host(What::ResetEvents)),
    ];
    let names = ["none", "destroy multicast", "packets, TTL samples", "tracepoints"];
    take_turns(&names, rounds, |index| with(sources[index].clone(), || load::regular(seconds)));
}

/// Each in turn, in every round; the first is the measure of the others.
fn take_turns(names: &[&str], rounds: usize, mut turn: impl FnMut(usize) -> f64) {
    let mut micros = vec![Vec::new(); names.len()];
    for _ in 0..rounds {
        micros.iter_mut().enumerate().for_each(|(index, micros)| micros.push(turn(index)));
    }
    let first = micros[0].clone();
    for (name, micros) in names.iter().zip(micros) {
        let ratios = micros.iter().zip(&first).map(|(one, other)| one / other).collect();
        println!("  {name:22} {:6.2} us  x{:.2}", median(micros), median(ratios));
    }
}

/// Reads the source every 50 ms, as a scan does, while `work` runs.
fn with(source: Option<Ask>, work: impl FnOnce() -> f64) -> f64 {
    let Some(source) = source else { return work() };
    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (theirs, looks) = (Arc::clone(&stop), Arc::clone(&ready));
    let reader = std::thread::spawn(move || {
        let mut host = LiveHost::new(Arc::clone(&theirs));
        while !theirs.load(Ordering::Relaxed) {
            host.ask(&source, &mut |_| {}).result.expect("the source answers");
            looks.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    while !ready.load(Ordering::Relaxed) && !reader.is_finished() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let micros = work();
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("the source answers");
    micros
}
