//! `rstdoctor recording`: what is inside a recording, for people who debug.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::NOTHING;
use crate::command::cli::{RecordingArgs, RecordingCommand, ShowArgs};
use crate::output::{print, say};
use crate::recording::show::{ShownAnswer, ShownFrame, frames};
use crate::value::escape::visible;

/// Bytes of a binary answer that are shown.
const SHOWN: usize = 512;

pub fn run(args: &RecordingArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        RecordingCommand::Show(args) => show(args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let (mut start, mut found) = (None, args.key.is_none());
    let mut printed = Ok(());
    let read = frames(&args.file, &mut |manifest, frame| {
        let mut text = String::new();
        if start.is_none() && args.key.is_none() {
            let (tool, redacted) = (&manifest.tool, if manifest.redacted { "redacted" } else { "not redacted" });
            let made = format!("{} {}, started {}, {redacted}", tool.name, tool.version, manifest.started_at);
            text += &format!("{}\n", visible(&made));
        }
        let since = frame.at.mono.saturating_sub(*start.get_or_insert(frame.at.mono));
        match &args.key {
            None => list(&mut text, frame, since),
            Some(key) => {
                for answer in frame.answers.iter().filter(|answer| answer.is(key)) {
                    found = true;
                    text += &format!("{} {}\n", head(frame, since), outcome(answer));
                    content(&mut text, &answer.bytes);
                }
            }
        }
        print(&text).map_err(|error| {
            let kind = error.kind();
            printed = Err(error);
            kind.into()
        })
    });
    // Is no fault of the recording.
    printed?;
    if let Some(cut) = read? {
        say(format_args!("rstdoctor: {}: the recording is cut off {cut}", args.file.display()));
    }
    if !found {
        say("rstdoctor: no answer has that key; without a key, all keys are listed");
        return Ok(ExitCode::from(NOTHING));
    }
    Ok(ExitCode::SUCCESS)
}

fn head(frame: &ShownFrame<'_>, since: Duration) -> String {
    format!("frame {} {} +{:.3} s", frame.number, frame.kind.name(), since.as_secs_f64())
}

fn list(text: &mut String, frame: &ShownFrame<'_>, since: Duration) {
    text.push_str(&format!("{}, {}\n", head(frame, since), frame.place));
    for answer in &frame.answers {
        text.push_str(&format!("  {} {}\n", answer.key, outcome(answer)));
    }
}

fn outcome(answer: &ShownAnswer<'_>) -> String {
    let failure = answer.failure.as_ref().map(|failure| format!(", {:?}: {failure}", failure.kind));
    let text = format!("{} bytes{}", answer.bytes.len(), failure.unwrap_or_default());
    visible(&text).into_owned()
}

/// Text line by line, anything else in hexadecimal.
fn content(out: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')) {
        Some(text) => text.lines().for_each(|line| out.push_str(&format!("  {}\n", visible(line)))),
        None => {
            for (number, row) in bytes.chunks(16).take(SHOWN / 16).enumerate() {
                // Writing to a String cannot fail.
                let _ = write!(out, "  {:06x} ", number * 16);
                row.iter().for_each(|byte| _ = write!(out, " {byte:02x}"));
                out.push('\n');
            }
            if let Some(more) = bytes.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                out.push_str(&format!("  and {more} bytes more\n"));
            }
        }
    }
}
