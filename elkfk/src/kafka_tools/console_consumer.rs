//! `kafka-console-consumer`: records to standard output.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use elkfk_broker_client::{OffsetAt, TopicPartition};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::console_producer::{Absence, set_property, valid_addresses};
use super::options::{Options, Spec, flag, pairs, properties_file, value};
use super::{Failure, block_on, client, log_line};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("bootstrap-server", "host:port,…", "The brokers to ask. Required."),
    value("topic", "name", "The topic to read."),
    value("include", "pattern", "The topics to read, as a regular expression."),
    value("whitelist", "pattern", "The old name of --include."),
    value("partition", "number", "The one partition to read; from its end unless --offset says otherwise."),
    value("offset", "offset", "Where to begin in the partition: a number, earliest or latest."),
    value("group", "name", "The group to read as."),
    flag("from-beginning", "Begin at the start where the group has read nothing yet."),
    value("max-messages", "number", "Stop after so many records."),
    value("timeout-ms", "ms", "Stop when no record comes for so long."),
    value("isolation-level", "level", "read_committed or read_uncommitted."),
    value("property", "key=value", "print.timestamp, print.key, print.offset, print.partition, print.headers, print.value, key.separator, line.separator, headers.separator, null.literal, key.deserializer, value.deserializer."),
    value("formatter-config", "file", "A file with such properties."),
    value("formatter", "class", "kafka.tools.DefaultMessageFormatter or kafka.tools.NoOpMessageFormatter."),
    value("key-deserializer", "class", "Short for --property key.deserializer=…"),
    value("value-deserializer", "class", "Short for --property value.deserializer=…"),
    value("consumer-property", "key=value", "A setting of the consumer."),
    value("consumer.config", "file", "A file with such settings."),
    flag("skip-message-on-error", "Go on after a record that cannot be printed."),
    flag("enable-systest-events", "Print shutdown_complete at the end."),
];

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let options =
        Options::parse(OPTIONS, args).map_err(|e| super::options::usage(OPTIONS, e.message))?;
    let settings = Settings::new(&options, args)?;
    let (runtime, stop) = watch_signals()?;
    let consumer = settings.consumer()?;
    settings.start(&options, &consumer)?;
    let printed = print_records(&settings, &consumer, &stop);
    // Commits what the group has read.
    drop(consumer);
    drop(runtime);
    crate::say::asideln!("Processed a total of {printed} messages");
    match stop.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Failure::stdout("", 128 + signal)),
    }
}

/// Notes the signal that asks us to end, so that offsets are committed first.
fn watch_signals() -> Result<(tokio::runtime::Runtime, Arc<AtomicU8>), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::uncaught("java.lang.Error", &e.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(failed)?;
    let stop = Arc::new(AtomicU8::new(0));
    for (kind, number) in [(SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)] {
        let stop = Arc::clone(&stop);
        let guard = runtime.enter();
        let mut signals = signal(kind).map_err(failed)?;
        drop(guard);
        runtime.spawn(async move {
            signals.recv().await;
            stop.store(number, Ordering::Relaxed);
        });
    }
    Ok((runtime, stop))
}

/// Returns how many records were printed.
fn print_records(settings: &Settings, consumer: &BaseConsumer<Quiet>, stop: &AtomicU8) -> u64 {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut printed = 0;
    let mut waiting_since = Instant::now();
    while settings.max_messages.is_none_or(|max| printed < max) && stop.load(Ordering::Relaxed) == 0
    {
        // What is there goes out before we wait for more.
        let next = match consumer.poll(Duration::ZERO) {
            Some(next) => Some(next),
            None => {
                if out.flush().is_err() {
                    break;
                }
                consumer.poll(Duration::from_millis(100))
            }
        };
        match next {
            Some(Ok(message)) => {
                printed += 1;
                waiting_since = Instant::now();
                if settings.format.write(&message, &mut out).is_err() {
                    crate::say::asideln!("Unable to write to standard out, closing consumer.");
                    break;
                }
            }
            Some(Err(error)) if is_fatal(&error) => {
                terminate(&error.to_string());
                break;
            }
            _ => {
                if settings.timeout.is_some_and(|timeout| waiting_since.elapsed() > timeout) {
                    let _ = out.flush();
                    terminate("org.apache.kafka.common.errors.TimeoutException");
                    break;
                }
            }
        }
    }
    let _ = out.flush();
    printed
}

fn is_fatal(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::Fatal
                | Code::Authentication
                | Code::GroupAuthorizationFailed
                | Code::TopicAuthorizationFailed
                | Code::InvalidTopic
        )
    )
}

