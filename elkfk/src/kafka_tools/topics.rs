//! `kafka-topics`.

use std::collections::BTreeSet;

use elkfk_broker_client::{Client, Cluster, NewTopic, Partition, Resource, ResourceConfigs, Topic};
use elkfk_wire::kafka::{ErrorCode, Uuid};
use regex::Regex;

use super::configs::validate_topic_config;
use super::errors::Exception;
use super::options::{Options, Spec, flag, value};
use super::{Failure, block_on, client, jvm_order, log_line, sayln};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("bootstrap-server", "host:port,…", "The brokers to ask. Required."),
    value("command-config", "file", "Settings of the client: client.id, request.timeout.ms."),
    flag("list", "List the topics."),
    flag("create", "Create a topic."),
    flag("delete", "Delete topics."),
    flag("alter", "Add partitions to topics."),
    flag("describe", "Show partitions, leaders and replicas of topics."),
    value("topic", "name", "The topic; except for --create also a regular expression."),
    value("topic-id", "id", "The topic to describe, by its id."),
    value("config", "name=value", "A setting of the topic to create; may be given again."),
    value("delete-config", "name", "Not supported with --bootstrap-server: use kafka-configs."),
    value("partitions", "number", "How many partitions; if left out, the broker's num.partitions."),
    value("replication-factor", "number", "How many replicas; if left out, the broker's default.replication.factor."),
    value("replica-assignment", "1:2,2:3", "The brokers of each partition, the preferred leader first."),
    flag("under-replicated-partitions", "Describe only partitions with replicas missing from the ISR."),
    flag("unavailable-partitions", "Describe only partitions without a leader."),
    flag("under-min-isr-partitions", "Describe only partitions with an ISR below min.insync.replicas."),
    flag("at-min-isr-partitions", "Describe only partitions with an ISR equal to min.insync.replicas."),
    flag("topics-with-overrides", "Describe only topics with settings of their own."),
    flag("if-exists", "Do nothing if the topic does not exist."),
    flag("if-not-exists", "Do nothing if the topic exists."),
    flag("disable-rack-aware", "Accepted; the controller assigns replicas."),
    flag("exclude-internal", "Leave out __consumer_offsets and __transaction_state."),
];

const ACTIONS: [&str; 5] = ["alter", "create", "describe", "list", "delete"];
const REPORTS: [&str; 4] = [
    "under-replicated-partitions",
    "under-min-isr-partitions",
    "at-min-isr-partitions",
    "unavailable-partitions",
];

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let options = Options::parse(OPTIONS, args).map_err(|e| e.uncaught())?;
    check(&options, args)?;
    let bootstrap = options.one("bootstrap-server")?.unwrap_or_default();
    let client = client(&options, bootstrap)?;
    let command = Command { options: &options, client };
    block_on(async {
        let done = match () {
            () if options.has("create") => command.create().await,
            () if options.has("alter") => command.alter().await,
            () if options.has("list") => command.list().await,
            () if options.has("describe") => command.describe().await,
            () => command.delete().await,
        };
        done.map_err(|stop| match stop {
            Stop::Exception(exception) => {
                sayln!("Error while executing topic command : {}", exception.message());
                log_line("ERROR", &format!("{exception}\n"), "kafka.admin.TopicCommand$");
                Failure::stdout("", 1)
            }
            Stop::Usage(failure) => failure,
        })
    })
}

/// Why a command stops: what the real tool catches and reports, or a mistake on the command line.
enum Stop {
    Exception(Exception),
    Usage(Failure),
}

impl<E: Into<Exception>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Exception(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Usage(failure)
    }
}

