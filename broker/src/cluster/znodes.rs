//! Kafka's znodes: their paths, and the JSON in them as Kafka 3.4.1 writes it.

use std::collections::BTreeMap;

use elkfk_wire::kafka::Uuid;
use serde_json::{Map, Value, json};

use super::image::{BrokerInfo, PartitionState};

/// Created by whichever broker comes first, in Kafka's order.
pub(crate) const PERSISTENT: &[&str] = &[
    "/consumers",
    "/brokers/ids",
    "/brokers/topics",
    "/config/changes",
    "/admin/delete_topics",
    "/brokers/seqid",
    "/isr_change_notification",
    "/latest_producer_id_block",
    "/log_dir_event_notification",
    "/config/topics",
    "/config/clients",
    "/config/users",
    "/config/brokers",
    "/config/ips",
];

pub(crate) const CLUSTER_ID: &str = "/cluster/id";
pub(crate) const CONTROLLER: &str = "/controller";
pub(crate) const CONTROLLER_EPOCH: &str = "/controller_epoch";
pub(crate) const BROKER_IDS: &str = "/brokers/ids";
pub(crate) const BROKER_SEQID: &str = "/brokers/seqid";
pub(crate) const TOPICS: &str = "/brokers/topics";
pub(crate) const DELETE_TOPICS: &str = "/admin/delete_topics";
pub(crate) const CONFIG_CHANGES: &str = "/config/changes";
pub(crate) const PRODUCER_IDS: &str = "/latest_producer_id_block";
pub(crate) const FEATURE: &str = "/feature";

pub(crate) fn broker(id: i32) -> String {
    format!("{BROKER_IDS}/{id}")
}

pub(crate) fn topic(name: &str) -> String {
    format!("{TOPICS}/{name}")
}

pub(crate) fn partitions(name: &str) -> String {
    format!("{TOPICS}/{name}/partitions")
}

pub(crate) fn partition(name: &str, partition: i32) -> String {
    format!("{TOPICS}/{name}/partitions/{partition}")
}

pub(crate) fn state(name: &str, partition: i32) -> String {
    format!("{TOPICS}/{name}/partitions/{partition}/state")
}

pub(crate) fn topic_config(name: &str) -> String {
    format!("/config/topics/{name}")
}

pub(crate) fn delete_topic(name: &str) -> String {
    format!("{DELETE_TOPICS}/{name}")
}

fn read(data: &[u8]) -> Option<Value> {
    serde_json::from_slice(data).ok()
}

