//! Batches against the crate `kafka-protocol`, and against bytes that are no batches.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records as oracle;
use proptest::prelude::*;

use super::*;

const LIMIT_BYTES: usize = 1 << 20;

/// A record that owns its fields.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    offset: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn owned_records() -> impl Strategy<Value = Vec<Owned>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    // The oracle keeps headers in a map: keys are made distinct below.
    let headers = proptest::collection::btree_map("[a-z.]{0,12}", bytes(), 0..4);
    let record = (0..2_000_000_000_000i64, bytes(), bytes(), headers);
    proptest::collection::vec(record, 1..40).prop_map(|records| {
        records
            .into_iter()
            .enumerate()
            .map(|(index, (timestamp_ms, key, value, headers))| Owned {
                offset: index as i64,
                timestamp_ms,
                key,
                value,
                headers: headers.into_iter().collect(),
            })
            .collect()
    })
}

fn build(compression: Compression, records: &[Owned]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression).producer(7, 3, 11);
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.build().unwrap()
}

fn read(bytes: &[u8]) -> Vec<Owned> {
    let batch = Batch::parse(bytes).unwrap();
    batch.check_produced().unwrap();
    let records = batch.records(LIMIT_BYTES).unwrap();
    records
        .iter()
        .map(|record| {
            let record = record.unwrap();
            Owned {
                offset: record.offset.0,
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .map(|header| {
                        let key = String::from_utf8(header.key.to_vec()).unwrap();
                        (key, header.value.map(<[u8]>::to_vec))
                    })
                    .collect(),
            }
        })
        .collect()
}

fn oracle_compression(compression: Compression) -> oracle::Compression {
    match compression {
        Compression::None => oracle::Compression::None,
        Compression::Gzip => oracle::Compression::Gzip,
        Compression::Snappy => oracle::Compression::Snappy,
        Compression::Lz4 => oracle::Compression::Lz4,
        Compression::Zstd => oracle::Compression::Zstd,
    }
}

fn oracle_encode(compression: Compression, records: &[Owned]) -> Vec<u8> {
    let records: Vec<_> = records
        .iter()
        .map(|record| {
            let mut theirs = oracle::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id: 7,
                producer_epoch: 3,
                timestamp_type: oracle::TimestampType::Creation,
                offset: record.offset,
                sequence: 11 + record.offset as i32,
                timestamp: record.timestamp_ms,
                key: record.key.clone().map(Bytes::from),
                value: record.value.clone().map(Bytes::from),
                headers: Default::default(),
            };
            for (key, value) in &record.headers {
                theirs.headers.insert(key.clone().into(), value.clone().map(Bytes::from));
            }
            theirs
        })
        .collect();
    let mut out = BytesMut::new();
    let options =
        oracle::RecordEncodeOptions { version: 2, compression: oracle_compression(compression) };
    oracle::RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.to_vec()
}

fn oracle_decode(bytes: &[u8]) -> Vec<Owned> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let set = oracle::RecordBatchDecoder::decode(&mut bytes).unwrap();
    set.records
        .into_iter()
        .map(|record| {
            assert_eq!((record.producer_id, record.producer_epoch), (7, 3));
            assert_eq!(i64::from(record.sequence), 11 + record.offset);
            Owned {
                offset: record.offset,
                timestamp_ms: record.timestamp,
                key: record.key.map(|key| key.to_vec()),
                value: record.value.map(|value| value.to_vec()),
                headers: record
                    .headers
                    .into_iter()
                    .map(|(key, value)| (key.to_string(), value.map(|value| value.to_vec())))
                    .collect(),
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_oracle_reads_our_batches(records in owned_records(), codec in 0u8..5) {
        let bytes = build(Compression::from_id(codec).unwrap(), &records);
        prop_assert_eq!(oracle_decode(&bytes), records);
    }

    #[test]
    fn we_read_the_oracles_batches(records in owned_records(), codec in 0u8..5) {
        let bytes = oracle_encode(Compression::from_id(codec).unwrap(), &records);
        prop_assert_eq!(read(&bytes), records);
    }

    #[test]
    fn any_bit_flip_in_the_checksummed_part_is_found(
        records in owned_records(), at: prop::sample::Index, bit in 0u8..8
    ) {
        let mut bytes = build(Compression::None, &records);
        let at = 21 + at.index(bytes.len() - 21);
        bytes[at] ^= 1 << bit;
        let found = Batch::parse(&bytes).unwrap().check();
        let is_found = matches!(found, Err(BatchError::Crc { .. }));
        prop_assert!(is_found);
    }
}

/// Walks everything there is to walk in `bytes`.
fn walk(bytes: &[u8]) {
    for batch in batches(bytes) {
        let Ok(batch) = batch else { return };
        let _ = (batch.check(), batch.check_produced(), batch.last_sequence(), batch.next_offset());
        // Also where the checksum is wrong: a peer can compute checksums too.
        if let Ok(records) = batch.records(LIMIT_BYTES) {
            for record in &records {
                let Ok(record) = record else { break };
                let _ = (record.headers().count(), record.control_type(), record.header("a"));
            }
        }
    }
    assert!(whole_batches_bytes(bytes) <= bytes.len());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600), attributes: u8, count: i32
    ) {
        walk(&bytes);
        // Random bytes rarely pass for a header: help them.
        let mut bytes = bytes;
        if bytes.len() >= HEADER_BYTES {
            let length = (bytes.len() - 12) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = 2;
            bytes[22] = attributes;
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            walk(&bytes);
        }
    }

    #[test]
    fn no_damage_makes_it_panic(
        records in owned_records(), codec in 0u8..5,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = build(Compression::from_id(codec).unwrap(), &records);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        walk(&bytes);
    }
}

