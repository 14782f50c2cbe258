//! What a cause says of an observation that was built by hand.

use super::{Cause, Finding, Verdict};
use crate::evidence::Evidence;
use crate::observation::testing::Case;
use crate::value::Missing;

impl Case {
    pub fn judge(&self, cause: &Cause) -> Result<Verdict, Missing> {
        (cause.judge)(&Evidence::new(self.view()))
    }

    pub fn is_ruled_out(&self, cause: &Cause) -> bool {
        matches!(self.judge(cause), Ok(Verdict::RuledOut(_)))
    }

    /// The source that it lacks, if it lacks one.
    pub fn missing(&self, cause: &Cause) -> Option<&'static str> {
        self.judge(cause).err().map(|missing| missing.source)
    }

    /// The only finding; a failed test shows what came instead.
    pub fn finding(&self, cause: &Cause) -> Finding {
        match self.judge(cause) {
            Ok(Verdict::Found(mut findings)) if findings.len() == 1 => findings.remove(0),
            other => panic!("{} gave {other:?}", cause.id),
        }
    }
}
