//! `kafka-configs`, for topics and brokers.

use elkfk_broker_client::{Client, ConfigEntry, ConfigOp, Resource, ResourceType};

use super::errors::Exception;
use super::options::{Options, Spec, flag, properties_file, value};
use super::{Failure, block_on, client, jvm_order, sayln};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("bootstrap-server", "host:port,…", "The brokers to ask. Required."),
    value("command-config", "file", "Settings of the client."),
    flag("describe", "Show settings."),
    flag("alter", "Change settings."),
    flag("all", "Describe also settings that nobody set."),
    value("entity-type", "topics|brokers", "What has the settings."),
    value("entity-name", "name", "The topic, or the broker's id."),
    flag("entity-default", "The default of all brokers."),
    value("topic", "name", "Short for --entity-type topics --entity-name."),
    value("broker", "id", "Short for --entity-type brokers --entity-name."),
    flag("broker-defaults", "Short for --entity-type brokers --entity-default."),
    value("add-config", "k=v,k=[a,b]", "Settings to set."),
    value("add-config-file", "file", "A file with settings to set."),
    value("delete-config", "k,k", "Settings to take back to their default."),
    value("zookeeper", "host:port,…", "Refused: use --bootstrap-server."),
];

/// How a command ends that does not succeed.
enum Stop {
    /// Only its message is printed.
    Mistake(String),
    /// Printed as an exception of Java, with the command.
    Exception(Exception),
    Failure(Failure),
}

impl<E: Into<Exception>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Exception(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let message =
        |text: String| Failure { stdout: String::new(), stderr: format!("{text}\n"), exit: 1 };
    let options = Options::parse(OPTIONS, args).map_err(|e| message(e.message))?;
    options.help_or_version(
        "This tool helps to manipulate and describe entity config for a topic, client, user, broker or ip",
        args.is_empty(),
    )?;
    let entity = entity(&options).map_err(message)?;
    let client = client(&options, options.one("bootstrap-server")?.unwrap_or_default())?;
    let done = block_on(async {
        let done = match options.has("alter") {
            true => alter(&options, &client, &entity).await,
            false => describe(&options, &client, &entity).await,
        };
        Ok(done)
    })?;
    done.map_err(|stop| match stop {
        Stop::Mistake(text) => message(text),
        Stop::Failure(failure) => failure,
        Stop::Exception(exception) => message(format!(
            "Error while executing config command with args '{}'\njava.util.concurrent.ExecutionException: {exception}\nCaused by: {exception}",
            args.join(" "),
        )),
    })
}

/// Whose settings. No name: all topics, or all brokers.
struct Entity {
    /// `topics` or `brokers`.
    kind: &'static str,
    /// Empty: the default of all brokers.
    name: Option<String>,
}

impl Entity {
    fn resource(&self, name: &str) -> Resource {
        let kind = if self.kind == "topics" { ResourceType::Topic } else { ResourceType::Broker };
        Resource { kind, name: name.to_owned() }
    }

    /// Number of the source that `--describe` shows without `--all`.
    fn dynamic_source(&self, name: &str) -> i8 {
        match (self.kind, name) {
            ("topics", _) => 1,
            (_, "") => 3,
            _ => 2,
        }
    }
}

