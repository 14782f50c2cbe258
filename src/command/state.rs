//! Where this user keeps state.

use std::path::PathBuf;

use crate::command::config::Home;

/// Asks the environment.
pub fn home() -> Home {
    let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    Home { is_root: rustix::process::geteuid().is_root(), xdg_state_home: path("XDG_STATE_HOME"), home: path("HOME") }
}
