//! Every decoder of ZooKeeper's records, on any bytes; what a decoder accepts can be written and read again.
#![no_main]

use elkfk_wire::jute::{
    ConnectRequest, ConnectResponse, OpCode, Reader, ReplyHeader, Request, RequestHeader, Response,
    WatchedEvent, check_path, frame_in, parent_and_name,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [op, bytes @ ..] = data else { return };
    let op = OpCode::ALL[usize::from(*op) % OpCode::ALL.len()];
    if let Ok(request) = Request::decode(op, &mut Reader::new(bytes)) {
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(Request::decode(op, &mut Reader::new(&out)).as_ref(), Ok(&request));
    }
    if let Ok(response) = Response::decode(op, &mut Reader::new(bytes)) {
        let mut out = Vec::new();
        response.encode(&mut out);
        assert_eq!(Response::decode(op, &mut Reader::new(&out)).as_ref(), Ok(&response));
    }
    let _ = ConnectRequest::decode(bytes);
    let _ = ConnectResponse::decode(bytes);
    let _ = RequestHeader::decode(&mut Reader::new(bytes));
    let _ = ReplyHeader::decode(&mut Reader::new(bytes));
    let _ = WatchedEvent::decode(&mut Reader::new(bytes));
    let _ = frame_in(bytes, 1000);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = check_path(text);
        let _ = parent_and_name(text);
    }
});
