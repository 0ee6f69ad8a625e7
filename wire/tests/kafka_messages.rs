//! The Kafka codec against the crate `kafka-protocol`, and against bytes that mean harm.

#[path = "support/debugged.rs"]
mod debugged;
#[path = "support/frames.rs"]
mod frames;
#[path = "../build/table.rs"]
#[allow(dead_code, reason = "the build script uses the rest of it")]
mod table;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use elkfk_wire::kafka::{DecodeError, Message, Reader, messages as ours};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol as kp;

use debugged::Value;
use frames::Chance;

/// A struct as printed, and its bytes when encoded again.
type Passed = (String, Vec<u8>);

/// One message type of ours, its type erased.
struct Codec {
    name: &'static str,
    /// Decodes all of a frame; prints the struct and encodes it again.
    pass: fn(&[u8], i16) -> Result<Passed, DecodeError>,
    /// Decodes and drops.
    decode: fn(&[u8], i16),
    /// As `pass`, for kafka-protocol, with the versions it knows.
    oracle: Option<Oracle>,
}

struct Oracle {
    versions: std::ops::RangeInclusive<i16>,
    pass: fn(&[u8], i16) -> Result<Passed, String>,
}

fn pass_ours<'a, M: Message<'a> + Debug>(
    bytes: &'a [u8],
    version: i16,
) -> Result<Passed, DecodeError> {
    let mut r = Reader::new(bytes);
    let message = M::decode(&mut r, version)?;
    r.finish()?;
    let mut out = Vec::new();
    message.encode(&mut out, version).expect("what was decoded can be encoded");
    Ok((format!("{message:?}"), out))
}

fn pass_theirs<M: kp::Decodable + kp::Encodable + Debug>(
    bytes: &[u8],
    version: i16,
) -> Result<Passed, String> {
    let mut frame = Bytes::copy_from_slice(bytes);
    let message = M::decode(&mut frame, version).map_err(|e| e.to_string())?;
    if !frame.is_empty() {
        return Err(format!("{} bytes left by {message:?}", frame.len()));
    }
    let mut out = BytesMut::new();
    message.encode(&mut out, version).map_err(|e| e.to_string())?;
    Ok((format!("{message:?}"), out.to_vec()))
}

macro_rules! codecs {
    (both: $($both:ident)* ; ours: $($ours:ident)*) => {
        vec![
            $(Codec {
                name: stringify!($both),
                pass: |bytes, version| pass_ours::<ours::$both>(bytes, version),
                decode: |bytes, version| drop(ours::$both::decode(&mut Reader::new(bytes), version)),
                oracle: Some(Oracle {
                    versions: <theirs::$both as kp::Message>::VERSIONS.min
                        ..=<theirs::$both as kp::Message>::VERSIONS.max,
                    pass: pass_theirs::<theirs::$both>,
                }),
            },)*
            $(Codec {
                name: stringify!($ours),
                pass: |bytes, version| pass_ours::<ours::$ours>(bytes, version),
                decode: |bytes, version| drop(ours::$ours::decode(&mut Reader::new(bytes), version)),
                oracle: None,
            },)*
        ]
    };
}

