//! `kafka-console-producer`: a record per line of standard input.

use std::io::{BufRead, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use elkfk_broker_client::Refused;
use elkfk_wire::kafka::ErrorCode;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::errors::Exception;
use super::options::{Options, Spec, Takes, flag, pairs, properties_file, value};
use super::{Failure, block_on, client, log_line};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("topic", "name", "Where the records go. Required."),
    value("bootstrap-server", "host:port,…", "The brokers to ask. Required."),
    value("broker-list", "host:port,…", "The old name of --bootstrap-server."),
    flag("sync", "Wait for each record's acknowledgement before the next line."),
    Spec { name: "compression-codec", takes: Takes::Perhaps("codec"), help: "none, gzip, snappy, lz4 or zstd; gzip without a value." },
    value("batch-size", "bytes", "Size of a batch; 16384."),
    value("message-send-max-retries", "number", "How often sending is tried again."),
    value("retry-backoff-ms", "ms", "Pause before that."),
    value("timeout", "ms", "How long records wait for company; 1000."),
    value("request-required-acks", "acks", "-1 or all, 0, 1."),
    value("request-timeout-ms", "ms", "How long a broker may take."),
    value("metadata-expiry-ms", "ms", "How long metadata is believed."),
    value("max-block-ms", "ms", "Accepted, without effect."),
    value("max-memory-bytes", "bytes", "How much may wait to be sent."),
    value("max-partition-memory-bytes", "bytes", "The same as --batch-size."),
    value("line-reader", "class", "Only kafka.tools.ConsoleProducer$LineMessageReader."),
    value("socket-buffer-size", "bytes", "The socket's send buffer."),
    value("property", "key=value", "parse.key, key.separator, parse.headers, headers.delimiter, headers.separator, headers.key.separator, ignore.error, null.marker."),
    value("reader-config", "file", "A file with such properties."),
    value("producer-property", "key=value", "A setting of the producer."),
    value("producer.config", "file", "A file with such settings."),
];

const LINE_READER: &str = "kafka.tools.ConsoleProducer$LineMessageReader";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let options =
        Options::parse(OPTIONS, args).map_err(|e| super::options::usage(OPTIONS, e.message))?;
    options.help_or_version(
        "This tool helps to read data from standard input and publish it to Kafka.",
        args.is_empty(),
    )?;
    if !options.has("bootstrap-server") && !options.has("broker-list") {
        return Err(options.usage("Missing required option(s) [bootstrap-server]"));
    }
    options.require("topic")?;
    let topic = options.one("topic")?.unwrap_or_default();
    let bootstrap = match options.one("bootstrap-server")? {
        Some(bootstrap) => bootstrap,
        None => options.one("broker-list")?.unwrap_or_default(),
    };
    valid_addresses(&options, bootstrap)?;
    if let Some(class) = options.one("line-reader")?
        && class != LINE_READER
    {
        return Err(Failure::uncaught("java.lang.ClassNotFoundException", class));
    }
    let mut properties = match options.one("reader-config")? {
        Some(file) => properties_file(file)?,
        None => Vec::new(),
    };
    properties.extend(pairs(options.all("property")));
    let failure = |exception: Exception| Failure {
        stdout: String::new(),
        stderr: format!("{exception}\n"),
        exit: 1,
    };
    let lines = Lines::new(&properties).map_err(failure)?;
    let producer = producer(&options, bootstrap)?;
    warn_of_new_topic(&options, bootstrap, topic)?;
    let sent = send_lines(&options, &producer, topic, &lines);
    // What was read before a mistake still goes out.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(100));
    }
    sent.map_err(failure)
}

