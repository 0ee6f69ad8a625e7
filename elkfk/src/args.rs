//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use crate::coordinator::args::Coordinator;
pub(crate) use crate::znode::args::Znode;

/// One binary for the way a log line takes: files → topics → index → page.
#[derive(Debug, Parser)]
#[command(name = "elkfk", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str =
    "Kafka's tools stand under their own names and flags, and by a link of that name:
  elkfk kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --list
  kafka-console-producer.sh, kafka-console-consumer.sh, kafka-consumer-groups.sh, …

The program's own log goes to standard error; ELKFK_LOG sets its level (ELKFK_LOG=debug).
Exit status: 0 done; 1 ran, and the answer is no; 2 could not run.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs every box in this process: tails files, keeps topics, parses, indexes, shows the page
    Up(Up),
    /// Writes configuration files with the defaults in force, each line explained
    Init(Init),
    /// Reads configuration files and names every mistake; runs the sample.log beside a pipeline
    Check(Check),
    /// Prints what is in force for a box: key, value, and the line it came from
    Config(Config),
    /// Runs the shipper alone: filebeat.yml
    Shipper(Shipper),
    /// Runs the broker alone: server.properties
    Broker(Broker),
    /// Runs the coordinator alone: zoo.cfg; asks servers for their status; imports a ZooKeeper's data
    Coordinator(Coordinator),
    /// Looks at and changes znodes, of our coordinator or of a ZooKeeper
    Znode(Znode),
    /// Runs the sink alone: Logstash pipelines
    Sink(Sink),
    /// Runs the store alone
    Store(Store),
    /// Serves the page alone
    Dashboard(Dashboard),
    /// How far the consumer groups of a cluster are behind, ours or a real Kafka's
    Lag(Lag),
    /// The same in the terminal, as it changes
    Top(Top),
    /// What would be done about a backlog, and why
    Autoscale(Autoscale),
    /// Sends the records of a dead-letter topic to their topic again
    Replay(Replay),
    /// Asks running boxes whether they are well; without a flag, those of `elkfk up`
    Healthcheck(Healthcheck),
    /// One of Kafka's tools
    #[command(external_subcommand)]
    Tool(Vec<OsString>),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Files to tail, as globs; `**` crosses directories [default: /var/log/**]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub(crate) watch: Vec<String>,
    /// Where everything is kept [default: DIR/data of --config, else $XDG_DATA_HOME/elkfk or ~/.local/share/elkfk]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Also writes a realistic log to follow
    #[arg(long)]
    pub(crate) demo: bool,
    /// Reads zoo.cfg, server.properties, filebeat.yml and pipelines/ from here, those that exist; a flag
    /// wins over a file, or is refused where it cannot
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// Uses this Kafka instead of an own broker
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bootstrap_server: Option<String>,
    /// Uses this ZooKeeper instead of an own coordinator
    #[arg(long, value_name = "HOST:PORT[/PATH]", conflicts_with = "bootstrap_server")]
    pub(crate) zookeeper: Option<String>,
    /// Uses this Elasticsearch or OpenSearch instead of an own store
    #[arg(long, value_name = "URL")]
    pub(crate) elasticsearch: Option<String>,
    /// The topic between shipper and sink; created with 3 partitions where it does not exist [default: logs]
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// Days a daily index of the store is kept, counted from its day [default: for ever]
    #[arg(long, value_name = "DAYS")]
    pub(crate) retention_days: Option<u32>,
    /// The address every box listens on [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Option<IpAddr>,
    /// 0 takes any free port, here and below [default: 2181]
    #[arg(long, value_name = "PORT")]
    pub(crate) coordinator_port: Option<u16>,
    /// [default: 9092]
    #[arg(long, value_name = "PORT")]
    pub(crate) broker_port: Option<u16>,
    #[arg(long, value_name = "PORT", default_value_t = 9200)]
    pub(crate) store_port: u16,
    #[arg(long, value_name = "PORT", default_value_t = 5601)]
    pub(crate) dashboard_port: u16,
    /// Where people find the dashboard, for the links of alerts [default: where it was when a rule was last
    /// saved, or where it listens]
    #[arg(long, value_name = "URL", value_parser = page_url)]
    pub(crate) external_url: Option<String>,
    /// What to do about a backlog, consumers of the sink first, then partitions of its topics: nothing (off),
    /// say what would help (advise) or do it (auto) [default: advise]
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub(crate) autoscale: Option<Mode>,
    /// Partitions that a topic may get thereby [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions_max: Option<u32>,
    /// Consumers that the sink may get thereby [default: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) consumers_max: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Created where missing; files that exist are left alone
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// zoo.cfg, server.properties (*.properties), filebeat.yml (*.yml), pipelines (*.conf, or a directory of
    /// them), or a directory that holds any of these, such as that of `init`
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Whose configuration the file is
    #[arg(value_enum, value_name = "BOX")]
    pub(crate) of: Of,
    /// server.properties, zoo.cfg or filebeat.yml
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Prints a list of objects with the keys key, value and origin
    #[arg(long)]
    pub(crate) json: bool,
}

/// A box with a configuration file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Of {
    Broker,
    Coordinator,
    Shipper,
}

#[derive(Debug, Args)]
pub(crate) struct Shipper {
    /// filebeat.yml
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "filebeat.yml")]
    pub(crate) config: PathBuf,
    /// Goes on although keys that are known but not honoured are set
    #[arg(long)]
    pub(crate) ignore_unsupported: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Broker {
    /// server.properties
    #[arg(value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Overrides one key of the file
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Sink {
    /// Pipeline files, or directories of *.conf and */pipeline.conf
    #[arg(short = 'f', long = "config", value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) config: Vec<PathBuf>,
    /// Pipeline workers [default: the number of cores]
    #[arg(short = 'w', long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// How many workers there may become by the API
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) workers_max: usize,
    /// How many consumers each input may get by the API
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) consumers_max: usize,
    /// Whether Logstash's HTTP API is served: figures, and a change of workers and consumers
    #[arg(long = "api.enabled", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) api_enabled: bool,
    /// Where the API listens; it asks for no password
    #[arg(long = "api.http.host", value_name = "HOST", default_value = "127.0.0.1")]
    pub(crate) api_http_host: String,
    /// Its port, or a range of which the first free one is taken; 0 takes any
    #[arg(long = "api.http.port", value_name = "PORT[-PORT]", default_value = "9600-9700", value_parser = ports)]
    pub(crate) api_http_port: (u16, u16),
}

