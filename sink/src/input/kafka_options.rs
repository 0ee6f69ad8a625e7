//! The options of input `kafka`, as in docs/sink-delivery.md.

use elkfk_base::Mistakes;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::codec::Codec;
use crate::config::{Located, Options, Plugin, SettingKind};
use crate::event::{FieldRef, Template};

/// A checked input.
#[derive(Debug, Clone)]
pub struct KafkaInput {
    /// Names, or patterns that begin with `^` as librdkafka wants them.
    pub topics: Vec<String>,
    pub is_pattern: bool,
    pub bootstrap_servers: String,
    pub group: String,
    pub client_id: String,
    pub group_instance_id: Option<String>,
    /// Consumers of the group in this process at its start; see [`Self::client_config`] for others.
    pub consumers: usize,
    /// librdkafka's settings that the options above do not cover.
    pub settings: Vec<(&'static str, String)>,
    pub codec: Codec,
    /// Records of one partition that go through the filters together.
    pub poll_records_max: usize,
    pub decorate: Decorate,
    pub add_fields: Vec<(FieldRef, Template)>,
    pub add_tags: Vec<String>,
    pub event_type: Option<String>,
}

/// What of a record's place in Kafka goes into `[@metadata][kafka]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decorate {
    Nothing,
    /// topic, consumer_group, partition, offset, key, timestamp.
    Basic,
    /// These and the headers.
    Extended,
}

const DEFAULT_TOPIC: &str = "logstash";
const DEFAULT_GROUP: &str = "logstash";

/// An option of Logstash, librdkafka's name for it, and ours where it is left out. The times are
/// Kafka's defaults, the sizes fit into the memory the sink may use.
const PASSED_ON: [(&str, &str, &str); 17] = [
    ("auto_offset_reset", "auto.offset.reset", "earliest"),
    ("check_crcs", "check.crcs", "true"),
    ("client_rack", "client.rack", ""),
    ("connections_max_idle_ms", "connections.max.idle.ms", ""),
    ("fetch_max_bytes", "fetch.max.bytes", "16777216"),
    ("fetch_max_wait_ms", "fetch.wait.max.ms", "500"),
    ("fetch_min_bytes", "fetch.min.bytes", "1"),
    ("heartbeat_interval_ms", "heartbeat.interval.ms", "3000"),
    ("isolation_level", "isolation.level", "read_committed"),
    ("max_partition_fetch_bytes", "max.partition.fetch.bytes", "1048576"),
    ("max_poll_interval_ms", "max.poll.interval.ms", "300000"),
    ("metadata_max_age_ms", "topic.metadata.refresh.interval.ms", "5000"),
    ("receive_buffer_bytes", "socket.receive.buffer.bytes", ""),
    ("reconnect_backoff_ms", "reconnect.backoff.ms", "100"),
    ("request_timeout_ms", "socket.timeout.ms", ""),
    ("send_buffer_bytes", "socket.send.buffer.bytes", ""),
    ("session_timeout_ms", "session.timeout.ms", "45000"),
];

const IGNORED: [&str; 10] = [
    "auto_commit_interval_ms",
    "client_dns_lookup",
    "enable_auto_commit",
    "enable_metric",
    "exclude_internal_topics",
    "id",
    "key_deserializer_class",
    "poll_timeout_ms",
    "retry_backoff_ms",
    "value_deserializer_class",
];

const REFUSED: [&str; 30] = [
    "jaas_path",
    "kerberos_config",
    "sasl_client_callback_handler_class",
    "sasl_iam_jar_paths",
    "sasl_jaas_config",
    "sasl_kerberos_service_name",
    "sasl_mechanism",
    "sasl_oauthbearer_scope_claim_name",
    "sasl_oauthbearer_token_endpoint_url",
    "schema_registry_key",
    "schema_registry_proxy",
    "schema_registry_secret",
    "schema_registry_ssl_keystore_location",
    "schema_registry_ssl_keystore_password",
    "schema_registry_ssl_keystore_type",
    "schema_registry_ssl_truststore_location",
    "schema_registry_ssl_truststore_password",
    "schema_registry_ssl_truststore_type",
    "schema_registry_url",
    "schema_registry_validation",
    "ssl_endpoint_identification_algorithm",
    "ssl_key_password",
    "ssl_keystore_location",
    "ssl_keystore_password",
    "ssl_keystore_type",
    "ssl_truststore_location",
    "ssl_truststore_password",
    "ssl_truststore_type",
    "sasl_login_callback_handler_class",
    "ssl_client_auth",
];

