//! No stream makes the frame codec or the request header panic.

#![no_main]

use bytes::BytesMut;
use elkfk_wire::kafka::{Reader, RequestHeader, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(body)) = frame::next(&mut buffer, 1 << 20) {
        let _ = RequestHeader::decode(&mut Reader::new(&body));
    }
});