fn entity(options: &Options) -> Result<Entity, String> {
    let actions = ["alter", "describe"].iter().filter(|action| options.has(action)).count();
    if actions != 1 {
        return Err("Command must include exactly one action: --describe, --alter".to_owned());
    }
    if options.has("zookeeper") && !options.has("bootstrap-server") {
        return Err(
            "--zookeeper is not supported here: use --bootstrap-server HOST:PORT".to_owned()
        );
    }
    if !options.has("bootstrap-server") {
        return Err(
            "One of the required --bootstrap-server or --zookeeper arguments must be specified"
                .to_owned(),
        );
    }
    let one = |name| options.one(name).map_err(|e| e.message);
    let short = [("topic", "topics"), ("broker", "brokers")];
    let mut found = None;
    for (option, kind) in short {
        if let Some(name) = one(option)? {
            found = Some(Entity { kind, name: Some(name.to_owned()) });
        }
    }
    if options.has("broker-defaults") {
        found = Some(Entity { kind: "brokers", name: Some(String::new()) });
    }
    let entity = match (found, one("entity-type")?) {
        (Some(_), Some(_)) => {
            return Err("--entity-{type,name,default} should not be used in conjunction with specific entity flags".to_owned());
        }
        (Some(entity), None) => entity,
        (None, None) => return Err("At least one entity type must be specified".to_owned()),
        (None, Some(kind)) => {
            let kind = match kind {
                "topics" => "topics",
                "brokers" => "brokers",
                "users" | "clients" | "ips" | "broker-loggers" => {
                    return Err(format!(
                        "settings of {kind} are not supported here; topics and brokers are"
                    ));
                }
                _ => {
                    return Err(format!(
                        "Invalid entity type {kind}, the entity type must be one of topics, clients, users, brokers, ips, broker-loggers with the --bootstrap-server argument"
                    ));
                }
            };
            let name = match options.has("entity-default") {
                true => Some(String::new()),
                false => one("entity-name")?.map(str::to_owned),
            };
            Entity { kind, name }
        }
    };
    if entity.kind == "brokers"
        && let Some(name) = &entity.name
        && !name.is_empty()
        && name.parse::<i32>().is_err()
    {
        return Err(format!(
            "The entity name for brokers must be a valid integer broker id, but it is: {name}"
        ));
    }
    if options.has("alter") {
        if entity.name.is_none() {
            return Err(match entity.kind {
                "brokers" => "an entity-name or default entity must be specified with --alter of users, clients, brokers or ips".to_owned(),
                kind => format!("an entity name must be specified with --alter of {kind}"),
            });
        }
        let adding = options.has("add-config") || options.has("add-config-file");
        if options.has("add-config") && options.has("add-config-file") {
            return Err(
                "Only one of --add-config or --add-config-file must be specified".to_owned()
            );
        }
        if !adding && !options.has("delete-config") {
            return Err("At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter".to_owned());
        }
    }
    Ok(entity)
}

async fn describe(options: &Options, client: &Client, entity: &Entity) -> Result<(), Stop> {
    let names = match &entity.name {
        Some(name) => vec![name.clone()],
        None if entity.kind == "topics" => {
            let mut topics = client.metadata(None).await?.topics;
            jvm_order::java_hash_map(&mut topics, 16, |topic| jvm_order::string_hash(&topic.name));
            topics.into_iter().map(|topic| topic.name).collect()
        }
        None => {
            let brokers = client.brokers().await?.brokers;
            let ids = brokers.iter().map(|broker| broker.id.to_string());
            ids.chain([String::new()]).collect()
        }
    };
    let all = options.has("all");
    for name in names {
        if name.is_empty() {
            sayln!("Default configs for {} in the cluster are:", entity.kind);
        } else {
            let kind = entity.kind.trim_end_matches('s');
            sayln!("{} configs for {kind} {name} are:", if all { "All" } else { "Dynamic" });
        }
        for entry in entries(client, entity, &name).await? {
            if !all && entry.source != entity.dynamic_source(&name) {
                continue;
            }
            let synonyms = entry.synonyms.iter().map(|synonym| {
                let value = synonym.value.as_deref().unwrap_or("null");
                format!("{}:{}={value}", ConfigEntry::source_name(synonym.source), synonym.name)
            });
            let synonyms: Vec<String> = synonyms.collect();
            sayln!(
                "  {}={} sensitive={} synonyms={{{}}}",
                entry.name,
                entry.value.as_deref().unwrap_or("null"),
                entry.is_sensitive,
                synonyms.join(", "),
            );
        }
    }
    Ok(())
}