impl KafkaInput {
    /// Reads the plugin; `group` overrides its group. `None` after noting what was wrong.
    pub fn read(plugin: &Plugin, group: Option<&str>, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.0.len();
        let mut inner = Mistakes::default();
        let mut options = Options::new(plugin, mistakes);
        let mut topics: Vec<String> =
            options.list("topics").into_iter().map(|topic| topic.value).collect();
        let pattern = options.located("topics_pattern");
        let is_pattern = pattern.is_some();
        if let Some(pattern) = pattern {
            if !topics.is_empty() {
                options.mistake(&pattern.place, "topics and topics_pattern exclude each other");
            }
            topics = vec![as_librdkafka_pattern(&pattern.value)];
        }
        if topics.is_empty() {
            topics.push(DEFAULT_TOPIC.into());
        }
        let mut settings = Vec::new();
        for (name, theirs, default) in PASSED_ON {
            match options.located(name) {
                Some(given) => {
                    // librdkafka knows what it takes; asked now, not when the pipeline starts.
                    let mut one = ClientConfig::new();
                    if let Err(error) = one.set(theirs, &given.value).create_native_config() {
                        let reason = reason_of(error);
                        let text = format!("{name} => {}: {reason}", given.value);
                        options.mistake(&given.place, text);
                    }
                    settings.push((theirs, given.value));
                }
                None if default.is_empty() => {}
                None => settings.push((theirs, default.to_owned())),
            }
        }
        if let Some((_, value)) =
            settings.iter_mut().find(|(name, _)| *name == "topic.metadata.refresh.interval.ms")
            && value.parse::<u64>().is_ok_and(|ms| ms > METADATA_AGE_MAX_MS)
        {
            // A new partition is read from its beginning soon after it appears: backlog decisions
            // count on that.
            *value = METADATA_AGE_MAX_MS.to_string();
        }
        settings.push(("partition.assignment.strategy", strategy(&mut options)));
        let auto_create = options.boolean("auto_create_topics", true);
        settings.push(("allow.auto.create.topics", auto_create.to_string()));
        if let Some(protocol) = options.located("security_protocol")
            && protocol.value != "PLAINTEXT"
        {
            options.mistake(
                &protocol.place,
                format!(
                    "security_protocol {} is not supported yet; use a PLAINTEXT listener",
                    protocol.value
                ),
            );
        }
        let decorate = match options
            .choice("decorate_events", &["none", "basic", "extended", "false", "true"])
        {
            Some("basic" | "true") => Decorate::Basic,
            Some("extended") => Decorate::Extended,
            _ => Decorate::Nothing,
        };
        let codec = match options.codec("codec") {
            Some(codec) => Codec::read(&codec, &mut inner),
            None => Some(Codec::Plain),
        };
        let add_fields = options
            .hash("add_field")
            .into_iter()
            .filter_map(|(name, value)| {
                let (SettingKind::Text(text) | SettingKind::Number(text)) = value.kind else {
                    options.mistake(&value.place, "add_field takes texts");
                    return None;
                };
                let value = Located { value: text, place: value.place };
                Some((options.field_of(&name)?, options.template_of(&value)?))
            })
            .collect();
        let read = Self {
            topics,
            is_pattern,
            bootstrap_servers: options
                .text("bootstrap_servers")
                .unwrap_or_else(|| "localhost:9092".into()),
            group: match (options.text("group_id"), group) {
                (_, Some(group)) => group.into(),
                (given, None) => given.unwrap_or_else(|| DEFAULT_GROUP.into()),
            },
            client_id: options.text("client_id").unwrap_or_else(|| "logstash".into()),
            group_instance_id: options.text("group_instance_id"),
            consumers: (options.count("consumer_threads", 1) as usize).clamp(1, 64),
            settings,
            codec: codec.clone().unwrap_or(Codec::Plain),
            poll_records_max: (options.count("max_poll_records", 500) as usize).max(1),
            decorate,
            add_fields,
            add_tags: options.list("tags").into_iter().map(|tag| tag.value).collect(),
            event_type: options.text("type"),
        };
        options.ignored(&IGNORED);
        options.refused(&REFUSED);
        options.finish();
        mistakes.0.append(&mut inner.0);
        if mistakes.0.len() == before
            && let Err(error) = read.can_be_created()
        {
            mistakes.push(plugin.place.mistake(format!("input \"kafka\": {}", reason_of(error))));
        }
        (mistakes.0.len() == before && codec.is_some()).then_some(read)
    }