#[rustfmt::skip]
fn codecs() -> Vec<Codec> {
    codecs! {
both:
    AddOffsetsToTxnRequest AddOffsetsToTxnResponse AddPartitionsToTxnRequest
    AddPartitionsToTxnResponse AllocateProducerIdsRequest AllocateProducerIdsResponse
    AlterClientQuotasRequest AlterClientQuotasResponse AlterConfigsRequest AlterConfigsResponse
    AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse AlterPartitionRequest
    AlterPartitionResponse AlterUserScramCredentialsRequest AlterUserScramCredentialsResponse
    ApiVersionsRequest ApiVersionsResponse ConsumerProtocolAssignment
    ConsumerProtocolSubscription CreateAclsRequest CreateAclsResponse CreatePartitionsRequest
    CreatePartitionsResponse CreateTopicsRequest CreateTopicsResponse DeleteAclsRequest
    DeleteAclsResponse DeleteGroupsRequest DeleteGroupsResponse DeleteRecordsRequest
    DeleteRecordsResponse DeleteTopicsRequest DeleteTopicsResponse DescribeAclsRequest
    DescribeAclsResponse DescribeClientQuotasRequest DescribeClientQuotasResponse
    DescribeClusterRequest DescribeClusterResponse DescribeConfigsRequest DescribeConfigsResponse
    DescribeGroupsRequest DescribeGroupsResponse DescribeLogDirsRequest DescribeLogDirsResponse
    DescribeProducersRequest DescribeProducersResponse DescribeTransactionsRequest
    DescribeTransactionsResponse DescribeUserScramCredentialsRequest
    DescribeUserScramCredentialsResponse ElectLeadersRequest ElectLeadersResponse EndTxnRequest
    EndTxnResponse FetchRequest FetchResponse FindCoordinatorRequest FindCoordinatorResponse
    HeartbeatRequest HeartbeatResponse IncrementalAlterConfigsRequest
    IncrementalAlterConfigsResponse InitProducerIdRequest InitProducerIdResponse JoinGroupRequest
    JoinGroupResponse LeaveGroupRequest LeaveGroupResponse ListGroupsRequest ListGroupsResponse
    ListOffsetsRequest ListOffsetsResponse ListPartitionReassignmentsRequest
    ListPartitionReassignmentsResponse ListTransactionsRequest ListTransactionsResponse
    MetadataRequest MetadataResponse OffsetCommitRequest OffsetCommitResponse OffsetDeleteRequest
    OffsetDeleteResponse OffsetFetchRequest OffsetFetchResponse OffsetForLeaderEpochRequest
    OffsetForLeaderEpochResponse ProduceRequest ProduceResponse SaslAuthenticateRequest
    SaslAuthenticateResponse SaslHandshakeRequest SaslHandshakeResponse SyncGroupRequest
    SyncGroupResponse TxnOffsetCommitRequest TxnOffsetCommitResponse WriteTxnMarkersRequest
    WriteTxnMarkersResponse
;
// Kafka 4 dropped the first four APIs; records of internal topics are not sent.
ours:
    ControlledShutdownRequest ControlledShutdownResponse GroupMetadataKey GroupMetadataValue
    LeaderAndIsrRequest LeaderAndIsrResponse OffsetCommitKey OffsetCommitValue StopReplicaRequest
    StopReplicaResponse TransactionLogKey TransactionLogValue UpdateMetadataRequest
    UpdateMetadataResponse
    }
}

/// Bytes of memory per byte of a frame, at most. A string of one byte on the wire is 24 in memory,
/// and a count that is never fulfilled is paid once on each level of arrays.
const ALLOCATION_FACTOR: u64 = 64;

fn schema() -> table::Table {
    table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema"))
}

/// Every message of the table with its codec.
fn all() -> Vec<(table::Message, Codec)> {
    let mut codecs = codecs();
    let known: BTreeSet<&str> = codecs.iter().map(|c| c.name).collect();
    let messages = schema().messages;
    let tabled: BTreeSet<&str> = messages.iter().map(|m| m.name()).collect();
    assert_eq!(known, tabled, "this file lists every message of the table");
    codecs.sort_by_key(|c| c.name);
    messages.into_iter().zip(codecs).collect()
}

/// Fields of Kafka 3.4 that have another name in Kafka 4, from which kafka-protocol is made.
const RENAMED: &[(&str, &str)] = &[
    ("transactional_id", "v3_and_below_transactional_id"),
    ("producer_id", "v3_and_below_producer_id"),
    ("producer_epoch", "v3_and_below_producer_epoch"),
    ("topics", "v3_and_below_topics"),
    ("results", "results_by_topic_v3_and_below"),
    ("results", "results_by_partition"),
    ("generation_id", "generation_id_or_member_epoch"),
    ("error_code", "partition_error_code"),
];

fn is_default(value: &Value) -> bool {
    match value {
        Value::Empty => true,
        Value::Word(word) => ["0", "-1", "false"].contains(&word.as_str()),
        _ => false,
    }
}

/// Panics unless every field of ours is one of theirs with the same value.
fn agree(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Fields(a), Value::Fields(b)) => {
            for (name, value) in a {
                let place = format!("{place}.{name}");
                let mut renamed = RENAMED.iter().filter(|(ours, _)| ours == name);
                let other = b.get(name).or_else(|| renamed.find_map(|(_, theirs)| b.get(*theirs)));
                // Kafka 4 dropped fields that only older versions have.
                if other.is_none() && is_default(value) {
                    continue;
                }
                let other = other.unwrap_or_else(|| panic!("{place}: not in {b:?}"));
                agree(value, other, &place);
            }
        }
        (Value::List(a), Value::List(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                agree(a, b, &format!("{place}[{i}]"));
            }
        }
        _ => assert_eq!(ours, theirs, "{place}"),
    }
}

