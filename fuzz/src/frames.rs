//! Damage to what the frames of a recording hold, behind sound checksums and lengths: what a hostile writer sends, and what
//! the readers behind the checksums never see of a file that is damaged as such.

use std::ops::Range;

use flate2::Compression;

use crate::forge::{self, AFTER, END, Frame, MANIFEST};
use crate::mutate::{self, Random};

/// Bytes of the times with which a frame begins.
const TIMES: usize = 40;
/// Bytes of another frame that may be put in.
const FOREIGN: usize = 4 << 10;
/// What is damaged at the head of an answer: its length, its key, the length of its first part, and some of that.
const HEAD: usize = 96;

/// Damages one or two frames of a sound recording.
pub fn damage(recording: &mut Vec<u8>, _: &[u8], random: &mut Random) {
    let (mut frames, _) = forge::unpack(recording);
    for _ in 0..=random.below(2) {
        damage_one(&mut frames, random);
    }
    // Not packed: to do so takes longer than to read it.
    *recording = forge::segment_at(Compression::none(), 0, MANIFEST, &frames, END);
}

fn damage_one(frames: &mut Vec<Frame>, random: &mut Random) {
    let at = random.below(frames.len());
    let other = random.below(frames.len());
    let Some((_, foreign)) = frames.get(other) else { return };
    let from = random.below(foreign.len() + 1);
    let foreign = foreign[from..(from + FOREIGN).min(foreign.len())].to_vec();
    match random.below(32) {
        0 => drop(frames.remove(at)),
        1 => frames.insert(at, frames[other].clone()),
        2 => frames.swap(at, other),
        3 => frames[at].0 = 1 + random.below(AFTER as usize) as u32,
        _ => {
            let frame = &mut frames[at].1;
            let within = place(frame, random);
            let mut part = frame[within.clone()].to_vec();
            mutate::damage(&mut part, &foreign, random);
            frame.splice(within, part);
        }
    }
}

/// The times, the head of an answer, or anything. Most of a frame is text of a few answers: without aim nothing else is hit.
fn place(frame: &[u8], random: &mut Random) -> Range<usize> {
    match random.below(8) {
        0 => 0..TIMES.min(frame.len()),
        1..=3 => {
            let answers = answers(frame);
            let start = answers.get(random.below(answers.len())).copied().unwrap_or(0);
            start..(start + HEAD).min(frame.len())
        }
        4..=5 => {
            // One answer: few are long, and all are as likely.
            let answers = answers(frame);
            let chosen = random.below(answers.len());
            let start = answers.get(chosen).copied().unwrap_or(0);
            start..answers.get(chosen + 1).copied().unwrap_or(frame.len())
        }
        _ => 0..frame.len(),
    }
}

/// Where the answers of a frame begin, as far as it is sound.
fn answers(frame: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut next = Some(TIMES);
    while let Some(at) = next.filter(|at| *at < frame.len()) {
        starts.push(at);
        next = behind(frame, at);
    }
    starts
}

/// What follows the answer that begins there.
fn behind(frame: &[u8], at: usize) -> Option<usize> {
    let text = |at: usize| Some(at + 2 + usize::from(u16::from_le_bytes(*frame.get(at..)?.first_chunk()?)));
    let mut at = text(at)?;
    loop {
        let length = u32::from_le_bytes(*frame.get(at..)?.first_chunk()?) as usize;
        at = at.checked_add(4 + length)?;
        if length == 0 {
            break;
        }
    }
    match frame.get(at)? {
        0 => Some(at + 1),
        _ => text(text(at + 1)?),
    }
}
