//! No text makes a `query_string` panic, run over a few documents.

#![no_main]

use std::sync::LazyLock;

use elkfk_store::fuzzing::Sample;
use libfuzzer_sys::fuzz_target;

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    Sample::new(&std::env::temp_dir().join(format!("fuzz-{}", std::process::id())))
});

fuzz_target!(|text: &str| {
    let _ = SAMPLE.query_string(text);
});