    /// Whether librdkafka takes the settings together: some limit each other. Without a server, so
    /// that nothing is asked over the network.
    fn can_be_created(&self) -> Result<(), KafkaError> {
        let mut config = self.client_config(0);
        config.remove("bootstrap.servers");
        // It would tell that there is none.
        config.set_log_level(RDKafkaLogLevel::Critical);
        let consumer: BaseConsumer = config.create()?;
        drop(consumer);
        Ok(())
    }

    /// librdkafka's configuration for one of the consumers, counted from 0.
    ///
    /// Those beyond [`Self::consumers`] come and go while the sink runs: they are no static members
    /// of the group, of which it would keep the partitions of one that left until its session ends.
    pub fn client_config(&self, consumer: usize) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("group.id", &self.group)
            .set("client.id", self.client_id_of(consumer))
            // Committed is only what was acknowledged, and only by us.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Read ahead enough to keep the filters busy. What is read ahead is counted once it is
            // unpacked, and an answer is unpacked whole: beyond these 16 MiB there may be one answer
            // for each partition, `max.partition.fetch.bytes` times what compression saved.
            .set("queued.max.messages.kbytes", "16384")
            .set("queued.min.messages", "50000")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.error.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.fast.interval.ms", "100");
        if let Some(instance) = self.instance_id_of(consumer) {
            config.set("group.instance.id", instance);
        }
        for (name, value) in &self.settings {
            config.set(*name, value);
        }
        config
    }

    pub(crate) fn client_id_of(&self, consumer: usize) -> String {
        format!("{}{}", self.client_id, self.suffix(consumer))
    }

    /// `None`: it is no static member. Further consumers never are: the group would keep the partitions of
    /// one that left until its session ends.
    pub(crate) fn instance_id_of(&self, consumer: usize) -> Option<String> {
        let instance = self.group_instance_id.as_ref().filter(|_| consumer < self.consumers)?;
        Some(format!("{instance}{}", self.suffix(consumer)))
    }

    fn suffix(&self, consumer: usize) -> String {
        match consumer >= self.consumers || self.consumers > 1 {
            true => format!("-{consumer}"),
            false => String::new(),
        }
    }
}

/// librdkafka's words alone: the name it has for the setting is not the user's.
fn reason_of(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, _, _) | KafkaError::ClientCreation(reason) => reason,
        other => other.to_string(),
    }
}

const METADATA_AGE_MAX_MS: u64 = 10_000;

fn strategy(options: &mut Options<'_>) -> String {
    let Some(given) = options.located("partition_assignment_strategy") else {
        return "cooperative-sticky".into();
    };
    match given.value.as_str() {
        "range" | "org.apache.kafka.clients.consumer.RangeAssignor" => "range".into(),
        "round_robin" | "org.apache.kafka.clients.consumer.RoundRobinAssignor" => {
            "roundrobin".into()
        }
        // Eager sticky is not in librdkafka; its cooperative successor keeps the same promise.
        "sticky"
        | "cooperative_sticky"
        | "org.apache.kafka.clients.consumer.StickyAssignor"
        | "org.apache.kafka.clients.consumer.CooperativeStickyAssignor" => {
            "cooperative-sticky".into()
        }
        other => {
            let text = format!(
                "partition_assignment_strategy {other} is not known; it may be range, \
                 round_robin, sticky or cooperative_sticky"
            );
            options.mistake(&given.place, text);
            String::new()
        }
    }
}

