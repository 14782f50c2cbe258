//! What reading a large capture costs, beside `tshark -Y tcp.flags.reset==1`, which reads it for its resets only.
//!
//! ```text
//! RSTDOCTOR_BENCH_CAPTURE_MB=1000 cargo bench --bench capture
//! ```
//!
//! Makes a capture of that size and one of a tenth of it: HTTP-like connections, 500 at the same time, every fiftieth ended by a RST;
//! and one of the whole size with nothing but short connections, about a thousand a megabyte, half of them refused. For each the time
//! and peak memory of `scan --from` (the best of three) and, where it is installed, of tshark, which is not asked for the last, whose
//! connections it keeps all. Fails where a RST or a connection is not counted, or where memory is more than 40 MB. The bar of the
//! time, 20 times faster than tshark, is for a quiet machine: it is shown, and not asked for. Needs no rights; the files are in the
//! directory for temporary files, and gone afterwards.

#![allow(unsafe_code, clippy::expect_used, clippy::panic, reason = "a bench that cannot measure ends")]
#![allow(clippy::zombie_processes, reason = "wait4 waits for it, and tells what it used")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Connections that are open at the same time.
const OPEN: u32 = 500;
/// Every so many-th connection is reset.
const EACH: u32 = 50;
/// Segments of an answer, and bytes of each.
const SEGMENTS: u32 = 40;
const SEGMENT: usize = 1_448;
const ROUNDS: usize = 3;
/// However large the file is, and however many connections it holds; MB.
const MEMORY: f64 = 40.0;

/// What kind of connections a capture holds.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// A request and an answer of 58 kB.
    Long,
    /// A request and an answer of one segment; every second is refused.
    Short,
}

fn main() {
    let mb: u64 = match std::env::var("RSTDOCTOR_BENCH_CAPTURE_MB") {
        Ok(text) => text.parse().expect("RSTDOCTOR_BENCH_CAPTURE_MB is a number"),
        Err(_) => 1_000,
    };
    println!("   size    packets  connections    RSTs    scan --from         memory     tshark   ratio (bar: 20)");
    for (shape, mb) in [(Shape::Long, (mb / 10).max(1)), (Shape::Long, mb), (Shape::Short, mb)] {
        one(shape, mb);
    }
}

fn one(shape: Shape, mb: u64) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let made = write(file.as_file(), shape, mb * 1_000_000).expect("a capture");
    let path = file.path();
    let runs: Vec<Run> = (0..ROUNDS).map(|_| scan(path)).collect();
    let best = runs.iter().min_by_key(|run| run.took).expect("rounds");
    let count = |key: &str| best.report["capture"][key].as_u64().expect("a count");
    assert_eq!((count("connections"), count("resets")), (made.connections, made.resets), "all of them are counted");
    let (took, rate) = (best.took.as_secs_f64(), made.packets as f64 / best.took.as_secs_f64() / 1e6);
    let beside = match (shape == Shape::Long).then(|| tshark(path)) {
        Some(Some((time, resets))) => {
            assert_eq!(resets, made.resets, "tshark counts them, too");
            format!("{:8.2} s   {:.1}", time.as_secs_f64(), time.as_secs_f64() / took)
        }
        Some(None) => "not installed".to_owned(),
        None => "not asked".to_owned(),
    };
    let memory = runs.iter().map(|run| run.memory).fold(0.0, f64::max);
    println!(
        "{:4} MB {:10} {:12} {:7}  {took:6.2} s, {rate:4.1} M/s {memory:8.1} MB {beside}",
        made.bytes / 1_000_000,
        made.packets,
        made.connections,
        made.resets
    );
    assert!(memory <= MEMORY, "{memory} MB of memory, at most {MEMORY} are wanted");
}

struct Run {
    took: Duration,
    /// MB.
    memory: f64,
    report: serde_json::Value,
}

fn scan(path: &Path) -> Run {
    let started = Instant::now();
    let output = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rstdoctor"));
    command.args(["scan", "--json", "--from"]).arg(path).stdin(Stdio::null());
    let child = command.stdout(output.reopen().expect("a file")).spawn().expect("the program starts");
    let pid = child.id() as i32;
    // SAFETY: status and usage are written by the call, which waits for our own child, and live until after it.
    let (status, usage) = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid, "{}", io::Error::last_os_error());
        (status, usage)
    };
    let took = started.elapsed();
    assert_eq!(status, 0, "the scan succeeds");
    let report = serde_json::from_reader(output.reopen().expect("a file")).expect("JSON");
    Run { took, memory: usage.ru_maxrss as f64 / 1024.0, report }
}

