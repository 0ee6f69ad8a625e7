//! No body makes `_bulk` panic, nor the reading of its documents.

#![no_main]

use elkfk_store::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = fuzzing::read_bulk(data);
});