/// Reads, sends, and stops at the end of the input or the first line that is not understood.
fn send_lines(
    options: &Options,
    producer: &BaseProducer<Reporter>,
    topic: &str,
    lines: &Lines,
) -> Result<(), Exception> {
    let stdin = std::io::stdin();
    let prompts = stdin.is_terminal() && std::io::stdout().is_terminal();
    let mut input = stdin.lock();
    let mut line = Vec::new();
    for number in 1.. {
        if prompts {
            super::say(">");
        }
        line.clear();
        let read = input.read_until(b'\n', &mut line);
        if read.map_err(|e| Exception::new("java.io.IOException", e.to_string()))? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let text = String::from_utf8_lossy(&line);
        let (headers, key, value) = lines.split(&text, number)?;
        let mut record = BaseRecord::<str, str>::to(topic);
        record.key = key;
        record.payload = value;
        record.headers = headers;
        let mut pending = Some(record);
        while let Some(record) = pending.take() {
            match producer.send(record) {
                Ok(()) => {}
                // The queue is full: make room and try again.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                    producer.poll(Duration::from_millis(100));
                    pending = Some(record);
                }
                Err((error, _)) => report(topic, key, value, &error),
            }
        }
        producer.poll(Duration::ZERO);
        while options.has("sync") && producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(10));
            let _ = producer.flush(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Says so when the topic is only being created by our asking, as Kafka's producer does.
fn warn_of_new_topic(options: &Options, bootstrap: &str, topic: &str) -> Result<(), Failure> {
    let admin = client(options, bootstrap)?;
    block_on(async {
        // A cluster that is away now may be there when the records are ready.
        if let Ok(code) = admin.touch_topic(topic).await
            && !code.is_none()
        {
            log_line(
                "WARN",
                &format!(
                    "[Producer clientId=console-producer] Error while fetching metadata with correlation id 1 : {{{topic}={code}}}"
                ),
                "org.apache.kafka.clients.NetworkClient",
            );
        }
        Ok(())
    })
}

/// Addresses must be `host:port`, separated by commas.
pub(crate) fn valid_addresses(options: &Options, bootstrap: &str) -> Result<(), Failure> {
    let has_port = |address: &str| {
        address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if !bootstrap.is_empty() && bootstrap.split(',').all(|address| has_port(address.trim())) {
        return Ok(());
    }
    Err(options.usage("Please provide valid host:port like host1:9091,host2:9092\n "))
}

/// What librdkafka does not know, though Kafka's producer and consumer do.
const JAVA_ONLY: &[&str] = &[
    "key.serializer",
    "value.serializer",
    "key.deserializer",
    "value.deserializer",
    "max.block.ms",
    "buffer.memory",
    "partitioner.class",
    "interceptor.classes",
    "metric.reporters",
    "max.poll.records",
    "exclude.internal.topics",
    "metrics.num.samples",
    "metrics.sample.window.ms",
    "reconnect.backoff.jitter",
    "client.dns.lookup",
    "default.api.timeout.ms",
    "request.timeout.ms",
    "fetch.max.wait.ms",
    "receive.buffer.bytes",
    "send.buffer.bytes",
    "linger",
    "max.request.size",
    "partitioner.ignore.keys",
    "partitioner.adaptive.partitioning.enable",
];

/// Sets what the user gave under Kafka's names under librdkafka's.
pub(crate) fn set_property(config: &mut ClientConfig, key: &str, value: &str) {
    let name = match key {
        "fetch.max.wait.ms" => "fetch.wait.max.ms",
        "receive.buffer.bytes" => "socket.receive.buffer.bytes",
        "send.buffer.bytes" => "socket.send.buffer.bytes",
        "max.request.size" => "message.max.bytes",
        "request.timeout.ms" => "socket.timeout.ms",
        _ if JAVA_ONLY.contains(&key) => {
            let message =
                format!("The configuration '{key}' was supplied but isn't a known config.");
            return log_line("WARN", &message, "elkfk");
        }
        _ => key,
    };
    config.set(name, value);
}

fn producer(options: &Options, bootstrap: &str) -> Result<BaseProducer<Reporter>, Failure> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config.set("bootstrap.servers", bootstrap);
    config.set("client.id", "console-producer");
    // Kafka's defaults, where librdkafka has others: keys go where Kafka's producer sends them.
    config.set("partitioner", "murmur2_random").set("linger.ms", "1000").set("batch.size", "16384");
    config.set("enable.idempotence", "true").set("allow.auto.create.topics", "true");
    let codec = options.all("compression-codec").first().map(String::as_str).unwrap_or("gzip");
    if options.has("compression-codec") {
        config.set("compression.type", codec);
    }
    if let Some(file) = options.one("producer.config")? {
        for (key, value) in properties_file(file)? {
            set_property(&mut config, &key, &value);
        }
    }
    for (key, value) in pairs(options.all("producer-property")) {
        set_property(&mut config, &key, &value);
    }
    let named = [
        ("timeout", "linger.ms"),
        ("request-required-acks", "acks"),
        ("request-timeout-ms", "request.timeout.ms"),
        ("message-send-max-retries", "retries"),
        ("retry-backoff-ms", "retry.backoff.ms"),
        ("socket-buffer-size", "socket.send.buffer.bytes"),
        ("batch-size", "batch.size"),
        ("max-partition-memory-bytes", "batch.size"),
        ("metadata-expiry-ms", "metadata.max.age.ms"),
    ];
    for (option, key) in named {
        if let Some(value) = options.one(option)? {
            config.set(key, value);
        }
    }
    if let Some(bytes) = options.number::<i64>("max-memory-bytes")? {
        config.set("queue.buffering.max.kbytes", (bytes / 1024).max(1).to_string());
    }
    // Idempotence wants acks=all; Kafka turns it off by itself where acks says otherwise.
    if config.get("acks").is_some_and(|acks| acks == "0" || acks == "1") {
        config.set("enable.idempotence", "false");
    }
    let absence = Absence::new("Producer clientId=console-producer", bootstrap);
    config.create_with_context(Reporter(absence)).map_err(|error| {
        let message = format!("Failed to construct kafka producer: {error}");
        Failure {
            stdout: String::new(),
            stderr: format!("org.apache.kafka.common.KafkaException: {message}\n"),
            exit: 1,
        }
    })
}

/// Reports records that were not taken.
struct Reporter(Absence);

impl ClientContext for Reporter {
    /// Kafka's own tool is silent about what librdkafka logs.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, _: &str) {
        self.0.on_error(&error);
    }
}