/// Java's patterns match the whole name; librdkafka's begin with `^`.
fn as_librdkafka_pattern(pattern: &str) -> String {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    format!("^({inner})$")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Pipeline;

    fn read(options: &str) -> Result<KafkaInput, Mistakes> {
        let text = format!("input {{ kafka {{ {options} }} }}");
        let pipeline = Pipeline::parse("a.conf", &text, &|_| None)?;
        let mut mistakes = Mistakes::default();
        let input = KafkaInput::read(&pipeline.inputs()[0], None, &mut mistakes);
        mistakes.or(()).map(|()| input.expect("no mistake was noted"))
    }

    fn refused(options: &str) -> String {
        read(options).expect_err("options are wrong").to_string()
    }

    #[test]
    fn defaults_are_logstashs_but_start_at_the_beginning() {
        let input = read("").unwrap();
        assert_eq!((input.topics, input.group.as_str()), (vec!["logstash".to_owned()], "logstash"));
        assert_eq!(input.codec, Codec::Plain);
        let setting =
            |name| input.settings.iter().find(|(held, _)| *held == name).map(|(_, v)| v.as_str());
        assert_eq!(setting("auto.offset.reset"), Some("earliest"));
        assert_eq!(setting("partition.assignment.strategy"), Some("cooperative-sticky"));
    }

    #[test]
    fn given_options_reach_librdkafka() {
        let input = read(
            r#"topics => ["a", "b"] group_id => "g" codec => json session_timeout_ms => 6000
               metadata_max_age_ms => 300000 consumer_threads => 2 client_id => "c" decorate_events => true"#,
        )
        .unwrap();
        assert_eq!(input.decorate, Decorate::Basic);
        let config = input.client_config(1);
        assert_eq!(config.get("session.timeout.ms"), Some("6000"));
        assert_eq!(config.get("topic.metadata.refresh.interval.ms"), Some("10000"));
        assert_eq!(config.get("client.id"), Some("c-1"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        let config: rdkafka::error::KafkaResult<rdkafka::consumer::BaseConsumer> = config.create();
        config.expect("librdkafka takes every setting");
    }

    #[test]
    fn further_consumers_are_no_static_members() {
        let input = read(r#"consumer_threads => 2 client_id => "c" group_instance_id => "i""#);
        let input = input.unwrap();
        let names = |consumer| {
            let config = input.client_config(consumer);
            let get = |name| config.get(name).map(str::to_owned);
            (get("client.id"), get("group.instance.id"))
        };
        assert_eq!(names(1), (Some("c-1".into()), Some("i-1".into())));
        assert_eq!(names(2), (Some("c-2".into()), None));
        let input = read(r#"client_id => "c" group_instance_id => "i""#).unwrap();
        let config = input.client_config(0);
        assert_eq!(
            (config.get("client.id"), config.get("group.instance.id")),
            (Some("c"), Some("i"))
        );
        assert_eq!(input.client_config(1).get("client.id"), Some("c-1"));
    }

    #[test]
    fn what_librdkafka_would_refuse_is_told_with_its_place() {
        let text = refused(r#"session_timeout_ms => "abc""#);
        assert!(text.starts_with("a.conf:1:39: session_timeout_ms => abc: "), "{text}");
        let text = refused("auto_offset_reset => never");
        assert!(text.contains("auto_offset_reset => never: "), "{text}");
        // Each is good alone.
        let text = refused("max_poll_interval_ms => 1000 session_timeout_ms => 6000");
        assert!(text.starts_with("a.conf:1:9: input \"kafka\": "), "{text}");
    }

    #[test]
    fn patterns_match_whole_names() {
        assert_eq!(read(r#"topics_pattern => "logs.*""#).unwrap().topics, ["^(logs.*)$"]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        assert_eq!(
            refused(r#"sasl_mechanism => "PLAIN""#),
            "a.conf:1:35: option \"sasl_mechanism\" of input \"kafka\" is not supported; remove it"
        );
        assert!(refused(r#"security_protocol => "SSL""#).contains("PLAINTEXT listener"));
        assert!(refused(r#"tpics => "a""#).contains("did you mean \"topics\"?"));
        assert!(refused(r#"codec => avro"#).contains("codec \"avro\""));
        assert!(refused(r#"partition_assignment_strategy => "mine""#).contains("mine"));
    }
}