#[test]
fn every_message_means_the_same_to_kafka_protocol() {
    let mut pairs = 0;
    for (message, codec) in all() {
        let Some(oracle) = &codec.oracle else { continue };
        for version in message.versions.first..=message.versions.last {
            if !oracle.versions.contains(&(version as i16)) {
                continue;
            }
            pairs += 1;
            let mut chance = Chance(u64::from(version));
            for round in 0..40 {
                let place = format!("{} v{version} round {round}", codec.name);
                let frame = frames::random(&message, version, &mut chance);
                let (ours, by_us) = (codec.pass)(&frame, version as i16)
                    .unwrap_or_else(|e| panic!("{place}: we refuse: {e}"));
                let (theirs, by_them) = (oracle.pass)(&frame, version as i16)
                    .unwrap_or_else(|e| panic!("{place}: they refuse: {e}; we read {ours}"));
                assert_eq!(by_us, frame, "{place}: we write other bytes for {ours}");
                assert_eq!(by_them, frame, "{place}: they write other bytes for {theirs}");
                agree(&debugged::parse(&ours), &debugged::parse(&theirs), &place);
            }
        }
    }
    assert!(pairs > 250, "only {pairs} pairs of message and version compared");
}

#[test]
fn every_message_round_trips_in_every_version() {
    for (message, codec) in all() {
        for version in message.versions.first..=message.versions.last {
            let mut chance = Chance(u64::from(version) + 1000);
            for round in 0..40 {
                let frame = frames::random(&message, version, &mut chance);
                let (printed, again) = (codec.pass)(&frame, version as i16)
                    .unwrap_or_else(|e| panic!("{} v{version} round {round}: {e}", codec.name));
                assert_eq!(again, frame, "{} v{version}: {printed}", codec.name);
            }
        }
    }
}

#[test]
fn versions_outside_of_the_range_are_refused() {
    for (message, codec) in all() {
        for version in
            [message.versions.first as i16 - 1, message.versions.last as i16 + 1, -1, i16::MAX]
        {
            let refused = (codec.pass)(&[0; 64], version);
            assert!(
                matches!(refused, Err(DecodeError::UnsupportedVersion { .. })),
                "{} v{version}: {refused:?}",
                codec.name
            );
        }
    }
}

/// Each prefix of a good frame, and each good frame with bytes changed.
#[test]
fn damaged_frames_are_refused_or_read() {
    for (message, codec) in all() {
        for version in message.versions.first..=message.versions.last {
            let mut chance = Chance(u64::from(version) + 2000);
            for _ in 0..8 {
                let frame = frames::random(&message, version, &mut chance);
                for end in 0..frame.len() {
                    let cut = (codec.pass)(&frame[..end], version as i16);
                    assert!(cut.is_err(), "{} v{version}: {end} of {frame:02x?}", codec.name);
                }
                let mut damaged = frame.clone();
                for _ in 0..32 {
                    if frame.is_empty() {
                        break;
                    }
                    let at = chance.below(frame.len() as u64) as usize;
                    damaged[at] =
                        [0, 0x7f, 0x80, 0xff, chance.next() as u8][chance.below(5) as usize];
                    // Read or refused; the point is that it returns.
                    let _ = (codec.pass)(&damaged, version as i16);
                }
            }
        }
    }
}

/// Counts that announce just as much as could follow cost the most.
fn hostile(frame: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes.resize(frame.len() + 400, [0, 1, 2, 0x7f][chance.below(4) as usize]);
    for _ in 0..=chance.below(4) {
        let at = chance.below(frame.len() as u64 + 1) as usize;
        let count = (bytes.len() - at) as u32 / (1 + chance.below(40) as u32);
        if chance.below(2) == 0 {
            bytes[at..at + 4].copy_from_slice(&count.to_be_bytes());
        } else {
            bytes[at] = count as u8 | 0x80;
            bytes[at + 1] = (count >> 7) as u8;
        }
    }
    bytes
}