/// Says that no broker is there, though not each time that librdkafka notices.
pub(crate) struct Absence {
    /// `Producer clientId=console-producer`
    who: &'static str,
    bootstrap: String,
    told_at: Mutex<Option<Instant>>,
}

/// How long it is silent after saying so.
const ABSENCE_TOLD_EVERY: Duration = Duration::from_secs(5);

impl Absence {
    pub(crate) fn new(who: &'static str, bootstrap: &str) -> Self {
        Self { who, bootstrap: bootstrap.to_owned(), told_at: Mutex::new(None) }
    }

    pub(crate) fn on_error(&self, error: &KafkaError) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|at| at.elapsed() < ABSENCE_TOLD_EVERY) {
            return;
        }
        *told_at = Some(Instant::now());
        let Self { who, bootstrap, .. } = self;
        log_line(
            "WARN",
            &format!(
                "[{who}] Connection to node -1 ({bootstrap}) could not be established. Broker may not be available."
            ),
            "org.apache.kafka.clients.NetworkClient",
        );
    }
}

impl ProducerContext for Reporter {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let text =
                |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
            let (key, value) = (text(message.key()), text(message.payload()));
            report(message.topic(), key.as_deref(), value.as_deref(), error);
        }
    }
}

fn report(topic: &str, key: Option<&str>, value: Option<&str>, error: &KafkaError) {
    let exception = match error.rdkafka_error_code().map(|code| code as i32) {
        Some(code) if code > 0 => {
            let code = ErrorCode(i16::try_from(code).unwrap_or(-1));
            Exception::from(&Refused { code, message: None })
        }
        _ => Exception::kafka("TimeoutException", error.to_string()),
    };
    let length =
        |text: Option<&str>| text.map_or("null".to_owned(), |t| format!("{} bytes", t.len()));
    let (key, value) = (length(key), length(value));
    log_line(
        "ERROR",
        &format!(
            "Error when sending message to topic {topic} with key: {key}, value: {value} with error:"
        ),
        "org.apache.kafka.clients.producer.internals.ErrorLoggingCallback",
    );
    crate::say::asideln!("{exception}");
}

/// How a line is taken apart.
struct Lines {
    parse_key: bool,
    key_separator: String,
    parse_headers: bool,
    headers_delimiter: String,
    headers_separator: String,
    headers_key_separator: String,
    ignore_error: bool,
    null_marker: Option<String>,
}

/// Headers, key and value of a line.
type Parts<'l> = (Option<OwnedHeaders>, Option<&'l str>, Option<&'l str>);