/// The combinations that make no sense, refused in the order in which Kafka looks at them.
fn check(options: &Options, args: &[String]) -> Result<(), Failure> {
    if args.is_empty() {
        return Err(options.usage("Create, delete, describe, or change a topic."));
    }
    options.help_or_version(
        "This tool helps to create, delete, describe, or change a topic.",
        false,
    )?;
    if ACTIONS.iter().filter(|action| options.has(action)).count() != 1 {
        return Err(options.usage(
            "Command must include exactly one action: --list, --describe, --create, --alter or --delete",
        ));
    }
    if !options.has("bootstrap-server") {
        let message = "--bootstrap-server must be specified";
        return Err(Failure::uncaught("java.lang.IllegalArgumentException", message));
    }
    if options.has("describe") && options.has("if-exists") {
        if !options.has("topic") && !options.has("topic-id") {
            return Err(options.usage("--topic or --topic-id is required to describe a topic"));
        }
        if options.has("topic") && options.has("topic-id") {
            sayln!(
                "Only topic id will be used when both --topic and --topic-id are specified and topicId is not Uuid.ZERO_UUID"
            );
        }
    }
    if !options.has("list") && !options.has("describe") {
        options.require("topic")?;
    }
    if options.has("alter") {
        if options.has("config") {
            return Err(options.usage(
                "Option combination \"[bootstrap-server],[config]\" can't be used with option \"[alter]\" (the kafka-configs CLI supports altering topic configs with a --bootstrap-server option)",
            ));
        }
        options.require("partitions")?;
    }
    let except = |allowed: &[&str]| -> Vec<&str> {
        ACTIONS.into_iter().filter(|action| !allowed.contains(action)).collect()
    };
    options.exclude("config", &except(&["alter", "create"]))?;
    options.exclude("delete-config", &[&except(&["alter"])[..], &["bootstrap-server"]].concat())?;
    options.exclude("partitions", &except(&["alter", "create"]))?;
    options.exclude("replication-factor", &except(&["create"]))?;
    options.exclude("replica-assignment", &except(&["create", "alter"]))?;
    if options.has("create") {
        options.exclude("replica-assignment", &["partitions", "replication-factor"])?;
    }
    for report in REPORTS {
        let mut others = except(&["describe"]);
        others.extend(REPORTS.into_iter().filter(|other| *other != report));
        others.push("topics-with-overrides");
        options.exclude(report, &others)?;
    }
    options.exclude("topics-with-overrides", &[&except(&["describe"])[..], &REPORTS].concat())?;
    options.exclude("if-exists", &except(&["alter", "delete", "describe"]))?;
    options.exclude("if-not-exists", &except(&["create"]))?;
    options.exclude("exclude-internal", &except(&["list", "describe"]))
}

struct Command<'o> {
    options: &'o Options,
    client: Client,
}

