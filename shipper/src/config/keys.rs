//! Every key of `filebeat.yml` we know of, and what becomes of it. `docs/shipper.md` lists the same.

/// What reading a known key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    Honoured,
    /// Without effect here, for this reason; the start says so.
    Ignored(&'static str),
    /// Would change what is shipped, and we do not do it: the start is refused.
    Refused(&'static str),
}

use Treatment::{Honoured as H, Ignored as I, Refused as R};

/// A key, its children named by a trailing `.*`.
pub(super) type Key = (&'static str, Treatment);

const NO_QUEUE: &str = "the log file itself is the queue";
const NO_TLS: &str = "TLS is not built in";
const ALL_PARTITIONS: &str = "an event waits for its partition";
const NOT_ELASTIC: &str = "the output is Kafka";

pub(super) const TOP: &[Key] = &[
    ("filebeat.inputs", H),
    ("filebeat.registry.path", H),
    ("filebeat.registry.flush", I("the registry is synced within a second")),
    ("filebeat.registry.cleanup_interval", I("the registry is compacted as it grows")),
    ("filebeat.registry.file_permissions", I("the registry is private to its user")),
    ("filebeat.registry.*", I("the registry has its own format")),
    ("filebeat.shutdown_timeout", H),
    ("filebeat.config_dir", R("write the inputs into the one file")),
    ("filebeat.config.*", R("write the inputs into the one file")),
    ("filebeat.modules", R("name the paths in filebeat.inputs; the sink parses")),
    ("filebeat.autodiscover.*", R("name the paths in filebeat.inputs")),
    ("filebeat.overwrite_pipelines", I(NOT_ELASTIC)),
    ("name", H),
    ("tags", H),
    ("fields.*", H),
    ("fields_under_root", H),
    ("processors", H),
    ("path.data", H),
    ("path.*", I("only path.data is used")),
    ("output.kafka.*", H),
    ("output.elasticsearch.*", R("ship to Kafka with output.kafka; the sink feeds Elasticsearch")),
    ("output.logstash.*", R("ship to Kafka with output.kafka")),
    ("output.redis.*", R("ship to Kafka with output.kafka")),
    ("output.file.*", R("ship to Kafka with output.kafka")),
    ("output.console.*", R("ship to Kafka with output.kafka")),
    ("output.discard.*", R("ship to Kafka with output.kafka")),
    ("cloud.*", R("ship to Kafka with output.kafka")),
    ("max_procs", I("one thread reads, librdkafka's threads send")),
    ("queue.*", I(NO_QUEUE)),
    ("queue_size", I(NO_QUEUE)),
    ("bulk_queue_size", I(NO_QUEUE)),
    ("timestamp.precision", I("@timestamp has milliseconds")),
    ("logging.*", I("ELKFK_LOG filters the log")),
    ("setup.*", I(NOT_ELASTIC)),
    ("monitoring.*", I("metrics are Prometheus'")),
    ("http.*", I("metrics are served with the other boxes'")),
    ("instrumentation.*", I("metrics are Prometheus'")),
    ("seccomp.*", I("no system call filter is installed")),
    ("features.*", I("no feature flags")),
    ("management.*", R("there is no central management")),
    ("keystore.*", R("use environment variables")),
    ("elkfk.ignore_unsupported", H),
    ("elkfk.in_flight_bytes", H),
    ("elkfk.open_files", H),
    ("elkfk.partial_timeout", H),
    ("elkfk.linger", H),
];

pub(super) const INPUT: &[Key] = &[
    ("type", H),
    ("id", H),
    ("enabled", H),
    ("paths", H),
    ("exclude_files", H),
    ("include_lines", H),
    ("exclude_lines", H),
    ("encoding", H),
    ("fields.*", H),
    ("fields_under_root", H),
    ("tags", H),
    ("processors", H),
    ("multiline.type", H),
    ("multiline.pattern", H),
    ("multiline.negate", H),
    ("multiline.match", H),
    ("multiline.flush_pattern", H),
    ("multiline.max_lines", H),
    ("multiline.timeout", H),
    ("multiline.count_lines", H),
    ("multiline.skip_newline", H),
    ("parsers", H),
    ("json.message_key", H),
    ("json.keys_under_root", H),
    ("json.overwrite_keys", H),
    ("json.expand_keys", H),
    ("json.add_error_key", H),
    ("json.ignore_decoding_error", H),
    ("json.document_id", R("the _id is the line's place in its file")),
    ("message_max_bytes", H),
    ("max_bytes", H),
    ("line_terminator", H),
    ("ignore_older", H),
    ("ignore_inactive", H),
    ("tail_files", H),
    ("prospector.scanner.check_interval", H),
    ("prospector.scanner.exclude_files", H),
    ("prospector.scanner.include_files", H),
    ("prospector.scanner.symlinks", H),
    ("prospector.scanner.recursive_glob", H),
    ("prospector.scanner.resend_on_touch", R("it sends lines twice")),
    (
        "prospector.scanner.fingerprint.*",
        I("files are told apart by inode, birth time and contents"),
    ),
    ("file_identity.*", I("files are told apart by inode, birth time and contents")),
    ("file_identity", I("files are told apart by inode, birth time and contents")),
    ("rotation.*", I("every kind of rotation is recognised")),
    ("take_over", I("elkfk has a registry of its own")),
    ("take_over.*", I("elkfk has a registry of its own")),
    ("scan_frequency", H),
    ("scan.order", I("files are read in turn")),
    ("scan.sort", I("files are read in turn")),
    ("recursive_glob.enabled", H),
    ("symlinks", H),
    ("close.on_state_change.inactive", H),
    ("close.on_state_change.renamed", H),
    ("close.on_state_change.removed", H),
    ("close.on_state_change.check_interval", I("changes are seen at once")),
    ("close.reader.on_eof", H),
    ("close.reader.after_interval", R("it would leave the end of a file unread")),
    ("close_inactive", H),
    ("close_renamed", H),
    ("close_removed", H),
    ("close_eof", H),
    ("close_timeout", R("it would leave the end of a file unread")),
    ("clean_inactive", I("an entry dies with its file")),
    ("clean_removed", I("an entry dies with its file, two days later")),
    ("clean_on_state_change.*", I("an entry dies with its file")),
    ("backoff", I("inotify wakes the reader")),
    ("backoff.*", I("inotify wakes the reader")),
    ("max_backoff", I("inotify wakes the reader")),
    ("backoff_factor", I("inotify wakes the reader")),
    ("harvester_buffer_size", I("blocks have one size")),
    ("buffer_size", I("blocks have one size")),
    ("harvester_limit", I("open files are bounded by elkfk.open_files")),
    ("compression", H),
    ("gzip_experimental", I("compressed files are recognised")),
    ("delete.*", R("files are never deleted")),
    ("include_file_owner_name", R("the owner is not read")),
    ("include_file_owner_group_name", R("the group is not read")),
    ("keep_null", I("no null is written")),
    ("index", I("the sink names the index")),
    ("pipeline", I("the sink parses")),
    ("publisher_pipeline.disable_host", H),
    ("container.stream", H),
    ("container.format", I("each line shows its format")),
    ("stream", H),
    ("format", I("each line shows its format")),
    ("combine_partial", I("partial lines are always joined")),
    ("allow_deprecated_use", I("type log is read as filestream")),
];

pub(super) const KAFKA: &[Key] = &[
    ("enabled", H),
    ("hosts", H),
    ("topic", H),
    ("topics", R("give one topic, with %{[field]} where it differs")),
    ("key", H),
    ("version", I("the protocol version is negotiated")),
    ("username", H),
    ("password", H),
    ("sasl.mechanism", H),
    ("partition.random.group_events", H),
    ("partition.random.reachable_only", I(ALL_PARTITIONS)),
    ("partition.random", H),
    ("partition.round_robin.group_events", H),
    ("partition.round_robin.reachable_only", I(ALL_PARTITIONS)),
    ("partition.round_robin", H),
    ("partition.hash.hash", H),
    ("partition.hash.random", I("an event without the fields goes where its file's events go")),
    ("partition.hash.reachable_only", I(ALL_PARTITIONS)),
    ("partition.hash", H),
    ("headers", H),
    ("client_id", H),
    ("codec.json.*", I("events are plain JSON")),
    ("codec.format.*", R("the sink reads Filebeat's JSON")),
    ("metadata.*", I("librdkafka refreshes metadata by itself")),
    ("max_retries", I("an event is sent until it is acknowledged")),
    ("backoff.init", H),
    ("backoff.max", H),
    ("bulk_max_size", I("batches are bounded by bytes")),
    ("bulk_flush_frequency", I("elkfk.linger bounds the wait for a batch")),
    ("timeout", H),
    ("broker_timeout", H),
    ("channel_buffer_size", I("elkfk.in_flight_bytes bounds what is in flight")),
    ("keep_alive", H),
    ("compression", H),
    ("compression_level", H),
    ("max_message_bytes", H),
    ("required_acks", I("all in-sync replicas acknowledge: anything less can lose lines")),
    ("worker", I("one producer keeps the order")),
    ("workers", I("one producer keeps the order")),
    ("ssl.enabled", H),
    ("ssl.*", R(NO_TLS)),
    ("kerberos.*", R("Kerberos is not built in")),
    ("queue.*", I(NO_QUEUE)),
];

/// The row for `path`, if it is known.
pub(super) fn find(table: &[Key], path: &str) -> Option<Treatment> {
    let exact = table.iter().find(|(key, _)| *key == path);
    let family = || {
        table.iter().find(|(key, _)| {
            key.strip_suffix(".*").is_some_and(|prefix| {
                path == prefix
                    || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
            })
        })
    };
    exact.or_else(family).map(|(_, treatment)| *treatment)
}

/// Whether keys below `path` have rows of their own.
pub(super) fn is_inner(table: &[Key], path: &str) -> bool {
    table.iter().any(|(key, _)| {
        key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.') && rest != ".*")
    })
}

pub(super) fn names(table: &'static [Key]) -> impl Iterator<Item = &'static str> {
    table.iter().map(|(key, _)| key.trim_end_matches(".*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_row_precedes_its_family() {
        assert_eq!(find(TOP, "path.data"), Some(H));
        assert!(matches!(find(TOP, "path.logs"), Some(I(_))));
        assert!(matches!(find(KAFKA, "ssl.certificate"), Some(R(_))));
        assert_eq!(find(TOP, "filebeat.input"), None);
        assert!(is_inner(TOP, "filebeat") && !is_inner(TOP, "fields"));
    }

    #[test]
    fn the_documentation_names_every_key() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/shipper.md"))
                .expect("docs/shipper.md");
        for (name, table) in [("top", TOP), ("input", INPUT), ("kafka", KAFKA)] {
            for (key, treatment) in table {
                let word = match treatment {
                    H => "honoured",
                    I(_) => "ignored",
                    R(_) => "refused",
                };
                let row =
                    page.lines().find(|line| line.starts_with(&format!("| `{key}` | {word}")));
                assert!(row.is_some(), "{name}: docs/shipper.md lacks | `{key}` | {word}");
            }
        }
    }
}
