//! The one place where the lab meets the live host.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::How;
use super::findings::{Diagnosed, watch};
use super::levels;
use crate::ask::{Answer, Ask, Clock, Frame, Probe};
use crate::kernel::LiveHost;
use crate::recording::{RecordingFile, RecordingHost};
use crate::value::Moment;

/// Diagnoses the network namespace of this process over a window, exactly as `scan` or `watch` does, and writes a recording
/// if asked. Calls `opened` at least once, as soon as the window is open. Does nothing for `stall` after that, as an observer that
/// gets no CPU. Blocks for the window.
pub fn diagnose(window: Duration, stall: Duration, how: &How, opened: &mut dyn FnMut()) -> Result<Diagnosed, String> {
    let inner = if how.node { LiveHost::of_node(Arc::default()) } else { LiveHost::new(Arc::default()) };
    let mut live = Opening { inner, opened, is_open: false, stall };
    match &how.record {
        None if how.levels && how.interval.is_none() => {
            let mut recording = RecordingHost::new(live, Vec::new(), false);
            let mut diagnosed = watch(&mut recording, window, None)?;
            let recording = recording.finish().map_err(|error| error.to_string())?;
            diagnosed.levels = levels::judge(&recording, window)?;
            Ok(diagnosed)
        }
        None => watch(&mut live, window, how.interval),
        Some(path) => {
            let file = RecordingFile::create(path).map_err(|error| error.to_string())?;
            let mut recording = RecordingHost::new(live, file, false);
            let diagnosed = watch(&mut recording, window, how.interval)?;
            recording.finish().and_then(RecordingFile::persist).map_err(|error| error.to_string())?;
            Ok(diagnosed)
        }
    }
}

/// A host that says when the window is open: the first look inside it follows the opening counters.
struct Opening<'a> {
    inner: LiveHost,
    opened: &'a mut dyn FnMut(),
    is_open: bool,
    stall: Duration,
}

impl Clock for Opening<'_> {
    fn frame(&mut self, frame: Frame) -> Option<Moment> {
        if let Frame::Poll { .. } = frame {
            (self.opened)();
            if self.is_open {
                thread::sleep(std::mem::take(&mut self.stall));
            }
            self.is_open = true;
        }
        self.inner.frame(frame)
    }
}

impl Probe for Opening<'_> {
    fn ask(&mut self, ask: &Ask, sink: &mut dyn FnMut(&[u8])) -> Answer {
        self.inner.ask(ask, sink)
    }
}