/// `9600` or `9600-9700`: the first and the last.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        text.trim().parse::<u16>().map_err(|_| format!("\"{text}\" is no port (0 to 65535)"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    match first > last {
        true => Err(format!("{first} is above {last}; give the lower port first")),
        false => Ok((first, last)),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Store {
    /// Where the indices are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9200")]
    pub(crate) listen: SocketAddr,
    /// Days a daily index is kept, counted from its day [default: for ever]
    #[arg(long, value_name = "DAYS")]
    pub(crate) retention_days: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Dashboard {
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5601")]
    pub(crate) listen: SocketAddr,
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9200")]
    pub(crate) elasticsearch: String,
    /// The indices that Discover searches
    #[arg(long, value_name = "PATTERN", default_value = "logs-*")]
    pub(crate) index: String,
    /// Keeps history and alert rules there [default: in memory only]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The coordinator, ours or a ZooKeeper, that Ensemble shows
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) zookeeper: Option<String>,
    /// The API of a sink that Overview shows; may be given more than once
    #[arg(long, value_name = "URL")]
    pub(crate) sink: Vec<String>,
    /// Where the autoscaler writes its decisions
    #[arg(long, value_name = "NAME", default_value = "elkfk-autoscaler")]
    pub(crate) decisions_topic: String,
    /// Where people find the page, for the links of alerts [default: where it was when a rule was last saved, or
    /// where it listens]
    #[arg(long, value_name = "URL", value_parser = page_url)]
    pub(crate) external_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Lag {
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,
    /// This group only; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<String>,
    /// This topic only; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Vec<String>,
    /// A row for each partition instead of one for each topic
    #[arg(long)]
    pub(crate) partitions: bool,
    /// Prints again and again, every SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    pub(crate) watch: Option<f64>,
    /// One JSON document a measurement, with everything that is known
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,
}

#[derive(Debug, Args)]
pub(crate) struct Autoscale {
    #[command(subcommand)]
    pub(crate) command: AutoscaleCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AutoscaleCommand {
    /// Watches a cluster and its sinks, and acts on them or says what it would do
    Run(Autoscaler),
    /// What was decided last, for each group and topic, and what became of the last step
    Status(AutoscaleStatus),
    /// What was decided when, and why
    Log(AutoscaleLog),
    /// The last decision about a topic, rung by rung
    Explain(Explain),
    /// Runs the ladder on a model of a cluster in virtual time, with simpler rules beside it
    Simulate(Simulate),
}

/// What the ladder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Off,
    Advise,
    Auto,
}

#[derive(Debug, Args)]
pub(crate) struct Autoscaler {
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,
    /// The coordinator, ours or a ZooKeeper, that lets one instance decide [default: this is the only one]
    #[arg(long, value_name = "HOST:PORT[/PATH]")]
    pub(crate) zookeeper: Option<String>,
    /// The API of each sink; without one, consumers can only be spoken of
    #[arg(long = "sink", value_name = "URL", num_args = 1..)]
    pub(crate) sinks: Vec<String>,
    /// Consumer groups to watch [default: those that the sinks name]
    #[arg(long = "group", value_name = "NAME", num_args = 1..)]
    pub(crate) groups: Vec<String>,
    /// Topics to watch [default: those that the sinks name or the groups read]
    #[arg(long = "topic", value_name = "NAME", num_args = 1..)]
    pub(crate) topics: Vec<String>,
    /// Nothing (off), say what would help (advise) or do it (auto) [default: advise]
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = true)]
    pub(crate) mode: Option<Mode>,
    /// Partitions that a topic may get [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions_max: Option<u32>,
    /// Consumers that a group may get [default: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) consumers_max: Option<u32>,
    /// More parameters, also of single topics, as JSON; see docs/autoscaler.md
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// Where the decisions are written
    #[arg(long, value_name = "NAME", default_value = elkfk_autoscaler::shell::DECISIONS_TOPIC)]
    pub(crate) decisions_topic: String,
    /// Also writes every observation to this file, for `elkfk autoscale simulate`
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

