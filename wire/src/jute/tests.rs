//! Round trips, recorded bytes, and the law that no bytes do harm.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    "[a-z/ü0-9]{0,12}".prop_map(Cow::Owned)
}

fn data() -> impl Strategy<Value = Option<Cow<'static, [u8]>>> {
    option::of(vec(any::<u8>(), 0..40).prop_map(Cow::Owned))
}

fn acls() -> impl Strategy<Value = Option<Vec<Acl<'static>>>> {
    let acl =
        (any::<i32>(), text(), text()).prop_map(|(perms, scheme, id)| Acl { perms, scheme, id });
    option::of(vec(acl, 0..3))
}

fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(long, int)| Stat {
        czxid: Zxid(long[0]),
        mzxid: Zxid(long[1]),
        ctime_ms: long[2],
        mtime_ms: long[3],
        version: int[0],
        cversion: int[1],
        aversion: int[2],
        ephemeral_owner: SessionId(long[4]),
        data_length: int[3],
        num_children: int[4],
        pzxid: Zxid(long[5]),
    })
}

fn write() -> impl Strategy<Value = Request<'static>> {
    let kind = prop_oneof![
        Just(CreateKind::Create),
        Just(CreateKind::Create2),
        Just(CreateKind::Container),
        Just(CreateKind::Ttl)
    ];
    prop_oneof![
        (kind, text(), data(), acls(), any::<i32>(), any::<i64>()).prop_map(
            |(kind, path, data, acl, flags, ttl)| {
                let ttl_ms = if kind == CreateKind::Ttl { ttl } else { 0 };
                Request::Create { kind, path, data, acl, flags, ttl_ms }
            }
        ),
        (text(), any::<i32>()).prop_map(|(path, version)| Request::Delete { path, version }),
        (text(), data(), any::<i32>()).prop_map(|(path, data, version)| Request::SetData {
            path,
            data,
            version
        }),
        (text(), any::<i32>()).prop_map(|(path, version)| Request::Check { path, version }),
    ]
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let nullable = || option::of(text());
    let flagged = || (text(), any::<bool>());
    let paths = || vec(text(), 0..4);
    prop_oneof![
        write(),
        vec(write(), 0..5).prop_map(Request::Multi),
        flagged().prop_map(|(path, watch)| Request::Exists { path, watch }),
        flagged().prop_map(|(path, watch)| Request::GetData { path, watch }),
        flagged().prop_map(|(path, watch)| Request::GetChildren { path, watch }),
        flagged().prop_map(|(path, watch)| Request::GetChildren2 { path, watch }),
        vec(flagged().prop_map(|(path, watch)| Request::GetData { path, watch }), 0..3)
            .prop_map(Request::MultiRead),
        text().prop_map(|path| Request::GetAcl { path }),
        text().prop_map(|path| Request::Sync { path }),
        text().prop_map(|path| Request::DeleteContainer { path }),
        text().prop_map(|prefix| Request::GetEphemerals { prefix }),
        text().prop_map(|path| Request::GetAllChildrenNumber { path }),
        (text(), acls(), any::<i32>()).prop_map(|(path, acl, version)| Request::SetAcl {
            path,
            acl,
            version
        }),
        (text(), any::<i32>()).prop_map(|(path, kind)| Request::CheckWatches { path, kind }),
        (text(), any::<i32>()).prop_map(|(path, kind)| Request::RemoveWatches { path, kind }),
        (text(), any::<i32>()).prop_map(|(path, mode)| Request::AddWatch { path, mode }),
        (text(), data()).prop_map(|(scheme, auth)| Request::Auth { scheme, auth }),
        data().prop_map(|token| Request::Sasl { token }),
        (any::<i64>(), paths(), paths(), paths()).prop_map(|(zxid, data, exist, child)| {
            Request::SetWatches { relative_zxid: Zxid(zxid), data, exist, child }
        }),
        (any::<i64>(), paths(), paths(), paths(), paths(), paths()).prop_map(
            |(zxid, data, exist, child, persistent, persistent_recursive)| Request::SetWatches2 {
                relative_zxid: Zxid(zxid),
                data,
                exist,
                child,
                persistent,
                persistent_recursive
            }
        ),
        prop_oneof![Just(Request::Ping), Just(Request::WhoAmI), Just(Request::CloseSession)],
        (nullable(), nullable(), nullable(), any::<i64>()).prop_map(
            |(joining, leaving, members, config_version)| Request::Reconfig {
                joining,
                leaving,
                members,
                config_version
            }
        ),
    ]
}

