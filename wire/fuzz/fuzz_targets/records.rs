//! No bytes make the reader of record batches panic, and what it reads can be written again.

#![no_main]

use elkfk_wire::kafka::records::{BatchBuilder, Compression, batches};
use libfuzzer_sys::fuzz_target;

/// What a batch may decompress to; small, so that bombs are found and not waited for.
const LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for batch in batches(data) {
        let Ok(batch) = batch else { return };
        let _ = (batch.check(), batch.check_produced(), batch.last_sequence(), batch.next_offset());
        // Also where the checksum is wrong: a peer can compute checksums too.
        let Ok(records) = batch.records(LIMIT_BYTES) else { continue };
        let mut builder = BatchBuilder::new(Compression::None).base_offset(batch.base_offset());
        for record in &records {
            let Ok(record) = record else { break };
            let _ = (record.control_type(), record.header("a"));
            let delta = record.offset.0.wrapping_sub(batch.base_offset().0) as i32;
            let headers = record.headers().map(|header| (header.key, header.value));
            let pushed =
                builder.push_at(delta, record.timestamp_ms, record.key, record.value, headers);
            if pushed.is_err() {
                break;
            }
        }
        if let Ok(built) = builder.build() {
            let _ = batches(&built).next().expect("a batch was built").expect("a whole one").check();
        }
    }
});