/// All settings of one entity, in the order of the real tool.
async fn entries(client: &Client, entity: &Entity, name: &str) -> Result<Vec<ConfigEntry>, Stop> {
    let described = client.describe_configs(&[entity.resource(name)]).await?;
    let configs = described.into_iter().next().map(|described| described.configs);
    let mut configs = configs.transpose().map_err(|refused| Exception::from(&refused))?;
    let configs = configs.get_or_insert_default();
    jvm_order::java_hash_map(configs, 16, |config| jvm_order::string_hash(&config.name));
    Ok(std::mem::take(configs))
}

async fn alter(options: &Options, client: &Client, entity: &Entity) -> Result<(), Stop> {
    let name = entity.name.as_deref().unwrap_or_default();
    let mut ops = Vec::new();
    let mut added = match options.one("add-config-file")? {
        Some(file) => properties_file(file)?,
        None => Vec::new(),
    };
    if let Some(text) = options.one("add-config")? {
        added.extend(parse_added(text).ok_or(Stop::Mistake(
            "requirement failed: Invalid entity config: all configs to be added must be in the format \"key=val\".".to_owned(),
        ))?);
    }
    ops.extend(added.into_iter().map(|(name, value)| ConfigOp::Set(name, value)));
    let deleted = options.all("delete-config").iter().flat_map(|names| names.split(','));
    let deleted: Vec<String> = deleted.map(|name| name.trim().to_owned()).collect();
    let known = entries(client, entity, name).await?;
    let source = entity.dynamic_source(name);
    let is_set = |name: &&String| known.iter().any(|e| e.name == **name && e.source == source);
    let invalid: Vec<&str> =
        deleted.iter().filter(|name| !is_set(name)).map(String::as_str).collect();
    if !invalid.is_empty() {
        return Err(Stop::Mistake(format!("Invalid config(s): {}", invalid.join(","))));
    }
    ops.extend(deleted.into_iter().map(ConfigOp::Delete));
    let altered = client.alter_configs(&entity.resource(name), &ops).await?;
    altered.map_err(|refused| Exception::from(&refused))?;
    match name {
        "" => sayln!("Completed updating default config for {} in the cluster.", entity.kind),
        _ => sayln!("Completed updating config for {} {name}.", entity.kind.trim_end_matches('s')),
    }
    Ok(())
}

/// `a=1,b=[x,y]`: commas within brackets belong to the value, the brackets do not.
fn parse_added(text: &str) -> Option<Vec<(String, String)>> {
    let mut parts = vec![String::new()];
    let mut depth = 0u32;
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut()?.push(c),
        }
    }
    let pair = |part: &String| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    parts.iter().map(pair).collect()
}

/// What a setting of a topic takes.
enum Kind {
    /// At least that much.
    Int(i32),
    Long(i64),
    AnyLong,
    Boolean,
    Ratio,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Any of these, separated by commas.
    SomeOf(&'static [&'static str]),
    Text,
}

#[rustfmt::skip]
const TOPIC_CONFIGS: &[(&str, Kind)] = &[
    ("segment.bytes", Kind::Int(14)),
    ("segment.ms", Kind::Long(1)),
    ("segment.jitter.ms", Kind::Long(0)),
    ("segment.index.bytes", Kind::Int(4)),
    ("flush.messages", Kind::Long(1)),
    ("flush.ms", Kind::Long(0)),
    ("retention.bytes", Kind::AnyLong),
    ("retention.ms", Kind::Long(-1)),
    ("max.message.bytes", Kind::Int(0)),
    ("index.interval.bytes", Kind::Int(0)),
    ("delete.retention.ms", Kind::Long(0)),
    ("min.compaction.lag.ms", Kind::Long(0)),
    ("max.compaction.lag.ms", Kind::Long(1)),
    ("file.delete.delay.ms", Kind::Long(0)),
    ("min.cleanable.dirty.ratio", Kind::Ratio),
    ("cleanup.policy", Kind::SomeOf(&["compact", "delete"])),
    ("unclean.leader.election.enable", Kind::Boolean),
    ("min.insync.replicas", Kind::Int(1)),
    ("compression.type", Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])),
    ("preallocate", Kind::Boolean),
    ("message.format.version", Kind::Text),
    ("message.timestamp.type", Kind::OneOf(&["CreateTime", "LogAppendTime"])),
    ("message.timestamp.difference.max.ms", Kind::Long(0)),
    ("leader.replication.throttled.replicas", Kind::Text),
    ("follower.replication.throttled.replicas", Kind::Text),
    ("message.downconversion.enable", Kind::Boolean),
];

