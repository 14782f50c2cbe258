//! The targets for libFuzzer: `TARGET=reset_events cargo +nightly fuzz run --features libfuzzer any fuzz/corpus/reset_events`.

#![no_main]

use std::sync::LazyLock;

use rstdoctor_fuzz::targets::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET names one of the targets");
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (TARGET.run)(bytes);
});
