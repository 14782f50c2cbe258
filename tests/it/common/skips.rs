//! No silent skip: what could not be run here is told when all tests have ended, below the line that counts those that passed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, Once, PoisonError};

/// Names, to a process that runs one test inside a namespace, the file in which it says what became of it.
const FILE: &str = "RSTDOCTOR_TEST_SKIPS";
const PASSED: &str = "passed";

/// Reasons, and the tests that gave them.
static SKIPS: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// Says that the running test cannot be run here, or not whole, and why.
pub fn skipped(why: impl Display) {
    let why = why.to_string().replace('\n', " ");
    match std::env::var_os(FILE) {
        Some(_) => tell(&why),
        None => add(super::test_name(), why),
    }
}

/// Called inside when the body of the test has returned.
pub fn passed_inside() {
    tell(PASSED);
}

fn tell(line: &str) {
    let path = std::env::var_os(FILE).expect("set together with the test's name");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Runs a process that runs one test, and takes over what it skipped.
pub fn collect(mut inside: Command) -> ExitStatus {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = inside.env(FILE, file.path()).output().unwrap();
    // By the macro, so that it is shown of a failed test, or of all with --nocapture.
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let status = output.status;
    let told = std::fs::read_to_string(file.path()).unwrap();
    let (passed, skips): (Vec<_>, Vec<_>) = told.lines().partition(|line| *line == PASSED);
    assert!(!status.success() || passed.len() == 1, "the test of this name was not run inside: {inside:?}");
    skips.into_iter().for_each(|why| add(super::test_name(), why.to_owned()));
    status
}

fn add(test: String, why: String) {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| {
        // SAFETY: the function takes and gives nothing, and does not unwind.
        assert_eq!(unsafe { libc::atexit(summary) }, 0);
    });
    SKIPS.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default().push(test);
}

/// The test harness has no last word of its own that tests could add to; the end of the process has.
extern "C" fn summary() {
    let skips = SKIPS.lock().unwrap_or_else(PoisonError::into_inner);
    let tests = skips.values().flatten().collect::<std::collections::BTreeSet<_>>().len();
    let mut text = format!("{tests} skipped, counted as passed above:\n");
    for (why, tests) in skips.iter() {
        text.push_str(&format!("  {why}\n"));
        tests.iter().for_each(|test| text.push_str(&format!("    {test}\n")));
    }
    let _ = writeln!(std::io::stderr(), "{text}");
}
