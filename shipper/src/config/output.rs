//! `output.kafka`.

use std::time::Duration;

use elkfk_base::Mistakes;

use super::reader::Section;
use super::{DEFAULT_LINGER, DEFAULT_TOPIC, set};
use crate::event::format::Format;

/// Bytes of one event beyond which its message is cut, as Filebeat's default and below Kafka's.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_000_000;

/// Where events go and how.
#[derive(Debug, Clone)]
pub struct OutputConfig {
    /// Bootstrap servers, `host:port`.
    pub hosts: Vec<String>,
    pub topic: Format,
    pub key: Option<Format>,
    pub partition: PartitionChoice,
    pub compression: Compression,
    pub compression_level: Option<i32>,
    /// Of one event, framing included. Longer messages are cut and flagged.
    pub max_message_bytes: usize,
    pub client_id: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub username: Option<String>,
    pub password: Option<String>,
    /// How long the broker may take to acknowledge a request before it is sent again.
    pub request_timeout: Duration,
    pub broker_timeout: Duration,
    pub backoff_init: Duration,
    pub backoff_max: Duration,
    pub keep_alive: bool,
    pub linger: Duration,
}

/// Which partition an event goes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PartitionChoice {
    /// One partition per file, so that its lines stay in order.
    #[default]
    File,
    /// By a hash of these fields, or of the key where there are none; without either, as `File`.
    Hash {
        fields: Vec<String>,
    },
    /// The same partition for this many events in a row.
    RoundRobin {
        events: u64,
    },
    Random {
        events: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// As librdkafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:9092".into()],
            topic: Format::parse(DEFAULT_TOPIC).expect("the default topic has no references"),
            key: None,
            partition: PartitionChoice::File,
            compression: Compression::Zstd,
            compression_level: None,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES as usize,
            client_id: "elkfk-shipper".into(),
            headers: Vec::new(),
            username: None,
            password: None,
            request_timeout: Duration::from_secs(30),
            broker_timeout: Duration::from_secs(10),
            backoff_init: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            keep_alive: true,
            linger: DEFAULT_LINGER,
        }
    }
}

impl OutputConfig {
    pub(super) fn read(
        section: &Section<'_>,
        warnings: &mut Vec<String>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut output = Self::default();
        if section.bool("enabled", mistakes) == Some(false) {
            section.complain(
                "enabled",
                "output.kafka is disabled, and there is no other",
                mistakes,
            );
        }
        match section.texts("hosts", mistakes) {
            Some(hosts) if !hosts.is_empty() => output.hosts = hosts,
            _ => section.complain(
                "hosts",
                "hosts is missing; give hosts: [\"127.0.0.1:9092\"]",
                mistakes,
            ),
        }
        let format = |key: &str, mistakes: &mut Mistakes| {
            let text = section.text(key, mistakes)?;
            Format::parse(&text)
                .map_err(|error| section.complain(key, format!("{key}: {error}"), mistakes))
                .ok()
        };
        set(&mut output.topic, format("topic", mistakes));
        output.key = format("key", mistakes);
        output.partition = read_partition(section, mistakes);
        if let Some(name) = section.text("compression", mistakes) {
            output.compression = match name.as_str() {
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4,
                "zstd" => Compression::Zstd,
                _ => {
                    let text = format!(
                        "compression: {name:?} is neither none, gzip, snappy, lz4 nor zstd"
                    );
                    section.complain("compression", text, mistakes);
                    Compression::Zstd
                }
            };
        }
        output.compression_level = section.number("compression_level", mistakes).map(|n| n as i32);
        if let Some(bytes) = section.bytes("max_message_bytes", mistakes) {
            // Below 2 KiB there is no room for the event around the message.
            output.max_message_bytes = bytes.clamp(2048, 1_000_000_000) as usize;
        }
        set(&mut output.client_id, section.text("client_id", mistakes));
        for header in section.items("headers") {
            header.allow(&["key", "value"], &[], warnings, mistakes);
            let key = header.text("key", mistakes).unwrap_or_default();
            let value = header.text("value", mistakes).unwrap_or_default();
            output.headers.push((key, value.into_bytes()));
        }
        output.username = section.text("username", mistakes).filter(|name| !name.is_empty());
        output.password = section.text("password", mistakes);
        if let Some(mechanism) = section.text("sasl.mechanism", mistakes)
            && !mechanism.eq_ignore_ascii_case("PLAIN")
        {
            let text = format!("sasl.mechanism: {mechanism} is not built in; use PLAIN");
            section.complain("sasl.mechanism", text, mistakes);
        }
        if section.bool("ssl.enabled", mistakes) == Some(true) {
            section.complain("ssl.enabled", "TLS is not built in", mistakes);
        }
        set(&mut output.request_timeout, section.duration("timeout", mistakes));
        set(&mut output.broker_timeout, section.duration("broker_timeout", mistakes));
        set(&mut output.backoff_init, section.duration("backoff.init", mistakes));
        set(&mut output.backoff_max, section.duration("backoff.max", mistakes));
        output
    }
}

fn read_partition(section: &Section<'_>, mistakes: &mut Mistakes) -> PartitionChoice {
    let events = |kind: &str, mistakes: &mut _| {
        section.number(&format!("partition.{kind}.group_events"), mistakes).unwrap_or(1).max(1)
    };
    let given = section.get("partition").and_then(|value| value.as_object());
    match given.and_then(|map| map.keys().next()).map(String::as_str) {
        None => PartitionChoice::File,
        Some("random") => PartitionChoice::Random { events: events("random", mistakes) },
        Some("round_robin") => {
            PartitionChoice::RoundRobin { events: events("round_robin", mistakes) }
        }
        // Without fields and key Filebeat's hash is random for each event; a file keeps its order here.
        Some(_) => PartitionChoice::Hash {
            fields: section.texts("partition.hash.hash", mistakes).unwrap_or_default(),
        },
    }
}