fn terminate(cause: &str) {
    let message = "Error processing message, terminating consumer process: ";
    log_line("ERROR", message, "kafka.tools.ConsoleConsumer$");
    crate::say::asideln!("{cause}");
}

struct Settings {
    /// For librdkafka.
    config: ClientConfig,
    bootstrap: String,
    group: String,
    topic: Option<String>,
    /// Full match.
    include: Option<String>,
    partition: Option<(i32, Offset)>,
    max_messages: Option<u64>,
    timeout: Option<Duration>,
    format: Format,
}

impl Settings {
    fn new(options: &Options, args: &[String]) -> Result<Self, Failure> {
        let about =
            "This tool helps to read data from Kafka topics and outputs it to standard output.";
        options.help_or_version(about, args.is_empty())?;
        let mut properties = match options.one("consumer.config")? {
            Some(file) => properties_file(file)?,
            None => Vec::new(),
        };
        let extra = pairs(options.all("consumer-property"));
        let format = Format::new(options)?;
        let topic = options.one("topic")?.map(str::to_owned);
        let include = match options.one("include")? {
            Some(include) => Some(include),
            None => options.one("whitelist")?,
        };
        if topic.is_some() == include.is_some() {
            let whitelist = match options.has("whitelist") {
                true => {
                    "--whitelist is DEPRECATED use --include instead; ignored if --include specified."
                }
                false => "",
            };
            return Err(
                options.usage(format!("Exactly one of --include/--topic is required. {whitelist}"))
            );
        }
        let partition = options.number::<i32>("partition")?;
        let from_beginning = options.has("from-beginning");
        if partition.is_some() {
            if topic.is_none() {
                return Err(options.usage("The topic is required when partition is specified."));
            }
            if from_beginning && options.has("offset") {
                return Err(options
                    .usage("Options from-beginning and offset cannot be specified together."));
            }
        } else if options.has("offset") {
            return Err(options.usage("The partition is required when offset is specified."));
        }
        let offset = match options.one("offset")?.map(str::to_lowercase).as_deref() {
            None if from_beginning => Offset::Beginning,
            None | Some("latest") => Offset::End,
            Some("earliest") => Offset::Beginning,
            Some(number) => match number.parse::<i64>() {
                Ok(offset) if offset >= 0 => Offset::Offset(offset),
                _ => {
                    return Err(options.usage(format!("The provided offset value '{number}' is incorrect. Valid values are 'earliest', 'latest', or a non-negative long.")));
                }
            },
        };
        options.require("bootstrap-server")?;
        let bootstrap = options.one("bootstrap-server")?.unwrap_or_default().to_owned();
        valid_addresses(options, &bootstrap)?;
        let group = group(options, &properties, &extra)?;
        if group.is_some() && partition.is_some() {
            return Err(options.usage("Options group and partition cannot be specified together."));
        }
        properties.extend(extra);
        let reset = properties.iter().rev().find(|(key, _)| key == "auto.offset.reset");
        if let Some((_, reset)) = reset
            && from_beginning
            && reset != "earliest"
        {
            let text = format!(
                "Can't simultaneously specify --from-beginning and 'auto.offset.reset={reset}', please remove one option\n"
            );
            return Err(Failure { stdout: String::new(), stderr: text, exit: 1 });
        }
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config.set("bootstrap.servers", &bootstrap).set("client.id", "console-consumer");
        config.set("auto.offset.reset", if from_beginning { "earliest" } else { "latest" });
        config.set("isolation.level", "read_uncommitted").set("allow.auto.create.topics", "true");
        // A group of our own is not used again: its offsets need not be kept.
        let (group, commits) = match group {
            Some(group) => (group, "true"),
            None => (format!("console-consumer-{}", rand::random_range(0..100_000)), "false"),
        };
        config.set("group.id", &group).set("enable.auto.commit", commits);
        for (key, value) in &properties {
            set_property(&mut config, key, value);
        }
        if let Some(level) = options.one("isolation-level")? {
            config.set("isolation.level", level);
        }
        let max = options.number::<i64>("max-messages")?;
        let timeout = options.number::<i64>("timeout-ms")?;
        Ok(Self {
            config,
            bootstrap,
            group,
            topic,
            include: include.map(str::to_owned),
            partition: partition.map(|partition| (partition, offset)),
            max_messages: max.and_then(|max| u64::try_from(max).ok()),
            timeout: timeout.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis),
            format,
        })
    }

    fn consumer(&self) -> Result<BaseConsumer<Quiet>, Failure> {
        let absence = Absence::new("Consumer clientId=console-consumer", &self.bootstrap);
        self.config.create_with_context(Quiet(absence)).map_err(|error| {
            let message = "Unknown error when running consumer: ";
            log_line("ERROR", message, "kafka.tools.ConsoleConsumer$");
            let stderr = format!("org.apache.kafka.common.KafkaException: {error}\n");
            Failure { stdout: String::new(), stderr, exit: 1 }
        })
    }

    fn start(&self, options: &Options, consumer: &BaseConsumer<Quiet>) -> Result<(), Failure> {
        let failed = |error: KafkaError| {
            Failure::uncaught("org.apache.kafka.common.KafkaException", &error.to_string())
        };
        let admin = client(options, &self.bootstrap)?;
        if let Some(include) = &self.include {
            return consumer
                .subscribe(&[&format!("^({})$", include.replace(',', "|"))])
                .map_err(failed);
        }
        let topic = self.topic.as_deref().unwrap_or_default();
        // Kafka's consumer says so when the topic is only being created by its asking.
        block_on(async {
            if let Ok(code) = admin.touch_topic(topic).await
                && !code.is_none()
            {
                let group = &self.group;
                log_line(
                    "WARN",
                    &format!(
                        "[Consumer clientId=console-consumer, groupId={group}] Error while fetching metadata with correlation id 2 : {{{topic}={code}}}"
                    ),
                    "org.apache.kafka.clients.NetworkClient",
                );
            }
            Ok(())
        })?;
        let Some((partition, offset)) = self.partition else {
            return consumer.subscribe(&[topic]).map_err(failed);
        };
        // The end is where it is now, not where it will be when librdkafka asks.
        let offset = match offset {
            Offset::End => block_on(async {
                let place = TopicPartition::new(topic, partition);
                let listed = admin.list_offsets(std::slice::from_ref(&place), OffsetAt::End).await;
                let end = listed.ok().and_then(|mut l| l.remove(&place)?.ok()?.offset);
                Ok(end.map_or(Offset::End, Offset::Offset))
            })?,
            offset => offset,
        };
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, offset).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)
    }
}