impl Lines {
    fn new(properties: &[(String, String)]) -> Result<Self, Exception> {
        let get = |key: &str| {
            properties.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone())
        };
        let is_true = |key: &str| get(key).is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
        let lines = Self {
            parse_key: is_true("parse.key"),
            key_separator: get("key.separator").unwrap_or_else(|| "\t".into()),
            parse_headers: is_true("parse.headers"),
            headers_delimiter: get("headers.delimiter").unwrap_or_else(|| "\t".into()),
            headers_separator: get("headers.separator").unwrap_or_else(|| ",".into()),
            headers_key_separator: get("headers.key.separator").unwrap_or_else(|| ":".into()),
            ignore_error: is_true("ignore.error"),
            null_marker: get("null.marker"),
        };
        let marker = lines.null_marker.as_deref();
        let same = [
            (
                "headers.delimiter",
                Some(&*lines.headers_delimiter),
                "headers.separator",
                &lines.headers_separator,
            ),
            (
                "headers.delimiter",
                Some(&*lines.headers_delimiter),
                "headers.key.separator",
                &lines.headers_key_separator,
            ),
            (
                "headers.separator",
                Some(&*lines.headers_separator),
                "headers.key.separator",
                &lines.headers_key_separator,
            ),
            ("null.marker", marker, "key.separator", &lines.key_separator),
            ("null.marker", marker, "headers.separator", &lines.headers_separator),
            ("null.marker", marker, "headers.delimiter", &lines.headers_delimiter),
            ("null.marker", marker, "headers.key.separator", &lines.headers_key_separator),
        ];
        for (one, a, other, b) in same {
            if a == Some(b.as_str()) {
                return Err(kafka_exception(format!("{one} and {other} may not be equal")));
            }
        }
        Ok(lines)
    }

    fn split<'l>(&self, line: &'l str, number: u64) -> Result<Parts<'l>, Exception> {
        let mut rest = line;
        let mut part =
            |is_wanted: bool, separator: &str, name: &str| match rest.split_once(separator) {
                _ if !is_wanted => Ok(None),
                Some((part, after)) => {
                    rest = after;
                    Ok(Some(part))
                }
                None if self.ignore_error => Ok(None),
                None => Err(kafka_exception(format!(
                    "No {name} found on line number {number}: '{line}'"
                ))),
            };
        let headers = part(self.parse_headers, &self.headers_delimiter, "headers delimiter")?;
        let key = part(self.parse_key, &self.key_separator, "key separator")?;
        let kept = |text: &&str| self.null_marker.as_deref() != Some(*text);
        let headers =
            headers.filter(kept).map(|headers| self.headers(headers, number)).transpose()?;
        Ok((headers, key.filter(kept), Some(rest).filter(kept)))
    }

    fn headers(&self, text: &str, number: u64) -> Result<OwnedHeaders, Exception> {
        let mut headers = OwnedHeaders::new();
        for pair in text.split(self.headers_separator.as_str()) {
            let (key, value) = match pair.split_once(self.headers_key_separator.as_str()) {
                Some((key, value)) => (key, Some(value)),
                None if self.ignore_error => (pair, None),
                None => {
                    return Err(kafka_exception(format!(
                        "No header key separator found in pair '{pair}' on line number {number}"
                    )));
                }
            };
            if self.null_marker.as_deref() == Some(key) {
                return Err(kafka_exception(format!(
                    "Header keys should not be equal to the null marker '{key}' as they can't be null"
                )));
            }
            let value = value.filter(|value| self.null_marker.as_deref() != Some(*value));
            headers = headers.insert(Header { key, value });
        }
        Ok(headers)
    }
}

fn kafka_exception(message: String) -> Exception {
    Exception::new("org.apache.kafka.common.KafkaException", message)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;

    use super::*;

    fn check(properties: &[&str], line: &str, expected: Result<&str, &str>) {
        let properties: Vec<String> = properties.iter().map(|p| (*p).to_owned()).collect();
        let lines = Lines::new(&pairs(&properties)).unwrap();
        let got = lines.split(line, 1).map(|(headers, key, value)| {
            let headers: Vec<_> = headers
                .iter()
                .flat_map(|h| h.iter())
                .map(|h| format!("{}={:?}", h.key, h.value.map(String::from_utf8_lossy)))
                .collect();
            format!("{} {key:?} {value:?}", headers.join(","))
        });
        let expected = expected.map(str::to_owned);
        assert_eq!(
            got.map_err(|e| e.message().to_owned()),
            expected.map_err(str::to_owned),
            "{line}"
        );
    }

    #[test]
    fn lines_are_taken_apart_as_kafka_does() {
        check(&[], "a:b", Ok(" None Some(\"a:b\")"));
        check(&["parse.key=true", "key.separator=:"], "a:b:c", Ok(" Some(\"a\") Some(\"b:c\")"));
        check(&["parse.key=true"], "ab", Err("No key separator found on line number 1: 'ab'"));
        check(&["parse.key=true", "ignore.error=true"], "ab", Ok(" None Some(\"ab\")"));
        check(
            &["parse.headers=true", "parse.key=true", "null.marker=NULL"],
            "h:1,g:NULL\tNULL\tv",
            Ok("h=Some(\"1\"),g=None None Some(\"v\")"),
        );
        check(&["null.marker=-"], "-", Ok(" None None"));
    }
}