#[test]
fn decoders_allocate_a_small_multiple_of_what_they_are_given() {
    let mut worst = (0, String::new());
    for (message, codec) in all() {
        for version in message.versions.first..=message.versions.last {
            let mut chance = Chance(u64::from(version) + 3000);
            for round in 0..60 {
                let frame = frames::random(&message, version, &mut chance);
                let bytes = match round {
                    0 => vec![0xff; 500],
                    1 => vec![0x7f; 500],
                    2 => vec![0x01; 500],
                    3 => vec![0x02; 500],
                    4 => (0..500).map(|_| chance.next() as u8).collect(),
                    _ => hostile(&frame, &mut chance),
                };
                let decode = codec.decode;
                let used =
                    allocation_counter::measure(|| decode(&bytes, version as i16)).bytes_total;
                let factor = used / bytes.len() as u64;
                if factor > worst.0 {
                    worst = (factor, format!("{} v{version}", codec.name));
                }
            }
        }
    }
    println!("worst: {} bytes per byte, {}", worst.0, worst.1);
    assert!(worst.0 <= ALLOCATION_FACTOR, "{} bytes per byte: {}", worst.0, worst.1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    /// The twin of `wire/fuzz`, for the stable toolchain.
    #[test]
    fn no_bytes_make_decoders_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        for (message, codec) in codecs_of_versions() {
            (codec.decode)(&bytes, *message);
        }
    }
}

#[test]
fn the_fuzz_target_lists_every_message_of_the_table() {
    let target = include_str!("../fuzz/fuzz_targets/kafka_messages.rs");
    let list = target.split_once("*version;").expect("the list follows its arguments").1;
    let listed: BTreeSet<&str> =
        list.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let schema = schema();
    let tabled: BTreeSet<&str> = schema.messages.iter().map(|m| m.name()).collect();
    assert_eq!(listed, tabled);
}

/// A batch that announces what it does not have, or unpacks to much more than it is.
#[test]
fn records_allocate_what_they_are_given_and_what_the_limit_lets_them() {
    use elkfk_wire::kafka::records::{BatchBuilder, Compression, HEADER_BYTES, batches};
    const LIMIT_BYTES: u64 = 1 << 20;
    let mut chance = Chance(17);
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(codec);
        for number in 0..50u8 {
            builder.push(number.into(), Some(b"key"), Some(&[number; 100]), &[("h", Some(b"v"))]);
        }
        let good = builder.build().expect("it has records");
        let mut bomb = BatchBuilder::new(codec);
        bomb.push(0, None, Some(&vec![0; 20 << 20]), &[]);
        let bomb = bomb.build().expect("it has a record");
        for round in 0..300 {
            let mut bytes = if round == 0 { bomb.clone() } else { good.clone() };
            if round > 1 {
                for _ in 0..4 {
                    let at = HEADER_BYTES + chance.next() as usize % (bytes.len() - HEADER_BYTES);
                    bytes[at] = chance.next() as u8;
                }
                bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
            }
            let used = allocation_counter::measure(|| {
                let Some(Ok(batch)) = batches(&bytes).next() else { return };
                if let Ok(records) = batch.records(LIMIT_BYTES as usize) {
                    for record in &records {
                        let Ok(record) = record else { break };
                        let _ = (record.headers().count(), record.header("h"));
                    }
                }
            });
            // A codec keeps windows of its own: zstd's is the largest, 8 MiB and some.
            let limit = 4 * LIMIT_BYTES + (12 << 20);
            assert!(used.bytes_max < limit, "{codec:?}: {} bytes at once", used.bytes_max);
            if codec == Compression::None {
                assert_eq!(used.bytes_total, 0, "borrowed, whatever it announces");
            }
        }
    }
}

/// Each codec with its newest version, where the notation has most in it, and its oldest.
fn codecs_of_versions() -> impl Iterator<Item = &'static (i16, Codec)> {
    static ALL: std::sync::LazyLock<Vec<(i16, Codec)>> = std::sync::LazyLock::new(|| {
        let ends = |m: &table::Message| [m.versions.first as i16, m.versions.last as i16];
        let newest = all().into_iter().map(|(m, codec)| (ends(&m)[1], codec));
        let oldest = all().into_iter().map(|(m, codec)| (ends(&m)[0], codec));
        newest.chain(oldest).collect()
    });
    ALL.iter()
}

#[test]
fn docs_name_every_api_and_its_versions() {
    let page = include_str!("../../docs/wire.md");
    for api in schema().apis {
        let table::Versions { first, last } = api.versions;
        let row = format!("| {} | {} | {first}–{last} |", api.key, api.name);
        assert!(page.contains(&row), "docs/wire.md has no row {row}");
    }
}
