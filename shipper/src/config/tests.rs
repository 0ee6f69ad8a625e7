use super::*;

fn parse(text: &str) -> Result<Config, Mistakes> {
    Config::parse("filebeat.yml", text, false, &|_| None)
}

const MINIMAL: &str = "\
filebeat.inputs:
- type: filestream
  id: web
  paths: [/var/log/nginx/*.log]
output.kafka:
  hosts: [\"10.0.0.7:9092\"]
";

/// Adds `input` to the first input and `top` to the end of the smallest file, and shows the mistakes.
fn mistakes(input: &str, top: &str) -> String {
    let text = MINIMAL.replace("output.kafka", &format!("{input}output.kafka")) + top;
    parse(&text).map(|_| String::new()).unwrap_or_else(|mistakes| mistakes.to_string())
}

#[test]
fn the_smallest_file_is_enough() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.output.hosts, ["10.0.0.7:9092"]);
    assert_eq!(config.output.topic.fixed(), Some("logs"));
    assert_eq!(config.inputs[0].id, "web");
    assert_eq!(config.data, Path::new("data/registry"));
    assert!(config.warnings.is_empty());
}

#[test]
fn a_file_of_a_shop_is_understood() {
    let config = parse(
        r#"
filebeat.inputs:
- type: filestream
  id: java
  paths:
    - /var/log/app/**/*.log
  prospector.scanner.exclude_files: ['\.gz$']
  close.on_state_change.inactive: 2m
  fields: {app: shop}
  fields_under_root: false
  tags: [java]
  include_lines: ['^\d']
  parsers:
    - multiline:
        type: pattern
        pattern: '^\['
        negate: true
        match: after
        max_lines: 100
- type: log
  enabled: false
  paths: [/x]
name: web1
tags: [eu]
fields.dc: fra
processors:
  - add_tags: {tags: [seen]}
  - drop_event:
      when.contains.message: healthz
output.kafka:
  hosts: ["a:9092", "b:9092"]
  topic: 'logs-%{[fields.app]}'
  partition.round_robin:
    reachable_only: false
  compression: gzip
  compression_level: 4
  required_acks: 1
  max_message_bytes: 1000000
logging.level: info
"#,
    )
    .unwrap();
    assert_eq!(config.inputs.len(), 1);
    let input = &config.inputs[0];
    assert_eq!(input.tags, ["eu", "java"]);
    assert_eq!(
        Value::Object(input.fields.clone()),
        serde_json::json!({"dc": "fra", "app": "shop"})
    );
    assert_eq!(input.close.inactive, Duration::from_secs(120));
    assert_eq!(input.lines.parsers.multiline.as_ref().unwrap().max_lines, 100);
    assert_eq!(input.processors.len(), 2);
    assert_eq!(config.output.compression, Compression::Gzip);
    assert_eq!(config.output.partition, PartitionChoice::RoundRobin { events: 1 });
    let warnings = config.warnings.join("\n");
    assert!(warnings.contains("required_acks has no effect"), "{warnings}");
    assert!(warnings.contains("filebeat.yml:39: logging has no effect"), "{warnings}");
}

#[test]
fn an_unknown_key_gets_its_line_and_the_nearest_known_one() {
    assert_eq!(
        mistakes("  exclude_file: [x]\n", ""),
        "filebeat.yml:5: unknown key \"exclude_file\", did you mean \"exclude_files\"?"
    );
    assert_eq!(
        mistakes("", "  topci: x\n"),
        "filebeat.yml:7: unknown key \"topci\", did you mean \"topic\"?"
    );
    assert_eq!(
        mistakes("", "filebeat.shutdown_timeot: 1s\n"),
        "filebeat.yml:7: unknown key \"filebeat.shutdown_timeot\", did you mean \"filebeat.shutdown_timeout\"?"
    );
}

#[test]
fn keys_that_are_not_honoured_stop_the_start_all_at_once() {
    let text = mistakes("  close.reader.after_interval: 5m\n", "output.elasticsearch.hosts: [a]\n");
    assert_eq!(
        text,
        "filebeat.yml:5: filebeat.inputs.0.close.reader.after_interval is not supported: it would leave the end of a file unread; remove it or start with --ignore-unsupported\n\
         filebeat.yml:8: output.elasticsearch is not supported: ship to Kafka with output.kafka; the sink feeds Elasticsearch; remove it or start with --ignore-unsupported"
    );
    let with = format!("{MINIMAL}output.elasticsearch.hosts: [a]\n");
    let config = Config::parse("f", &with, true, &|_| None).unwrap();
    assert!(config.warnings[0].contains("f:7: output.elasticsearch has no effect"));
}

#[test]
fn keys_of_parsers_processors_and_headers_are_held_against_theirs() {
    let parser = "  parsers:\n  - multiline: {type: pattern, pattern: x, negat: true}\n";
    assert_eq!(
        mistakes(parser, ""),
        "filebeat.yml:6: unknown key \"negat\", did you mean \"negate\"?"
    );
    let processor = "  processors:\n  - add_tags: {tags: [a], targt: b}\n";
    assert_eq!(
        mistakes(processor, ""),
        "filebeat.yml:6: unknown key \"targt\", did you mean \"target\"?"
    );
    let header = "  headers: [{key: a, valu: b}]\n";
    assert!(mistakes("", header).contains("unknown key \"valu\", did you mean \"value\"?"));
    let ignored = "  processors:\n  - drop_fields: {fields: [a], ignore_missing: true}\n";
    let text = MINIMAL.replace("output.kafka", &format!("{ignored}output.kafka"));
    assert!(parse(&text).unwrap().warnings[0].contains("ignore_missing has no effect"));
}

#[test]
fn an_input_without_id_is_named_by_what_it_reads() {
    let id = |inputs: &str| {
        let text = format!("filebeat.inputs:\n{inputs}output.kafka.hosts: [x]\n");
        parse(&text).unwrap().inputs.into_iter().map(|input| input.id).collect::<Vec<_>>()
    };
    let (a, b) = ("- {type: log, paths: [/a]}\n", "- {type: log, paths: [/b, /c]}\n");
    let (forth, mut back) = (id(&format!("{a}{b}")), id(&format!("{b}{a}")));
    back.reverse();
    assert_eq!(forth, back);
    assert!(forth.iter().all(|id| InputConfig::is_derived(id)), "{forth:?}");
    assert!(InputConfig::is_derived("log-0") && !InputConfig::is_derived("log-web"));
}

#[test]
fn values_that_cannot_be_read_are_named() {
    let text = mistakes("  ignore_older: soon\n  include_lines: ['(']\n", "");
    assert_eq!(
        text,
        "filebeat.yml:5: ignore_older: \"soon\" is not a duration such as 10s\n\
         filebeat.yml:6: include_lines: pattern \"(\": error: unclosed group"
    );
    assert!(mistakes("", "  compression: lz5\n").contains("neither none, gzip"));
    assert!(parse("a: 1\n").unwrap_err().to_string().contains("no output.kafka"));
}