impl Command<'_> {
    async fn create(&self) -> Result<(), Stop> {
        let name = self.options.one("topic")?.unwrap_or_default();
        let partitions = self.options.number::<i32>("partitions")?;
        let factor = self.options.number::<i32>("replication-factor")?;
        let replicas = self.assignment()?;
        let configs = self.configs()?;
        if name.contains(['.', '_']) {
            sayln!(
                "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. To avoid issues it is best to use either, but not both."
            );
        }
        if factor.is_some_and(|factor| !(1..=i32::from(i16::MAX)).contains(&factor)) {
            let message = "The replication factor must be between 1 and 32767 inclusive";
            return Err(Exception::illegal_argument(message).into());
        }
        if partitions.is_some_and(|partitions| partitions < 1) {
            return Err(Exception::illegal_argument("The partitions must be greater than 0").into());
        }
        let topic = NewTopic {
            name: name.to_owned(),
            partitions,
            replication_factor: factor.and_then(|factor| i16::try_from(factor).ok()),
            replicas,
            configs,
        };
        match self.client.create_topic(&topic, false).await? {
            Ok(()) => {
                self.client.settle_topic(name, Topic::is_served).await;
                sayln!("Created topic {name}.");
            }
            Err(refused)
                if refused.code == ErrorCode::TOPIC_ALREADY_EXISTS
                    && self.options.has("if-not-exists") => {}
            Err(refused) => return Err(Exception::from(&refused).into()),
        }
        Ok(())
    }

    async fn list(&self) -> Result<(), Stop> {
        let cluster = self.client.metadata(None).await?;
        sayln!("{}", self.matching(&cluster)?.join("\n"));
        Ok(())
    }

    async fn alter(&self) -> Result<(), Stop> {
        let total = self.options.number::<i32>("partitions")?.unwrap_or_default();
        let assignment = self.assignment()?;
        let cluster = self.client.metadata(None).await?;
        let topics = self.existing(&cluster)?;
        for name in topics {
            let known = cluster.topic(&name).map_or(0, |topic| topic.partitions.len());
            let added =
                (!assignment.is_empty()).then(|| assignment.get(known..).unwrap_or_default());
            let grown = self.client.create_partitions(&name, total, added).await?;
            grown.map_err(|refused| Exception::from(&refused))?;
            let wanted = usize::try_from(total).unwrap_or_default();
            let is_grown = |topic: &Topic| topic.is_served() && topic.partitions.len() == wanted;
            self.client.settle_topic(&name, is_grown).await;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<(), Stop> {
        let cluster = self.client.metadata(None).await?;
        let topics = self.existing(&cluster)?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        for (name, deleted) in self.client.delete_topics(&names).await? {
            deleted.map_err(|refused| Exception::from(&refused))?;
            let is_gone = |topic: &Topic| topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            self.client.settle_topic(&name, is_gone).await;
        }
        Ok(())
    }

    async fn describe(&self) -> Result<(), Stop> {
        let id = self.options.one("topic-id")?;
        let id = id.map(|text| {
            Uuid::parse(text).ok_or_else(|| {
                let message = format!("Input string `{text}` decoded as 0 bytes, which is not equal to the expected 16 bytes of a base64-encoded UUID");
                Exception::illegal_argument(message)
            })
        });
        let id = id.transpose()?.filter(|id| *id != Uuid::ZERO);
        let cluster = self.client.metadata(None).await?;
        let mut topics: Vec<&Topic> = match id {
            Some(id) => {
                let found: Vec<_> = cluster.topics.iter().filter(|topic| topic.id == id).collect();
                if found.is_empty() && !self.options.has("if-exists") {
                    let message = format!("TopicId '{id}' does not exist as expected");
                    return Err(Exception::illegal_argument(message).into());
                }
                found
            }
            None => {
                let names = self.existing(&cluster)?;
                names.iter().filter_map(|name| cluster.topic(name)).collect()
            }
        };
        let count = topics.len();
        jvm_order::java_hash_map(&mut topics, count, |topic| jvm_order::string_hash(&topic.name));
        let resources: Vec<_> = topics.iter().map(|topic| Resource::topic(&topic.name)).collect();
        let configs = self.client.describe_configs(&resources).await?;
        let live: BTreeSet<i32> = cluster.brokers.iter().map(|broker| broker.id).collect();
        for (topic, configs) in topics.into_iter().zip(configs) {
            self.describe_one(topic, configs, &live)?;
        }
        Ok(())
    }

    fn describe_one(
        &self,
        topic: &Topic,
        configs: ResourceConfigs,
        live: &BTreeSet<i32>,
    ) -> Result<(), Stop> {
        let mut configs = configs.configs.map_err(|refused| Exception::from(&refused))?;
        jvm_order::java_hash_map(&mut configs, 16, |config| jvm_order::string_hash(&config.name));
        let is_report = REPORTS.iter().any(|report| self.options.has(report));
        // Source 5: nobody set it.
        let own: Vec<String> = configs
            .iter()
            .filter(|config| config.source != 5)
            .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("null")))
            .collect();
        let only_overridden = self.options.has("topics-with-overrides");
        if !is_report && (!only_overridden || !own.is_empty()) {
            let id = if topic.id == Uuid::ZERO {
                String::new()
            } else {
                format!("\tTopicId: {}", topic.id)
            };
            let factor = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
            sayln!(
                "Topic: {}{id}\tPartitionCount: {}\tReplicationFactor: {factor}\tConfigs: {}",
                topic.name,
                topic.partitions.len(),
                own.join(","),
            );
        }
        if only_overridden {
            return Ok(());
        }
        let min_isr = configs.iter().find(|config| config.name == "min.insync.replicas");
        let min_isr = min_isr.and_then(|config| config.value.as_deref()?.parse::<usize>().ok());
        for partition in &topic.partitions {
            if !is_report || self.is_reported(partition, min_isr, live) {
                let ids =
                    |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
                sayln!(
                    "\tTopic: {}\tPartition: {}\tLeader: {}\tReplicas: {}\tIsr: {}",
                    topic.name,
                    partition.index,
                    partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                    ids(&partition.replicas),
                    ids(&partition.isr),
                );
            }
        }
        Ok(())
    }

    fn is_reported(
        &self,
        partition: &Partition,
        min_isr: Option<usize>,
        live: &BTreeSet<i32>,
    ) -> bool {
        let isr = partition.isr.len();
        let is_led = partition.leader.is_some();
        match () {
            () if self.options.has("under-replicated-partitions") => partition.replicas.len() > isr,
            () if self.options.has("unavailable-partitions") => {
                !partition.leader.is_some_and(|leader| live.contains(&leader))
            }
            () if self.options.has("under-min-isr-partitions") => {
                !is_led || min_isr.is_some_and(|min| isr < min)
            }
            () => min_isr == Some(isr),
        }
    }

    /// Names of the topics that `--topic` matches, ascending; all without it.
    fn matching(&self, cluster: &Cluster) -> Result<Vec<String>, Stop> {
        let pattern = self.options.one("topic")?.map(topic_pattern).transpose()?;
        let exclude_internal = self.options.has("exclude-internal");
        let names = cluster.topics.iter().filter(|topic| !(exclude_internal && topic.is_internal));
        let names = names.map(|topic| topic.name.clone());
        let names = names.filter(|name| pattern.as_ref().is_none_or(|p| p.is_match(name)));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    /// As `matching`, but a topic that was named must be there, unless `--if-exists`.
    fn existing(&self, cluster: &Cluster) -> Result<Vec<String>, Stop> {
        let names = self.matching(cluster)?;
        match self.options.one("topic")? {
            Some(topic) if names.is_empty() && !self.options.has("if-exists") => {
                let message = format!("Topic '{topic}' does not exist as expected");
                Err(Exception::illegal_argument(message).into())
            }
            _ => Ok(names),
        }
    }

    /// `--replica-assignment 1:2,2:3`, by partition.
    fn assignment(&self) -> Result<Vec<Vec<i32>>, Stop> {
        let text = self.options.one("replica-assignment")?.unwrap_or_default();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut partitions: Vec<Vec<i32>> = Vec::new();
        for (index, part) in text.split(',').enumerate() {
            let mut brokers = Vec::new();
            for id in part.split(':') {
                let id: i32 = id.trim().parse().map_err(|_| {
                    let message = format!("For input string: \"{}\"", id.trim());
                    Exception::new("java.lang.NumberFormatException", message)
                })?;
                if brokers.contains(&id) {
                    let message =
                        format!("Partition replica lists may not contain duplicate entries: {id}");
                    return Err(Exception::new(
                        "kafka.common.AdminCommandFailedException",
                        message,
                    )
                    .into());
                }
                brokers.push(id);
            }
            if partitions.first().is_some_and(|first| first.len() != brokers.len()) {
                let ids: Vec<_> = brokers.iter().map(i32::to_string).collect();
                let message = format!(
                    "Partition {index} has different replication factor: {}",
                    ids.join(",")
                );
                return Err(Exception::new("kafka.admin.AdminOperationException", message).into());
            }
            partitions.push(brokers);
        }
        Ok(partitions)
    }

    /// `--config name=value`, checked as the real tool does before it asks anyone.
    fn configs(&self) -> Result<Vec<(String, String)>, Stop> {
        let mut configs: Vec<(String, String)> = Vec::new();
        for config in self.options.all("config") {
            let parts: Vec<&str> = config.split('=').map(str::trim).collect();
            let [name, value] = parts[..] else {
                let message = "requirement failed: Invalid topic config: all configs to be added must be in the format \"key=val\".";
                return Err(Exception::illegal_argument(message).into());
            };
            configs.retain(|(known, _)| known != name);
            configs.push((name.to_owned(), value.to_owned()));
        }
        for (name, value) in &configs {
            validate_topic_config(name, value)?;
        }
        Ok(configs)
    }
}

/// `--topic` as a pattern over whole names: commas separate alternatives, quotes do not count.
pub(crate) fn topic_pattern(text: &str) -> Result<Regex, Exception> {
    let text = text.trim().replace(',', "|").replace(' ', "");
    let text = text.trim_matches(['"', '\'']);
    Regex::new(&format!("^(?:{text})$")).map_err(|_| {
        Exception::new("java.lang.RuntimeException", format!("{text} is an invalid regex."))
    })
}