/// The group named by option or setting; they must agree.
fn group(
    options: &Options,
    properties: &[(String, String)],
    extra: &[(String, String)],
) -> Result<Option<String>, Failure> {
    let named = |pairs: &[(String, String)]| {
        pairs.iter().rev().find(|(key, _)| key == "group.id").map(|(_, group)| group.clone())
    };
    let mut groups: Vec<String> = options.one("group")?.map(str::to_owned).into_iter().collect();
    groups.extend(named(properties));
    groups.extend(named(extra));
    groups.dedup();
    if groups.len() > 1 {
        return Err(options.usage(format!(
            "The group ids provided in different places (directly using '--group', via '--consumer-property', or via '--consumer.config') do not match. Detected group ids: '{}'",
            groups.join("', '"),
        )));
    }
    Ok(groups.pop())
}

/// Kafka's own tool is silent about what librdkafka logs.
struct Quiet(Absence);

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, _: &str) {
        self.0.on_error(&error);
    }
}

impl ConsumerContext for Quiet {}

/// What is printed of a record, and how.
struct Format {
    prints_anything: bool,
    timestamp: bool,
    key: bool,
    value: bool,
    partition: bool,
    offset: bool,
    headers: bool,
    key_separator: Vec<u8>,
    line_separator: Vec<u8>,
    headers_separator: Vec<u8>,
    null_literal: Vec<u8>,
    key_deserializer: Deserializer,
    value_deserializer: Deserializer,
    headers_deserializer: Deserializer,
}

impl Format {
    fn new(options: &Options) -> Result<Self, Failure> {
        let mut properties = match options.one("formatter-config")? {
            Some(file) => properties_file(file)?,
            None => Vec::new(),
        };
        properties.extend(pairs(options.all("property")));
        for (option, key) in
            [("key-deserializer", "key.deserializer"), ("value-deserializer", "value.deserializer")]
        {
            if let Some(class) = options.one(option)? {
                properties.push((key.to_owned(), class.to_owned()));
            }
        }
        let get = |key: &str| {
            properties.iter().rev().find(|(known, _)| known == key).map(|(_, v)| v.as_str())
        };
        let flag = |key: &str, otherwise| {
            get(key).map_or(otherwise, |v| v.trim().eq_ignore_ascii_case("true"))
        };
        let bytes = |key: &str, otherwise: &str| get(key).unwrap_or(otherwise).as_bytes().to_vec();
        let prints_anything = match options.one("formatter")? {
            None
            | Some("kafka.tools.DefaultMessageFormatter" | "kafka.tools.LoggingMessageFormatter") => {
                true
            }
            Some("kafka.tools.NoOpMessageFormatter") => false,
            Some(class) => {
                return Err(Failure::uncaught("java.lang.ClassNotFoundException", class));
            }
        };
        Ok(Self {
            prints_anything,
            timestamp: flag("print.timestamp", false),
            key: flag("print.key", false),
            value: flag("print.value", true),
            partition: flag("print.partition", false),
            offset: flag("print.offset", false),
            headers: flag("print.headers", false),
            key_separator: bytes("key.separator", "\t"),
            line_separator: bytes("line.separator", "\n"),
            headers_separator: bytes("headers.separator", ","),
            null_literal: bytes("null.literal", "null"),
            key_deserializer: Deserializer::named(get("key.deserializer"))?,
            value_deserializer: Deserializer::named(get("value.deserializer"))?,
            headers_deserializer: Deserializer::named(get("headers.deserializer"))?,
        })
    }

