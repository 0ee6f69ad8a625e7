use std::fs;
use std::path::Path;

use elkfk_wire::jute::{
    Acl, OpCode, SessionId, put_bool, put_buffer, put_i32, put_i64, put_string,
};

use super::*;
use crate::snapshots;
use crate::wal::disk::Directory;

/// A log of these transactions, each given as zxid, type and record, with room behind them.
fn log(transactions: &[(i64, i32, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"ZKLG".to_vec();
    put_i32(&mut out, 2);
    put_i64(&mut out, 0);
    for (zxid, kind, body) in transactions {
        let mut transaction = Vec::new();
        put_i64(&mut transaction, 0x77);
        put_i32(&mut transaction, 1);
        put_i64(&mut transaction, *zxid);
        put_i64(&mut transaction, 1_000 + zxid);
        put_i32(&mut transaction, *kind);
        transaction.extend(body);
        put_i64(&mut out, i64::from(super::log::adler32(&transaction)));
        put_buffer(&mut out, Some(&transaction));
        out.push(0x42);
    }
    out.resize(out.len() + 4096, 0);
    out
}

fn create(path: &str, is_ephemeral: bool, creations: i32) -> (i32, Vec<u8>) {
    let mut body = Vec::new();
    put_string(&mut body, path);
    put_buffer(&mut body, Some(b"data"));
    put_i32(&mut body, 1);
    Acl::OPEN.encode(&mut body);
    put_bool(&mut body, is_ephemeral);
    put_i32(&mut body, creations);
    (OpCode::Create.code(), body)
}

fn delete(path: &str) -> (i32, Vec<u8>) {
    let mut body = Vec::new();
    put_string(&mut body, path);
    (OpCode::Delete.code(), body)
}

fn multi(parts: &[(i32, Vec<u8>)]) -> (i32, Vec<u8>) {
    let mut body = Vec::new();
    put_i32(&mut body, parts.len() as i32);
    for (kind, part) in parts {
        put_i32(&mut body, *kind);
        put_buffer(&mut body, Some(part));
    }
    (OpCode::Multi.code(), body)
}

/// From zxid 1 on.
fn numbered(changes: &[(i32, Vec<u8>)]) -> Vec<(i64, i32, Vec<u8>)> {
    (1..).zip(changes).map(|(zxid, (kind, body))| (zxid, *kind, body.clone())).collect()
}

struct Places {
    _root: tempfile::TempDir,
    config: ImportConfig,
}

fn places(files: &[(&str, &[u8])]) -> Places {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("zookeeper");
    fs::create_dir_all(from.join("version-2")).unwrap();
    for (name, bytes) in files {
        fs::write(from.join("version-2").join(name), bytes).unwrap();
    }
    let config = ImportConfig {
        from,
        log_dir: None,
        to: root.path().join("ours"),
        to_log_dir: None,
        until: None,
    };
    Places { _root: root, config }
}

fn machine(path: &Path) -> crate::machine::Machine {
    snapshots::load_newest(&Directory::new(&path.join("elkfk"))).unwrap()
}

fn three() -> Vec<u8> {
    log(&numbered(&[create("/a", false, 1), create("/a/b", false, 1), create("/c", false, 2)]))
}

#[test]
fn transactions_are_done_again_as_zookeeper_did_them() {
    let failed = multi(&[create("/no", false, 9), (-1, vec![0; 4])]);
    let changes = [
        (OpCode::CreateSession.code(), 30_000i32.to_be_bytes().to_vec()),
        create("/a", false, 1),
        create("/a/gone", true, 1),
        create("/a/kept", false, 2),
        multi(&[delete("/a/kept"), create("/a/kept", false, 3)]),
        failed,
        (-1, vec![0, 0, 0, 0]),
        (OpCode::CloseSession.code(), vec![]),
    ];
    let Places { _root, config } = places(&[("log.1", &log(&numbered(&changes)))]);
    let done = import(&config).unwrap();
    assert_eq!((done.transactions, done.zxid, done.sessions), (8, Zxid(8), 0));
    assert_eq!(done.warnings, [""; 0]);
    let machine = machine(&config.to);
    assert_eq!(machine.zxid(), Zxid(8));
    let stat = machine.tree.get("/a").unwrap().stat();
    // The end of the session is the last change below it.
    assert_eq!((stat.pzxid, stat.num_children, stat.cversion), (Zxid(8), 1, 5));
    let stat = machine.tree.get("/a/kept").unwrap().stat();
    assert_eq!((stat.czxid, stat.ctime_ms, stat.data_length), (Zxid(5), 1_005, 4));
    assert!(machine.tree.get("/no").is_none());
}

#[test]
fn sessions_that_live_keep_their_ephemerals() {
    let changes = [
        (OpCode::CreateSession.code(), 30_000i32.to_be_bytes().to_vec()),
        create("/live", true, 1),
    ];
    let Places { _root, config } = places(&[("log.1", &log(&numbered(&changes)))]);
    let done = import(&config).unwrap();
    assert_eq!((done.sessions, done.ephemerals), (1, 1));
    let machine = machine(&config.to);
    assert_eq!(machine.session(SessionId(0x77)).unwrap().timeout_ms, 30_000);
    assert_eq!(machine.tree.ephemerals(SessionId(0x77)), ["/live"]);
}

#[test]
fn a_torn_end_is_left_out_wherever_it_was_torn() {
    let whole = three();
    let end = whole.iter().rposition(|byte| *byte == 0x42).unwrap() + 1;
    let last = log(&numbered(&[create("/a", false, 1), create("/a/b", false, 1)]));
    let before = last.iter().rposition(|byte| *byte == 0x42).unwrap() + 1;
    for cut in before..end {
        // Cut short, and with the room behind it still there.
        for room in [0, 100] {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(cut + room, 0);
            let Places { _root, config } = places(&[("log.1", &bytes)]);
            let done = import(&config).unwrap();
            assert_eq!(done.zxid, Zxid(2), "cut at {cut}");
            let is_told = whole[before..cut].iter().any(|byte| *byte != 0);
            assert_eq!(done.warnings.len(), usize::from(is_told), "cut at {cut}");
        }
    }
}

#[test]
fn damage_before_a_whole_transaction_is_refused_with_its_place() {
    let whole = three();
    let second = whole.iter().position(|byte| *byte == 0x42).unwrap() + 1;
    for at in 16..second {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let Places { _root, config } = places(&[("log.1", &bytes)]);
        let error = import(&config).unwrap_err();
        let ImportError::Damaged { offset: 16, last: Zxid(0), .. } = error else {
            panic!("byte {at}: {error}")
        };
        assert!(!config.to.exists(), "something was written");
    }
    // What comes before the damage can be had.
    let mut bytes = whole;
    bytes[second + 40] ^= 1;
    let Places { _root, mut config } = places(&[("log.1", &bytes)]);
    let error = import(&config).unwrap_err();
    assert!(error.to_string().contains("--zxid 0x1"), "{error}");
    config.until = Some(Zxid(1));
    assert!(matches!(import(&config), Ok(Imported { zxid: Zxid(1), .. })));
}

#[test]
fn missing_transactions_are_noticed() {
    let mut transactions = numbered(&[create("/a", false, 1), create("/b", false, 2)]);
    transactions[1].0 = 3;
    let Places { _root, config } = places(&[("log.1", &log(&transactions))]);
    let error = import(&config).unwrap_err();
    assert!(matches!(error, ImportError::Gap { last: Zxid(1), found: Zxid(3), .. }), "{error}");
    // A later epoch begins at one.
    transactions[1].0 = (7 << 32) + 1;
    let Places { _root, config } = places(&[("log.1", &log(&transactions))]);
    assert_eq!(import(&config).unwrap().zxid, Zxid((7 << 32) + 1));
}

#[test]
fn no_bytes_make_it_panic_or_take_more_than_they_are() {
    let bytes = three();
    for at in (0..bytes.len().min(300)).step_by(3) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let Places { _root, config } = places(&[("log.1", &bytes), ("snapshot.0", &bytes)]);
            let _ = import(&config);
        }
    }
}

#[test]
fn what_is_there_already_is_not_written_over() {
    let Places { _root, config } = places(&[("log.1", &three())]);
    import(&config).unwrap();
    let error = import(&config).unwrap_err();
    assert!(matches!(&error, ImportError::NotEmpty { .. }), "{error}");
}

#[test]
fn an_empty_directory_and_a_compressed_snapshot_are_named() {
    let Places { _root, config } = places(&[]);
    assert!(matches!(import(&config), Err(ImportError::Nothing { .. })));
    let Places { _root, config } = places(&[("snapshot.5.gz", b"x")]);
    let error = import(&config).unwrap_err();
    assert!(error.to_string().contains("gunzip"), "{error}");
}

#[test]
fn the_epoch_a_server_has_promised_is_not_given_out_again() {
    let Places { _root, config } = places(&[("log.1", &three()), ("acceptedEpoch", b"9")]);
    assert_eq!(import(&config).unwrap().zxid, Zxid(9 << 32));
}
