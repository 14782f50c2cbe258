//! A window as the session gives it, of an observation that was built by hand.

use std::time::Duration;

use super::Window;
use crate::observation::testing::Case;

impl Case {
    /// A window of a row, that a session has closed on time.
    pub fn window(&self, dumped: bool) -> Window {
        let interval = self.netns.after.at.awake_since(self.netns.before.at);
        Window { observation: self.observation(), dumped, late: Duration::ZERO, interval }
    }
}