fn integer(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

fn integers(value: &Value) -> Option<Vec<i32>> {
    value.as_array()?.iter().map(integer).collect()
}

pub(crate) fn encode_cluster_id(id: &str) -> String {
    json!({"version": "1", "id": id}).to_string()
}

pub(crate) fn decode_cluster_id(data: &[u8]) -> Option<String> {
    Some(read(data)?.get("id")?.as_str()?.to_owned())
}

pub(crate) fn encode_feature() -> String {
    json!({"features": {}, "version": 2, "status": 1}).to_string()
}

pub(crate) fn encode_controller(broker: i32, now_ms: i64) -> String {
    json!({"version": 2, "brokerid": broker, "timestamp": now_ms.to_string(), "kraftControllerEpoch": -1}).to_string()
}

pub(crate) fn decode_controller(data: &[u8]) -> Option<i32> {
    integer(read(data)?.get("brokerid")?)
}

/// A registration; `endpoints` are listener name, host and port, the first of them the one that old
/// clients of ZooKeeper see.
pub(crate) fn encode_broker(
    endpoints: &[(String, String, u16)],
    rack: Option<&str>,
    now_ms: i64,
) -> String {
    let protocols: Map<String, Value> =
        endpoints.iter().map(|(name, ..)| (name.clone(), Value::from("PLAINTEXT"))).collect();
    let urls: Vec<String> = endpoints
        .iter()
        .map(|(name, host, port)| match host.contains(':') {
            true => format!("{name}://[{host}]:{port}"),
            false => format!("{name}://{host}:{port}"),
        })
        .collect();
    let (host, port) = endpoints.first().map_or(("", 0), |(_, host, port)| (host.as_str(), *port));
    let mut registration = json!({
        "features": {},
        "listener_security_protocol_map": protocols,
        "endpoints": urls,
        "jmx_port": -1,
        "port": port,
        "host": host,
        "version": 5,
        "timestamp": now_ms.to_string(),
    });
    if let Some(rack) = rack {
        registration["rack"] = rack.into();
    }
    registration.to_string()
}

pub(crate) fn decode_broker(data: &[u8], epoch: i64) -> Option<BrokerInfo> {
    let value = read(data)?;
    let plaintext = value.get("endpoints")?.as_array()?.iter().filter_map(Value::as_str).next()?;
    let (host, port) = plaintext.split_once("://")?.1.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let rack = value.get("rack").and_then(Value::as_str).map(str::to_owned);
    Some(BrokerInfo { host, port: port.parse().ok()?, rack, epoch })
}

/// `replicas` by partition number.
pub(crate) fn encode_topic(id: Uuid, replicas: &[Vec<i32>]) -> String {
    let partitions: Map<String, Value> = replicas
        .iter()
        .enumerate()
        .map(|(partition, replicas)| (partition.to_string(), Value::from(replicas.clone())))
        .collect();
    json!({
        "partitions": partitions,
        "topic_id": id.to_string(),
        "adding_replicas": {},
        "removing_replicas": {},
        "version": 3,
    })
    .to_string()
}

/// Id and replicas by partition number; the id is missing in topics older than Kafka 2.8.
pub(crate) fn decode_topic(data: &[u8]) -> Option<(Option<Uuid>, Vec<Vec<i32>>)> {
    let value = read(data)?;
    let by_number: BTreeMap<usize, Vec<i32>> = value
        .get("partitions")?
        .as_object()?
        .iter()
        .map(|(partition, replicas)| Some((partition.parse().ok()?, integers(replicas)?)))
        .collect::<Option<_>>()?;
    let is_dense = by_number.keys().copied().eq(0..by_number.len());
    let id = value.get("topic_id").and_then(Value::as_str).and_then(Uuid::parse);
    is_dense.then(|| (id, by_number.into_values().collect()))
}

pub(crate) fn encode_state(state: &PartitionState) -> String {
    json!({
        "controller_epoch": state.controller_epoch,
        "leader": state.leader,
        "version": 1,
        "leader_epoch": state.leader_epoch,
        "isr": state.isr,
    })
    .to_string()
}

pub(crate) fn decode_state(
    data: &[u8],
    replicas: Vec<i32>,
    version: i32,
) -> Option<PartitionState> {
    let value = read(data)?;
    Some(PartitionState {
        replicas,
        leader: integer(value.get("leader")?)?,
        leader_epoch: integer(value.get("leader_epoch")?)?,
        isr: integers(value.get("isr")?)?,
        controller_epoch: integer(value.get("controller_epoch")?)?,
        version,
    })
}

pub(crate) fn encode_config(config: &BTreeMap<String, String>) -> String {
    json!({"version": 1, "config": config}).to_string()
}

pub(crate) fn decode_config(data: &[u8]) -> Option<BTreeMap<String, String>> {
    let value = read(data)?;
    let config = value.get("config")?.as_object()?.iter();
    config.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// `entity` is `topics/test1` or `brokers/1`.
pub(crate) fn encode_config_change(entity: &str) -> String {
    json!({"version": 2, "entity_path": entity}).to_string()
}

pub(crate) fn decode_config_change(data: &[u8]) -> Option<String> {
    Some(read(data)?.get("entity_path")?.as_str()?.to_owned())
}

/// A block of producer ids; both ends belong to it.
pub(crate) fn encode_producer_ids(broker: i32, first: i64, last: i64) -> String {
    json!({
        "version": 1,
        "broker": broker,
        "block_start": first.to_string(),
        "block_end": last.to_string(),
    })
    .to_string()
}

/// The last id of the newest block.
pub(crate) fn decode_producer_ids(data: &[u8]) -> Option<i64> {
    read(data)?.get("block_end")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte for byte what a live Kafka 3.4.1 wrote, but for times, ids and ports.
    #[test]
    fn json_is_kafkas() {
        assert_eq!(encode_cluster_id("x"), r#"{"version":"1","id":"x"}"#);
        assert_eq!(
            encode_controller(3, 17),
            r#"{"version":2,"brokerid":3,"timestamp":"17","kraftControllerEpoch":-1}"#
        );
        let endpoints = [("PLAINTEXT".to_owned(), "127.0.0.1".to_owned(), 9092)];
        assert_eq!(
            encode_broker(&endpoints, None, 17),
            r#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://127.0.0.1:9092"],"jmx_port":-1,"port":9092,"host":"127.0.0.1","version":5,"timestamp":"17"}"#
        );
        let topic = encode_topic(Uuid::ZERO, &[vec![1, 3, 2], vec![2, 1, 3]]);
        assert_eq!(
            topic,
            r#"{"partitions":{"0":[1,3,2],"1":[2,1,3]},"topic_id":"AAAAAAAAAAAAAAAAAAAAAA","adding_replicas":{},"removing_replicas":{},"version":3}"#
        );
        let state = PartitionState {
            replicas: vec![1, 3, 2],
            leader: 1,
            leader_epoch: 0,
            isr: vec![1, 3, 2],
            controller_epoch: 1,
            version: 0,
        };
        let json =
            r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,3,2]}"#;
        assert_eq!(encode_state(&state), json);
        assert_eq!(decode_state(json.as_bytes(), vec![1, 3, 2], 0), Some(state));
        let config: BTreeMap<_, _> = [("retention.ms".to_owned(), "86400000".to_owned())].into();
        let json = r#"{"version":1,"config":{"retention.ms":"86400000"}}"#;
        assert_eq!(encode_config(&config), json);
        assert_eq!(decode_config(json.as_bytes()), Some(config));
        assert_eq!(encode_config_change("topics/t"), r#"{"version":2,"entity_path":"topics/t"}"#);
        let json = r#"{"version":1,"broker":3,"block_start":"0","block_end":"999"}"#;
        assert_eq!(encode_producer_ids(3, 0, 999), json);
        assert_eq!(decode_producer_ids(json.as_bytes()), Some(999));
        assert_eq!(encode_feature(), r#"{"features":{},"version":2,"status":1}"#);
    }

    #[test]
    fn older_and_broken_znodes_are_read_without_harm() {
        let (id, replicas) =
            decode_topic(br#"{"version":1,"partitions":{"10":[1],"2":[1],"0":[1],"1":[1]}}"#)
                .map_or((None, vec![]), |topic| topic);
        assert_eq!((id, replicas.len()), (None, 0), "gaps are refused");
        let order = br#"{"version":2,"partitions":{"1":[2],"0":[1]},"adding_replicas":{},"removing_replicas":{}}"#;
        assert_eq!(decode_topic(order), Some((None, vec![vec![1], vec![2]])));
        let listeners = br#"{"listener_security_protocol_map":{"A":"PLAINTEXT"},"endpoints":["A://[::1]:9"],"rack":"r","jmx_port":-1,"host":"h","timestamp":"1","port":9,"version":4}"#;
        let broker = decode_broker(listeners, 5).unwrap();
        assert_eq!((&broker.host[..], broker.port, broker.rack.as_deref()), ("::1", 9, Some("r")));
        for garbage in [&b""[..], b"{}", b"[]", b"\xff", br#"{"partitions":{"0":["x"]}}"#] {
            assert_eq!(decode_topic(garbage), None);
            assert_eq!(decode_state(garbage, vec![], 0), None);
            assert_eq!(decode_config(garbage), None);
            assert_eq!(decode_broker(garbage, 0), None);
        }
    }
}
