//! No body makes `_search` panic: query DSL, sort and aggregations, run over a few documents.

#![no_main]

use std::sync::LazyLock;

use elkfk_store::fuzzing::Sample;
use libfuzzer_sys::fuzz_target;

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    Sample::new(&std::env::temp_dir().join(format!("fuzz-{}", std::process::id())))
});

fuzz_target!(|data: &[u8]| {
    let _ = SAMPLE.search(data);
});