/// What `kafka-topics` checks before it asks a broker.
///
/// # Errors
///
/// The exception of Kafka's configuration classes.
pub(crate) fn validate_topic_config(name: &str, value: &str) -> Result<(), Exception> {
    let Some((_, kind)) = TOPIC_CONFIGS.iter().find(|(known, _)| *known == name) else {
        let message = format!("Unknown topic config name: {name}");
        return Err(Exception::kafka("InvalidConfigurationException", message));
    };
    let invalid = |why: String| {
        let message = format!("Invalid value {value} for configuration {name}: {why}");
        Err(Exception::new("org.apache.kafka.common.config.ConfigException", message))
    };
    let at_least = |minimum: i64| format!("Value must be at least {minimum}");
    match kind {
        Kind::Int(minimum) => match value.parse::<i32>() {
            Err(_) => invalid("Not a number of type INT".into()),
            Ok(number) if number < *minimum => invalid(at_least((*minimum).into())),
            Ok(_) => Ok(()),
        },
        Kind::Long(minimum) => match value.parse::<i64>() {
            Err(_) => invalid("Not a number of type LONG".into()),
            Ok(number) if number < *minimum => invalid(at_least(*minimum)),
            Ok(_) => Ok(()),
        },
        Kind::AnyLong => match value.parse::<i64>() {
            Err(_) => invalid("Not a number of type LONG".into()),
            Ok(_) => Ok(()),
        },
        Kind::Boolean
            if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") =>
        {
            Ok(())
        }
        Kind::Boolean => invalid("Expected value to be either true or false".into()),
        Kind::Ratio => match value.parse::<f64>() {
            Err(_) => invalid("Not a number of type DOUBLE".into()),
            Ok(ratio) if ratio < 0.0 => invalid(at_least(0)),
            Ok(ratio) if ratio > 1.0 => invalid("Value must be no more than 1".into()),
            Ok(_) => Ok(()),
        },
        Kind::OneOf(known) if known.contains(&value) => Ok(()),
        Kind::OneOf(known) => invalid(format!("String must be one of: {}", known.join(", "))),
        Kind::SomeOf(known) => match value.split(',').map(str::trim).find(|v| !known.contains(v)) {
            None => Ok(()),
            Some(other) => {
                let message = format!(
                    "Invalid value {other} for configuration {name}: String must be one of: {}",
                    known.join(", ")
                );
                Err(Exception::new("org.apache.kafka.common.config.ConfigException", message))
            }
        },
        Kind::Text => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_hold_commas_together() {
        let pairs = |text| {
            parse_added(text).map(|pairs| {
                pairs.into_iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(pairs("a=1,b=[x,y],c=").as_deref(), Some("a:1 b:x,y c:"));
        assert_eq!(pairs("a"), None);
    }

    fn check(name: &str, value: &str, message: &str) {
        let refused = validate_topic_config(name, value).err().map(|e| e.message().to_owned());
        assert_eq!(refused.unwrap_or_default(), message, "{name}={value}");
    }

    #[test]
    fn settings_are_checked_before_a_broker_is_asked() {
        check("retention.ms", "-1", "");
        check(
            "retention.ms",
            "soon",
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        );
        check(
            "min.insync.replicas",
            "0",
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        );
        check("no.such.config", "1", "Unknown topic config name: no.such.config");
        check("cleanup.policy", "compact,delete", "");
    }
}
