//! `kafka-get-offsets`.

use elkfk_broker_client::{OffsetAt, TopicPartition};
use regex::Regex;

use super::errors::Exception;
use super::options::{Options, Spec, flag, usage, value};
use super::topics::topic_pattern;
use super::{Failure, block_on, client, sayln};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("bootstrap-server", "host:port,…", "The brokers to ask."),
    value("broker-list", "host:port,…", "The old name of --bootstrap-server."),
    value("topic-partitions", "a:0,b:1-3,c", "Patterns of topics, each with a partition or a range of them."),
    value("topic", "pattern", "The topics; all if left out."),
    value("partitions", "0,1", "The partitions; all if left out."),
    value("time", "when", "A timestamp in ms; -1 or latest, -2 or earliest, -3 or max-timestamp."),
    value("command-config", "file", "Settings of the client."),
    flag("exclude-internal-topics", "Leave out __consumer_offsets and __transaction_state."),
];

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if args.is_empty() {
        return Err(usage(OPTIONS, "An interactive shell for getting topic-partition offsets."));
    }
    let occurred = |e: Exception| Failure::stdout(format!("Error occurred: {}\n", e.message()), 1);
    let options = Options::parse(OPTIONS, args)
        .map_err(|e| Failure::stdout(format!("Error occurred: {}\n", e.message), 1))?;
    options.help_or_version("An interactive shell for getting topic-partition offsets.", false)?;
    let bootstrap = match options.one("bootstrap-server")? {
        Some(bootstrap) => Some(bootstrap),
        None => options.one("broker-list")?,
    };
    let Some(bootstrap) = bootstrap else {
        let message = "Error occurred: Missing required option(s) [bootstrap-server]\n";
        return Err(Failure::stdout(message, 1));
    };
    if options.has("topic-partitions") && (options.has("topic") || options.has("partitions")) {
        let message = "--topic-partitions cannot be used with --topic or --partitions";
        return Err(occurred(Exception::illegal_argument(message)));
    }
    let at = time(options.one("time")?.unwrap_or("latest")).map_err(occurred)?;
    let rules = match options.one("topic-partitions")? {
        Some(rules) => {
            rules.split(',').map(rule).collect::<Result<Vec<_>, _>>().map_err(occurred)?
        }
        None => {
            let topic = topic_pattern(options.one("topic")?.unwrap_or(".*")).map_err(occurred)?;
            let partitions = partitions(options.one("partitions")?).map_err(occurred)?;
            vec![Rule { topic, partitions }]
        }
    };
    let client = client(&options, bootstrap)?;
    block_on(async {
        let cluster = client.metadata(None).await.map_err(|e| occurred(e.into()))?;
        let mut wanted = Vec::new();
        for topic in &cluster.topics {
            if topic.is_internal && options.has("exclude-internal-topics") {
                continue;
            }
            for partition in &topic.partitions {
                if rules.iter().any(|rule| rule.allows(&topic.name, partition.index)) {
                    wanted.push(TopicPartition::new(&topic.name, partition.index));
                }
            }
        }
        if wanted.is_empty() {
            let message = "Could not match any topic-partitions with the specified filters";
            return Err(occurred(Exception::illegal_argument(message)));
        }
        let offsets = client.list_offsets(&wanted, at).await.map_err(|e| occurred(e.into()))?;
        for (place, listed) in offsets {
            let TopicPartition { topic, partition } = place;
            match listed {
                Ok(listed) => {
                    if let Some(offset) = listed.offset {
                        sayln!("{topic}:{partition}:{offset}");
                    }
                }
                Err(refused) => {
                    let cause = Exception::from(&refused);
                    crate::say::asideln!(
                        "Skip getting offsets for topic-partition {topic}:{partition} due to error: {}",
                        cause.message()
                    );
                }
            }
        }
        Ok(())
    })
}

/// Topics by pattern, and which of their partitions.
struct Rule {
    topic: Regex,
    partitions: Partitions,
}

enum Partitions {
    /// All if empty.
    Some(Vec<i32>),
    Range(std::ops::Range<i32>),
}

impl Rule {
    fn allows(&self, topic: &str, partition: i32) -> bool {
        self.topic.is_match(topic)
            && match &self.partitions {
                Partitions::Some(some) => some.is_empty() || some.contains(&partition),
                Partitions::Range(range) => range.contains(&partition),
            }
    }
}

fn time(text: &str) -> Result<OffsetAt, Exception> {
    Ok(match text {
        "latest" | "-1" => OffsetAt::End,
        "earliest" | "-2" => OffsetAt::Start,
        "max-timestamp" | "-3" => OffsetAt::MaxTimestamp,
        _ => OffsetAt::Timestamp(text.parse().map_err(|_| {
            Exception::illegal_argument(format!("Malformed time argument {text}, please use -1 or latest / -2 or earliest / -3 or max-timestamp, or a specified long format timestamp"))
        })?),
    })
}

fn partitions(text: Option<&str>) -> Result<Partitions, Exception> {
    let text = text.unwrap_or_default();
    let numbers = text.split(',').filter(|number| !number.is_empty()).map(str::parse);
    match numbers.collect() {
        Ok(numbers) => Ok(Partitions::Some(numbers)),
        Err(_) => Err(Exception::illegal_argument(format!(
            "--partitions expects a comma separated list of numeric partition ids, but received: {text}"
        ))),
    }
}

/// `topic`, `topic:3`, `topic:1-3`, `:5-`, `topic:-3`; the upper end is left out.
fn rule(text: &str) -> Result<Rule, Exception> {
    let invalid = || Exception::illegal_argument(format!("Invalid rule specification: {text}"));
    let (topic, range) = text.split_once(':').unwrap_or((text, ""));
    let topic = topic_pattern(if topic.is_empty() { ".*" } else { topic })?;
    let number = |text: &str, otherwise| match text {
        "" => Ok(otherwise),
        _ => text.parse().map_err(|_| invalid()),
    };
    let partitions = match range.split_once('-') {
        Some((first, end)) => Partitions::Range(number(first, 0)?..number(end, i32::MAX)?),
        None if range.is_empty() => Partitions::Some(Vec::new()),
        None => Partitions::Some(vec![number(range, 0)?]),
    };
    Ok(Rule { topic, partitions })
}