/// Whose decisions are read.
#[derive(Debug, Args)]
pub(crate) struct DecisionsOf {
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,
    #[arg(long, value_name = "NAME", default_value = elkfk_autoscaler::shell::DECISIONS_TOPIC)]
    pub(crate) decisions_topic: String,
    /// This group only
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AutoscaleStatus {
    #[command(flatten)]
    pub(crate) of: DecisionsOf,
    /// One JSON document for each group and topic
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AutoscaleLog {
    #[command(flatten)]
    pub(crate) of: DecisionsOf,
    /// This topic only
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// Only steps, taken or advised, and their effects
    #[arg(long)]
    pub(crate) acted: bool,
    /// Goes on with what is decided from now on
    #[arg(long)]
    pub(crate) follow: bool,
    /// The events as they are in the topic, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// The last N of them
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub(crate) lines: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The topic that was decided about
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) of: DecisionsOf,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Scenarios by name, traces as JSON files, or recordings: files of `run --record` or `log --json`; see
    /// docs/autoscaler.md [default: every scenario]
    #[arg(value_name = "SCENARIO|FILE")]
    pub(crate) traces: Vec<String>,
    /// Parameters to decide by, as JSON; mode is auto
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// The rule that decides: ladder, naive or keda [default: all three]
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Also prints what the ladder decided, when and why
    #[arg(long)]
    pub(crate) log: bool,
    /// One JSON document a run, instead of the table
    #[arg(long, conflicts_with = "log")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The topic that was consumed, such as logs; its dead letters are in logs.dead
    pub(crate) topic: String,
    /// Sends all letters still in the topic, those replayed before too
    #[arg(long)]
    pub(crate) from_beginning: bool,
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap_server: String,
}

#[derive(Debug, Args)]
pub(crate) struct Healthcheck {
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) coordinator: Option<String>,
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bootstrap_server: Option<String>,
    #[arg(long, value_name = "URL")]
    pub(crate) elasticsearch: Option<String>,
    #[arg(long, value_name = "URL")]
    pub(crate) dashboard: Option<String>,
}

/// Where a page is: no more is known of it here.
fn page_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() && !text.contains(char::is_whitespace) => Ok(text.into()),
        _ => Err("give http://host:port or https://host/path".into()),
    }
}

/// A time between two measurements.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_page_is_http_or_https() {
        for url in ["http://logs:5601", "https://logs.shop/kibana/"] {
            assert_eq!(page_url(url), Ok(url.to_owned()));
        }
        for text in ["", "logs:5601", "http://", "ftp://logs", "http://a b"] {
            assert!(page_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_or_a_range_of_ports_is_read() {
        assert_eq!(ports("9600-9700"), Ok((9600, 9700)));
        assert_eq!(ports("0"), Ok((0, 0)));
        for (text, wanted) in [
            ("9700-9600", "9700 is above 9600"),
            ("http", "\"http\" is no port"),
            ("9600-", "\"\" is no port"),
            ("70000", "\"70000\" is no port"),
        ] {
            let error = ports(text).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