    fn write(&self, message: &BorrowedMessage<'_>, out: &mut impl Write) -> std::io::Result<()> {
        if !self.prints_anything {
            return Ok(());
        }
        let mut columns: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            columns.push(match message.timestamp() {
                Timestamp::CreateTime(ms) => format!("CreateTime:{ms}").into_bytes(),
                Timestamp::LogAppendTime(ms) => format!("LogAppendTime:{ms}").into_bytes(),
                Timestamp::NotAvailable => b"NO_TIMESTAMP".to_vec(),
            });
        }
        if self.partition {
            columns.push(format!("Partition:{}", message.partition()).into_bytes());
        }
        if self.offset {
            columns.push(format!("Offset:{}", message.offset()).into_bytes());
        }
        if self.headers {
            columns.push(match message.headers().filter(|headers| headers.count() > 0) {
                None => b"NO_HEADERS".to_vec(),
                Some(headers) => {
                    let header = |h: rdkafka::message::Header<'_, &[u8]>| {
                        let value = self.text(&self.headers_deserializer, h.value);
                        [h.key.as_bytes(), b":", &value].concat()
                    };
                    let headers: Vec<Vec<u8>> = headers.iter().map(header).collect();
                    headers.join(&self.headers_separator[..])
                }
            });
        }
        if self.key {
            columns.push(self.text(&self.key_deserializer, message.key()));
        }
        if self.value {
            columns.push(self.text(&self.value_deserializer, message.payload()));
        }
        out.write_all(&columns.join(&self.key_separator[..]))?;
        if !columns.is_empty() {
            out.write_all(&self.line_separator)?;
        }
        Ok(())
    }

    fn text(&self, deserializer: &Deserializer, bytes: Option<&[u8]>) -> Vec<u8> {
        match bytes {
            Some(bytes) => deserializer.text(bytes),
            None => self.null_literal.clone(),
        }
    }
}

/// How bytes become text.
enum Deserializer {
    AsIs,
    Integer,
    Double,
    Float,
}

impl Deserializer {
    fn named(class: Option<&str>) -> Result<Self, Failure> {
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(Self::AsIs) };
        match class.strip_prefix("org.apache.kafka.common.serialization.") {
            Some("StringDeserializer" | "ByteArrayDeserializer" | "BytesDeserializer") => {
                Ok(Self::AsIs)
            }
            Some("LongDeserializer" | "IntegerDeserializer" | "ShortDeserializer") => {
                Ok(Self::Integer)
            }
            Some("DoubleDeserializer") => Ok(Self::Double),
            Some("FloatDeserializer") => Ok(Self::Float),
            _ => Err(Failure::uncaught("java.lang.ClassNotFoundException", class)),
        }
    }

    fn text(&self, bytes: &[u8]) -> Vec<u8> {
        let text = match (self, bytes) {
            (Self::AsIs, _) => None,
            (Self::Integer, &[a, b]) => Some(i16::from_be_bytes([a, b]).to_string()),
            (Self::Integer, _) if bytes.len() == 4 => {
                bytes.first_chunk().map(|b| i32::from_be_bytes(*b).to_string())
            }
            (Self::Integer, _) => bytes.first_chunk().map(|b| i64::from_be_bytes(*b).to_string()),
            (Self::Double, _) => {
                bytes.first_chunk().map(|b| format!("{:?}", f64::from_be_bytes(*b)))
            }
            (Self::Float, _) => {
                bytes.first_chunk().map(|b| format!("{:?}", f32::from_be_bytes(*b)))
            }
        };
        text.map_or_else(|| bytes.to_vec(), String::into_bytes)
    }
}
