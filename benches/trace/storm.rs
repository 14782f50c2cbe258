//! What is seen and lost of a storm.

use std::time::Duration;

use serde_json::Value;

use crate::reader::{FEW, JSON, JSON_OF_OTHER, Reader, TEXT, Used};
use crate::{load, print_details};

/// Each refused connect is two.
const RESETS_PER_SECOND: f64 = 100_000.0;

pub fn run(readers: &[Reader], seconds: Duration, rounds: usize) {
    println!("storm of {RESETS_PER_SECOND} resets a second for {} s", seconds.as_secs());
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        println!("  round {round}");
        for reader in readers.iter().filter(|reader| !reader.is_none()) {
            let running = reader.start();
            let before = load::out_rsts();
            let connects = load::refused(seconds, Some(RESETS_PER_SECOND / 2.0)).connects;
            let sent = load::out_rsts() - before;
            let used = running.end();
            assert_eq!(sent, connects, "each refused connect is one RST");
            let made = 2 * sent;
            // Where the machine does not reach the rate, they made different numbers.
            match reader.name {
                TEXT => with.push(used.cpu / made as f64),
                FEW => without.push(used.cpu / made as f64),
                _ => {}
            }
            let reached = made as f64 / seconds.as_secs_f64();
            println!(
                "    {:18} made {made} ({reached:.0}/s), CPU {:.2} s, peak {:.1} MiB: {}",
                reader.name,
                used.cpu,
                used.peak_mib,
                account(reader.name, made, &used)
            );
        }
    }
    print_details("CPU of the reader", &with, &without);
}

/// What the reader says, and whether it adds up.
pub fn account(name: &str, made: u64, used: &Used) -> String {
    match name {
        JSON | JSON_OF_OTHER => exact(made, used),
        "bpftrace" => {
            let text = format!("{}\n{}", used.tail, used.stderr);
            let recorded = used.lines;
            let lines = text.lines().filter(|line| line.contains("ost ") || line.starts_with('@'));
            format!("{recorded} lines; {}", lines.collect::<Vec<_>>().join("; "))
        }
        _ => {
            let wanted = ["captured", "ropped", "resets in", "lost ", "not shown", "tallied", "packets "];
            let lines = used.stderr.lines().map(str::trim).filter(|line| wanted.iter().any(|word| line.contains(word)));
            lines.collect::<Vec<_>>().join("; ")
        }
    }
}

/// Every reset that was made is a line, tallied, or known to be lost.
fn exact(made: u64, used: &Used) -> String {
    let last = used.tail.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last}"));
    let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key} in {last}"));
    let (counted, lost, total, packet_only) =
        (number("counted"), number("lost"), number("total"), number("packet_only"));
    let (passed_over, not_examined, not_shown) = (number("passed_over"), number("not_examined"), number("not_shown"));
    let recorded = total - packet_only;
    assert_eq!(counted, recorded + passed_over + not_examined + lost, "the account is not exact: {summary}");
    // Another namespace of this host may have reset something too.
    assert!(counted >= made, "the kernel counted {counted} of {made}: {summary}");
    if counted > made {
        println!("    {} more resets happened elsewhere on this host", counted - made);
    } else {
        assert_eq!(recorded + not_examined + lost, made, "{summary}");
    }
    format!(
        "counted {counted}, recorded {recorded}, lost {lost} ({:.3} %); {not_examined} only tallied, {} shown, {not_shown} not \
         shown, {packet_only} by packet only; packets: {} lost, {} not looked at",
        100.0 * lost as f64 / counted as f64,
        total - not_shown,
        number("packets_lost"),
        number("packets_left"),
    )
}