fn single_response() -> impl Strategy<Value = (OpCode, Response<'static>)> {
    let strings = || vec(text(), 0..4);
    prop_oneof![
        text().prop_map(|path| (OpCode::Create, Response::Path(path))),
        (text(), stat())
            .prop_map(|(path, stat)| (OpCode::Create2, Response::PathAndStat(path, stat))),
        stat().prop_map(|stat| (OpCode::SetData, Response::Stat(stat))),
        (data(), stat()).prop_map(|(data, stat)| (OpCode::GetData, Response::Data(data, stat))),
        (acls(), stat())
            .prop_map(|(acl, stat)| (OpCode::GetAcl, Response::Acl(acl.unwrap_or_default(), stat))),
        strings().prop_map(|children| (OpCode::GetChildren, Response::Strings(children))),
        (strings(), stat()).prop_map(|(children, stat)| (
            OpCode::GetChildren2,
            Response::Children2(children, stat)
        )),
        any::<i32>().prop_map(|n| (OpCode::GetAllChildrenNumber, Response::Number(n))),
        vec((text(), text()), 0..3).prop_map(|ids| (OpCode::WhoAmI, Response::Identities(ids))),
        Just((OpCode::AddWatch, Response::Number(0))),
        data().prop_map(|token| (OpCode::Sasl, Response::Token(token))),
        Just((OpCode::Delete, Response::Empty)),
    ]
}

fn response() -> impl Strategy<Value = (OpCode, Response<'static>)> {
    let result = prop_oneof![
        single_response().prop_map(|(op, response)| OpResult::Ok(op, response)),
        any::<i32>().prop_map(OpResult::Error)
    ];
    prop_oneof![
        single_response(),
        vec(result, 0..5).prop_map(|results| (OpCode::Multi, Response::Multi(results)))
    ]
}

proptest! {
    #[test]
    fn a_request_survives_the_wire(request in request()) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let back = Request::decode(request.op(), &mut reader);
        prop_assert_eq!(back.as_ref(), Ok(&request));
        prop_assert!(reader.rest().is_empty());
        for end in 0..bytes.len() {
            prop_assert!(Request::decode(request.op(), &mut Reader::new(&bytes[..end])).is_err());
        }
    }

    #[test]
    fn a_response_survives_the_wire((op, response) in response()) {
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Response::decode(op, &mut reader), Ok(response));
        prop_assert!(reader.rest().is_empty());
    }

    #[test]
    fn no_bytes_do_harm(bytes in vec(prop_oneof![any::<u8>(), Just(0), Just(0x7f), Just(0xff)], 0..200)) {
        for op in OpCode::ALL {
            let _ = Request::decode(*op, &mut Reader::new(&bytes));
            let _ = Response::decode(*op, &mut Reader::new(&bytes));
        }
        let _ = ConnectRequest::decode(&bytes);
        let _ = ConnectResponse::decode(&bytes);
        let _ = WatchedEvent::decode(&mut Reader::new(&bytes));
        let _ = frame_in(&bytes, DEFAULT_FRAME_BYTES_MAX);
        if let Ok(text) = str::from_utf8(&bytes) {
            let _ = check_path(text);
            let _ = parent_and_name(text);
        }
    }
}

#[test]
fn connect_comes_with_and_without_its_last_byte() {
    for (read_only, bytes) in [(None, 44), (Some(false), 45), (Some(true), 45)] {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(7),
            timeout_ms: 6000,
            session: SessionId(0x1234),
            password: &[9; 16],
            read_only,
        };
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(out.len(), bytes);
        assert_eq!(ConnectRequest::decode(&out), Ok(request));
    }
    for (read_only, bytes) in [(None, 36), (Some(false), 37)] {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: 6000,
            session: SessionId(0x1234),
            password: &[9; 16],
            read_only,
        };
        let mut out = Vec::new();
        response.encode(&mut out);
        assert_eq!(out.len(), bytes);
        assert_eq!(ConnectResponse::decode(&out), Ok(response));
    }
}