fn tshark(path: &Path) -> Option<(Duration, u64)> {
    let started = Instant::now();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(path).args(["-Y", "tcp.flags.reset==1"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
    Some((started.elapsed(), lines))
}

/// What a capture holds.
#[derive(Default)]
struct Made {
    packets: u64,
    connections: u64,
    resets: u64,
    bytes: u64,
}

/// One packet: flags, sequence and acknowledgement number, whether the client sends it, bytes of data.
type Packet = (u8, u32, u32, bool, usize);

/// Connections one after the other in each of `OPEN` rows, until there is that much; of a small capture in fewer rows.
fn write(file: &File, shape: Shape, bytes: u64) -> io::Result<Made> {
    let mut output = BufWriter::with_capacity(1 << 20, file);
    // Little-endian, microseconds, 2.4, snaplen 262144, Ethernet.
    let head = [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 262_144, 1];
    for word in head {
        output.write_all(&word.to_le_bytes())?;
    }
    let mut made = Made::default();
    let data: Vec<u8> = (0..SEGMENT).map(|at| b"abcdefghijklmnop"[at % 16]).collect();
    let one: u64 = connection(0, shape).iter().map(|packet| 70 + packet.4 as u64).sum();
    let rows = u32::try_from(bytes / one / 4).unwrap_or(OPEN).clamp(1, OPEN);
    let mut first = 0;
    while made.bytes < bytes {
        let connections: Vec<Vec<Packet>> = (first..first + rows).map(|number| connection(number, shape)).collect();
        let longest = connections.iter().map(Vec::len).max().unwrap_or(0);
        for step in 0..longest {
            for (number, packets) in (first..).zip(&connections) {
                if let Some(packet) = packets.get(step) {
                    made.bytes += put(&mut output, number, *packet, made.packets, &data)?;
                    made.packets += 1;
                    made.resets += u64::from(packet.0 & RST != 0);
                }
            }
        }
        made.connections += u64::from(rows);
        first += rows;
    }
    output.flush()?;
    Ok(made)
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const REQUEST: usize = 200;

fn connection(number: u32, shape: Shape) -> Vec<Packet> {
    let (client, server) = (number.wrapping_mul(7_919), number.wrapping_mul(104_729));
    let (asked, answered) = (client.wrapping_add(1 + REQUEST as u32), server.wrapping_add(1));
    if shape == Shape::Short && number % 2 == 1 {
        return vec![(SYN, client, 0, true, 0), (RST | ACK, 0, client.wrapping_add(1), false, 0)];
    }
    let segments = if shape == Shape::Long { SEGMENTS } else { 1 };
    let mut packets = vec![
        (SYN, client, 0, true, 0),
        (SYN | ACK, server, client.wrapping_add(1), false, 0),
        (ACK, client.wrapping_add(1), answered, true, 0),
        (PSH | ACK, client.wrapping_add(1), answered, true, REQUEST),
    ];
    for segment in 0..segments {
        let seq = answered.wrapping_add(segment * SEGMENT as u32);
        packets.push((ACK, seq, asked, false, SEGMENT));
        if segment % 2 == 1 {
            packets.push((ACK, asked, seq.wrapping_add(SEGMENT as u32), true, 0));
        }
    }
    let end = answered.wrapping_add(segments * SEGMENT as u32);
    if number.is_multiple_of(EACH) {
        packets.push((RST | ACK, end, asked, false, 0));
    } else {
        packets.push((FIN | ACK, end, asked, false, 0));
        packets.push((FIN | ACK, asked, end.wrapping_add(1), true, 0));
        packets.push((ACK, end.wrapping_add(1), asked.wrapping_add(1), false, 0));
    }
    packets
}

/// Writes the packet with its record head; gives how many bytes that were.
fn put(output: &mut impl Write, number: u32, packet: Packet, before: u64, data: &[u8]) -> io::Result<u64> {
    let (flags, seq, ack, by_client, length) = packet;
    // No two connections have the same ends: 60,000 ports of each client.
    let (host, port) = (number / 60_000, u16::try_from(number % 60_000).unwrap_or(0) + 4_000);
    let ends = [([10, 1, (host >> 8) as u8, host as u8], port), ([10, 0, 0, 1], 80)];
    let [from, to] = if by_client { ends } else { [ends[1], ends[0]] };
    let mut frame = Vec::with_capacity(54 + 16);
    let total = 40 + length;
    // Of a day on which one packet came every two microseconds.
    let micros = before * 2;
    for word in
        [1_700_000_000 + (micros / 1_000_000) as u32, (micros % 1_000_000) as u32, 14 + total as u32, 14 + total as u32]
    {
        frame.extend_from_slice(&word.to_le_bytes());
    }
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    frame.extend_from_slice(&(total as u16).to_be_bytes());
    frame.extend_from_slice(&(before as u16 | 1).to_be_bytes());
    frame.extend_from_slice(&[0x40, 0, 64, 6, 0, 0]);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.1.to_be_bytes());
    frame.extend_from_slice(&to.1.to_be_bytes());
    frame.extend_from_slice(&seq.to_be_bytes());
    frame.extend_from_slice(&ack.to_be_bytes());
    frame.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    output.write_all(&frame)?;
    output.write_all(data.get(..length).unwrap_or_default())?;
    Ok((frame.len() + length) as u64)
}