#[test]
fn patches_leave_a_valid_batch() {
    let mut bytes = build(Compression::None, &[sample()]);
    let mut batch = BatchMut::parse(&mut bytes).unwrap();
    batch.set_base_offset(Offset(42));
    batch.set_leader_epoch(LeaderEpoch(5));
    batch.view().check_produced().unwrap();
    batch.set_log_append_time(99);
    let view = batch.view();
    view.check_produced().unwrap();
    assert_eq!((view.base_offset(), view.leader_epoch()), (Offset(42), LeaderEpoch(5)));
    assert_eq!(view.timestamp_type(), TimestampType::LogAppendTime);
    let records = view.records(LIMIT_BYTES).unwrap();
    assert_eq!(records.iter().next().unwrap().unwrap().timestamp_ms, 99);
}

fn sample() -> Owned {
    Owned {
        offset: 0,
        timestamp_ms: 1_700_000_000_000,
        key: Some(b"key".to_vec()),
        value: Some(b"value".to_vec()),
        headers: vec![("a".into(), Some(b"1".to_vec())), ("a".into(), Some(b"2".to_vec()))],
    }
}

#[test]
fn the_last_of_equal_headers_counts() {
    let bytes = build(Compression::Zstd, &[sample()]);
    let records = Batch::parse(&bytes).unwrap().records(LIMIT_BYTES).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert_eq!(record.header("a"), Some(&b"2"[..]));
    assert_eq!(record.header("b"), None);
}

#[test]
fn old_formats_are_refused_by_name() {
    for magic in [0u8, 1] {
        // A message set of magic 0 or 1 can be shorter than a header of ours.
        let mut bytes = vec![0; 30];
        bytes[8..12].copy_from_slice(&18i32.to_be_bytes());
        bytes[16] = magic;
        assert_eq!(Batch::parse(&bytes).unwrap_err(), BatchError::OldMagic { magic: magic as i8 });
    }
}

#[test]
fn a_cut_batch_says_how_much_it_needs() {
    let bytes = build(Compression::None, &[sample()]);
    for length in 1..bytes.len() {
        let error = Batch::parse(&bytes[..length]).unwrap_err();
        assert!(matches!(error, BatchError::Truncated { .. }), "{length}: {error}");
    }
    let mut two = bytes.clone();
    two.extend_from_slice(&bytes[..bytes.len() - 1]);
    assert_eq!(whole_batches_bytes(&two), bytes.len());
    assert_eq!(batches(&two).filter(Result::is_err).count(), 1);
}

/// A batch with one header field replaced and the checksum made anew, as a hostile client would.
fn with_field(at: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = build(Compression::None, &[sample()]);
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn contradictory_headers_are_refused() {
    let check = |at: usize, field: &[u8], expected: &str| {
        let bytes = with_field(at, field);
        let error = Batch::parse(&bytes).unwrap().check_produced().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(21, &7i16.to_be_bytes(), "compression id 7");
    check(23, &3i32.to_be_bytes(), "1 records announces 3");
    check(23, &(-1i32).to_be_bytes(), "1 records announces -1");
    check(57, &0i32.to_be_bytes(), "0 records");
    check(57, &i32::MAX.to_be_bytes(), "2147483647 records");
    check(43, &(-2i64).to_be_bytes(), "producer id -2");
    check(51, &(-1i16).to_be_bytes(), "epoch -1");
    check(53, &(-1i32).to_be_bytes(), "sequence -1");
    check(35, &(-5i64).to_be_bytes(), "max timestamp of -5");
    check(0, &(-1i64).to_be_bytes(), "base offset -1");
}

#[test]
fn control_batches_are_recognised() {
    let bytes = BatchBuilder::control(ControlType::Commit, 9, 1, 4, 1000).build().unwrap();
    let batch = Batch::parse(&bytes).unwrap();
    batch.check_produced().unwrap();
    assert!(batch.is_control() && batch.is_transactional());
    let records = batch.records(LIMIT_BYTES).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert_eq!(record.control_type(), Some(ControlType::Commit));
}

#[test]
fn compaction_may_leave_gaps() {
    let mut builder = BatchBuilder::new(Compression::None).base_offset(Offset(100));
    builder.push_at(2, 5, Some(b"k"), None, std::iter::empty()).unwrap();
    for given in [2, 1, -1, i32::MIN] {
        let error = builder.push_at(given, 5, None, None, std::iter::empty()).unwrap_err();
        assert!(matches!(error, BuildError::Offset { last: 2, .. }), "{error}");
    }
    builder.cover_to(9);
    let bytes = builder.build().unwrap();
    let batch = Batch::parse(&bytes).unwrap();
    batch.check().unwrap();
    assert!(batch.check_produced().is_err());
    assert_eq!(batch.next_offset(), Offset(110));
    let records = batch.records(LIMIT_BYTES).unwrap();
    assert_eq!(records.iter().next().unwrap().unwrap().offset, Offset(102));
}

#[test]
fn sequences_wrap_to_zero() {
    let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, i32::MAX);
    builder.push(0, None, None, &[]);
    builder.push(0, None, None, &[]);
    let bytes = builder.build().unwrap();
    assert_eq!(Batch::parse(&bytes).unwrap().last_sequence(), 0);
}