#[test]
fn a_frame_is_told_from_its_length() {
    let check = |bytes: &[u8], expected| assert_eq!(frame_in(bytes, 100), expected);
    check(&[0, 0, 0], Ok(None));
    check(&[0, 0, 0, 2, 1], Ok(None));
    check(&[0, 0, 0, 2, 1, 2, 3], Ok(Some(&[1, 2][..])));
    check(&[0, 0, 0, 0], Ok(Some(&[][..])));
    check(&[0xff, 0xff, 0xff, 0xff], Err(FrameError::Negative(-1)));
    let too_large = FrameError::TooLarge { announced_bytes: 0x7fff_ffff, limit_bytes: 100 };
    check(&[0x7f, 0xff, 0xff, 0xff], Err(too_large));
    let mut out = vec![7];
    let start = start_frame(&mut out);
    out.extend([1, 2, 3]);
    end_frame(&mut out, start);
    assert_eq!(out, [7, 0, 0, 0, 3, 1, 2, 3]);
}

#[test]
fn a_count_beyond_the_frame_is_refused_before_it_is_allocated() {
    let mut bytes = vec![0; 8];
    bytes.extend([0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(
        Request::decode(OpCode::SetWatches, &mut Reader::new(&bytes)),
        Err(DecodeError::Length(0x7fff_ffff))
    );
}

/// What is allocated in all for each byte that is decoded, at most.
const ALLOCATION_FACTOR: u64 = 64;

/// Every decoder of this module.
fn decode_all(bytes: &[u8]) -> u64 {
    let mut worst = 0;
    let mut measure = |decode: &dyn Fn()| {
        worst = worst.max(allocation_counter::measure(decode).bytes_total);
    };
    for op in OpCode::ALL {
        measure(&|| drop(Request::decode(*op, &mut Reader::new(bytes))));
        measure(&|| drop(Response::decode(*op, &mut Reader::new(bytes))));
    }
    measure(&|| drop(ConnectRequest::decode(bytes)));
    measure(&|| drop(ConnectResponse::decode(bytes)));
    measure(&|| drop(WatchedEvent::decode(&mut Reader::new(bytes))));
    measure(&|| {
        let _ = frame_in(bytes, DEFAULT_FRAME_BYTES_MAX);
    });
    worst
}

#[test]
fn decoders_allocate_a_small_multiple_of_what_they_are_given() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut worst = (0, Vec::new());
    let mut check = |bytes: &[u8]| {
        let factor = decode_all(bytes) / bytes.len().max(1) as u64;
        if factor > worst.0 {
            worst = (factor, bytes[..bytes.len().min(40)].to_vec());
        }
    };
    for byte in [0, 1, 2, 0x7f, 0xff] {
        check(&vec![byte; 500]);
    }
    // Much of what is small on the wire and large in memory.
    let small = Request::Delete { path: "".into(), version: 0 };
    let mut bytes = Vec::new();
    Request::Multi(vec![small; 300]).encode(&mut bytes);
    check(&bytes);
    bytes.clear();
    Response::Multi((0..300).map(OpResult::Error).collect()).encode(&mut bytes);
    check(&bytes);
    bytes.clear();
    Response::Strings(vec!["".into(); 300]).encode(&mut bytes);
    check(&bytes);
    let mut runner = TestRunner::deterministic();
    for _ in 0..300 {
        bytes.clear();
        request().new_tree(&mut runner).unwrap().current().encode(&mut bytes);
        check(&bytes);
        // A count of what else the rest could be, at any place.
        for at in (0..bytes.len().saturating_sub(4)).step_by(3) {
            let mut hostile = bytes.clone();
            let count = (bytes.len() - at) as u32 / 4;
            hostile[at..at + 4].copy_from_slice(&count.to_be_bytes());
            check(&hostile);
        }
        bytes.clear();
        response().new_tree(&mut runner).unwrap().current().1.encode(&mut bytes);
        check(&bytes);
    }
    println!("worst: {} bytes per byte, {:?}", worst.0, worst.1);
    assert!(worst.0 <= ALLOCATION_FACTOR, "{} bytes per byte: {:?}", worst.0, worst.1);
}

#[test]
fn a_multi_holds_no_multi() {
    let mut bytes = Vec::new();
    put_i32(&mut bytes, OpCode::Multi.code());
    put_bool(&mut bytes, false);
    put_i32(&mut bytes, -1);
    assert_eq!(
        Request::decode(OpCode::Multi, &mut Reader::new(&bytes)),
        Err(DecodeError::Operation(14))
    );
}

#[test]
fn codes_and_names_are_one_to_one() {
    for op in OpCode::ALL {
        assert_eq!(OpCode::from_code(op.code()), Some(*op));
    }
    for code in -200..=0 {
        assert_eq!(ErrorCode::from_code(code).map_or(0, ErrorCode::code), code);
    }
}
