//! `server.properties` → a checked [`Config`].
//!
//! Every key of Kafka 3.4.1 is known by name (`keys.rs`): honoured, ignored with a warning, or
//! refused. Kafka overlooks a key it does not know; here one that is nearly a known key stops the
//! start, because it is a slip, and any other is warned about, because it belongs to some plugin.

mod keys;
mod log;
mod properties;
mod topic;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use elkfk_base::mistakes::nearest;
use elkfk_base::{Mistake, Mistakes};

pub(crate) use keys::{DYNAMIC, Range};
pub use keys::{KEYS, Key, Kind, Status, find as find_key};
pub(crate) use log::log_config;
pub use topic::{TOPIC_KEYS, TopicKey};
pub(crate) use topic::{
    TopicConfigError, find as find_topic_key, topic_setting, validate_topic_config,
};

/// Where a broker listens, or tells clients that it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `PLAINTEXT`, or a name that `listener.security.protocol.map` maps to it.
    pub name: String,
    /// Empty: every interface.
    pub host: String,
    /// 0: any free port.
    pub port: u16,
}

/// What an acknowledgement with acks=all stands for at replication factor 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On disk: one fdatasync covers all requests that wait.
    #[default]
    Group,
    /// In the page cache: survives the process, not the machine. Kafka's own promise.
    Kafka,
    /// On disk before anyone, acks=1 included, hears of it.
    Always,
}

/// The broker's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// -1: taken from `meta.properties`, else generated as Kafka does.
    pub broker_id: i32,
    pub listeners: Vec<Listener>,
    /// Empty: each client is told the address it connected to.
    pub advertised_listeners: Vec<Listener>,
    pub rack: Option<String>,
    /// Never empty.
    pub log_dirs: Vec<PathBuf>,
    /// `host:port,…` with an optional chroot at its end.
    pub zookeeper_connect: String,
    pub zookeeper_session_timeout: Duration,
    pub zookeeper_connection_timeout: Duration,
    pub durability: Durability,
    /// Frames above this are refused before a byte of them is kept.
    pub request_bytes_max: usize,
    /// Bytes of requests being read or answered, over all connections.
    pub request_memory_bytes: usize,
    /// Requests being begun at once, over all connections.
    pub queued_requests_max: usize,
    pub listen_backlog: u32,
    pub connection_idle_max: Duration,
    pub connections_max: usize,
    pub connections_per_ip_max: usize,
    /// Limits for single addresses, over `connections_per_ip_max`.
    pub connections_per_ip_overrides: BTreeMap<String, usize>,
    pub fetch_bytes_max: usize,
    pub auto_create_topics: bool,
    /// Names that may be created by merely being asked for; `*` matches any run of characters.
    pub auto_create_patterns: Vec<String>,
    /// No topic is auto-created once this many exist.
    pub auto_create_topics_max: usize,
    pub delete_topics: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub group_session_timeout_min: Duration,
    pub group_session_timeout_max: Duration,
    pub group_initial_rebalance_delay: Duration,
    pub group_members_max: usize,
    pub offsets_partitions: i32,
    pub offsets_replication_factor: i16,
    pub offsets_segment_bytes: i32,
    pub offsets_retention: Duration,
    pub offsets_retention_check: Duration,
    pub offset_metadata_bytes_max: usize,
    pub retention_check: Duration,
    /// Highest broker id that may be given by hand; generated ids lie above.
    pub reserved_broker_id_max: i32,
    /// What was read and is not honoured, for the start to log.
    pub warnings: Mistakes,
    /// Values given, by key; everything else is at its default.
    given: BTreeMap<String, String>,
}

impl Default for Config {
    /// Kafka's defaults, on the loopback interface, with ZooKeeper at 127.0.0.1:2181.
    fn default() -> Self {
        Self::from_pairs([("zookeeper.connect", "127.0.0.1:2181")]).expect("defaults are valid")
    }
}

impl Config {
    /// The broker inside `elkfk up`: id 0, one replica of everything, data in `data`.
    ///
    /// # Errors
    /// When an address cannot be read.
    pub fn embedded(data: &Path, listen: &str, zookeeper: &str) -> Result<Self, Mistakes> {
        let listeners = format!("PLAINTEXT://{listen}");
        let config = Self::from_pairs([
            ("broker.id", "0"),
            ("listeners", listeners.as_str()),
            ("zookeeper.connect", zookeeper),
            ("offsets.topic.replication.factor", "1"),
            // The first consumer of a new installation should not wait for companions.
            ("group.initial.rebalance.delay.ms", "0"),
            // One host, one disk: ten partitions of offsets are nine more than its groups need.
            ("offsets.topic.num.partitions", "10"),
        ])?;
        // Not through the list of `log.dirs`: a path may have a comma in it.
        Ok(Self { log_dirs: vec![data.to_owned()], ..config })
    }

    /// Reads a `server.properties` file; `overrides` (`key=value`, as `--override`) win over it.
    ///
    /// # Errors
    /// All mistakes of the file at once.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|error| {
            Mistakes(vec![Mistake::new(
                &name,
                0,
                0,
                format!("{error}; give the path of a server.properties file"),
            )])
        })?;
        Self::from_text(&name, &String::from_utf8_lossy(&text), overrides)
    }

    /// As [`Config::read`], from text that `file` names in mistakes.
    ///
    /// # Errors
    /// All mistakes of the text at once.
    pub fn from_text(file: &str, text: &str, overrides: &[String]) -> Result<Self, Mistakes> {
        let mut properties: Vec<(String, properties::Property)> = properties::parse(text)
            .into_iter()
            .map(|property| (file.to_owned(), property))
            .collect();
        for text in overrides {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let property = properties::Property {
                line: 0,
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            };
            properties.push(("--override".to_owned(), property));
        }
        Reader::new(file, properties).read()
    }

    /// From keys and values without a file.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Mistakes> {
        let properties = pairs
            .into_iter()
            .map(|(key, value)| {
                let (key, value) = (key.to_owned(), value.to_owned());
                ("configuration".to_owned(), properties::Property { line: 0, key, value })
            })
            .collect();
        Reader::new("configuration", properties).read()
    }

    /// The value given for `key`, if any was.
    pub fn given(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(String::as_str)
    }

    /// The value in force for `key`: the one given, else Kafka's default.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.given(key).or_else(|| find_key(key).and_then(|key| key.default))
    }

    /// The number in force for `key`. Values were checked when they were read.
    pub(crate) fn number(&self, key: &str) -> i64 {
        self.value(key).and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

/// Gathers mistakes while keys become fields.
struct Reader<'a> {
    file: &'a str,
    given: BTreeMap<String, (String, usize, String)>,
    mistakes: Mistakes,
    warnings: Mistakes,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, properties: Vec<(String, properties::Property)>) -> Self {
        let mut reader = Self {
            file,
            given: BTreeMap::new(),
            mistakes: Mistakes::default(),
            warnings: Mistakes::default(),
        };
        for (file, property) in properties {
            reader.accept(&file, property);
        }
        reader
    }

    fn accept(&mut self, file: &str, property: properties::Property) {
        let properties::Property { line, key: name, value } = property;
        let Some(key) = find_key(&name) else {
            match nearest(&name, KEYS.iter().map(|key| key.name)) {
                Some(meant) => self.mistakes.push(Mistake::new(
                    file,
                    line,
                    1,
                    format!("unknown key \"{name}\", did you mean \"{meant}\"?"),
                )),
                None => self.warnings.push(Mistake::new(
                    file,
                    line,
                    1,
                    format!("unknown key \"{name}\" is ignored, as Kafka does; remove it if no plugin reads it"),
                )),
            }
            return;
        };
        if let Err(text) = check_value(key, &value) {
            self.mistakes.push(Mistake::new(file, line, 0, text));
            return;
        }
        let is_default = key.default.unwrap_or_default() == value;
        match key.status {
            Status::Honoured => {}
            _ if is_default => {}
            Status::Ignored(why) => {
                self.warnings.push(Mistake::new(file, line, 0, format!("{name} is ignored: {why}")))
            }
            Status::Refused(why) => self.mistakes.push(Mistake::new(
                file,
                line,
                0,
                format!("{name}={value} is not supported: {why}; remove the line"),
            )),
        }
        self.given.insert(name, (value, line, file.to_owned()));
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.given
            .get(key)
            .map(|(value, ..)| value.as_str())
            .or_else(|| find_key(key).expect("key is in the table").default)
            .filter(|value| !value.is_empty())
    }

    fn number(&self, key: &str) -> i64 {
        self.text(key).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn size(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    fn ms(&self, key: &str) -> Duration {
        Duration::from_millis(self.number(key).max(0).unsigned_abs())
    }

    fn flag(&self, key: &str) -> bool {
        self.text(key).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    fn mistake(&mut self, key: &str, text: String) {
        let (line, file) = match self.given.get(key) {
            Some((_, line, file)) => (*line, file.clone()),
            None => (0, self.file.to_owned()),
        };
        self.mistakes.push(Mistake::new(file, line, 0, text));
    }

    fn read(mut self) -> Result<Config, Mistakes> {
        let listeners = self.listeners("listeners");
        let listeners = listeners.unwrap_or_else(|| {
            vec![Listener { name: "PLAINTEXT".into(), host: "127.0.0.1".into(), port: 9092 }]
        });
        let advertised_listeners = self.listeners("advertised.listeners").unwrap_or_default();
        for listener in &advertised_listeners {
            if listener.host.is_empty() || listener.host == "0.0.0.0" {
                self.mistake(
                    "advertised.listeners",
                    "advertised.listeners cannot be the nonroutable meta-address 0.0.0.0; use a routable host \
                     or leave the key out to tell each client the address it connected to".into(),
                );
            }
        }
        let Some(zookeeper_connect) = self.text("zookeeper.connect").map(str::to_owned) else {
            self.mistake(
                "zookeeper.connect",
                "zookeeper.connect is missing; add zookeeper.connect=host:port".into(),
            );
            return Err(self.mistakes);
        };
        let log_dirs = self.text("log.dirs").or(self.text("log.dir")).unwrap_or_default();
        let log_dirs: Vec<PathBuf> = log_dirs
            .split(',')
            .map(str::trim)
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .collect();
        let node_id = self.number("node.id") as i32;
        let broker_id = match self.number("broker.id") as i32 {
            -1 => node_id,
            id => id,
        };
        if broker_id != node_id && node_id != -1 {
            self.mistake(
                "node.id",
                format!("node.id = {node_id} contradicts broker.id = {broker_id}; remove one"),
            );
        }
        if broker_id > self.number("reserved.broker.max.id") as i32
            && self.flag("broker.id.generation.enable")
        {
            self.mistake(
                "broker.id",
                format!(
                    "broker.id = {broker_id} is above reserved.broker.max.id = {}; choose a smaller one",
                    self.number("reserved.broker.max.id")
                ),
            );
        }
        let session = self.ms("zookeeper.session.timeout.ms");
        let retention_minutes = self.number("offsets.retention.minutes").max(0).unsigned_abs();
        let config = Config {
            broker_id,
            listeners,
            advertised_listeners,
            rack: self.text("broker.rack").map(str::to_owned),
            log_dirs,
            zookeeper_connect,
            zookeeper_session_timeout: session,
            zookeeper_connection_timeout: match self.text("zookeeper.connection.timeout.ms") {
                Some(_) => self.ms("zookeeper.connection.timeout.ms"),
                None => session,
            },
            durability: match self.text("elkfk.durability") {
                Some("kafka") => Durability::Kafka,
                Some("always") => Durability::Always,
                _ => Durability::Group,
            },
            request_bytes_max: self.size("socket.request.max.bytes"),
            request_memory_bytes: match self.number("queued.max.request.bytes") {
                bytes if bytes > 0 => bytes as usize,
                _ => self.size("elkfk.request.memory.bytes"),
            },
            queued_requests_max: self.size("queued.max.requests"),
            listen_backlog: u32::try_from(self.number("socket.listen.backlog.size")).unwrap_or(50),
            connection_idle_max: self.ms("connections.max.idle.ms"),
            connections_max: self.size("max.connections"),
            connections_per_ip_max: self.size("max.connections.per.ip"),
            connections_per_ip_overrides: self.connection_overrides(),
            fetch_bytes_max: self.size("fetch.max.bytes"),
            auto_create_topics: self.flag("auto.create.topics.enable"),
            auto_create_patterns: list(self.text("elkfk.auto.create.topics.pattern").unwrap_or("")),
            auto_create_topics_max: self.size("elkfk.auto.create.topics.max"),
            delete_topics: self.flag("delete.topic.enable"),
            num_partitions: self.number("num.partitions") as i32,
            default_replication_factor: self.number("default.replication.factor") as i16,
            group_session_timeout_min: self.ms("group.min.session.timeout.ms"),
            group_session_timeout_max: self.ms("group.max.session.timeout.ms"),
            group_initial_rebalance_delay: self.ms("group.initial.rebalance.delay.ms"),
            group_members_max: self.size("group.max.size"),
            offsets_partitions: self.number("offsets.topic.num.partitions") as i32,
            offsets_replication_factor: self.number("offsets.topic.replication.factor") as i16,
            offsets_segment_bytes: self.number("offsets.topic.segment.bytes") as i32,
            offsets_retention: Duration::from_secs(retention_minutes.saturating_mul(60)),
            offsets_retention_check: self.ms("offsets.retention.check.interval.ms"),
            offset_metadata_bytes_max: self.size("offset.metadata.max.bytes"),
            retention_check: self.ms("log.retention.check.interval.ms"),
            reserved_broker_id_max: self.number("reserved.broker.max.id") as i32,
            warnings: std::mem::take(&mut self.warnings),
            given: self
                .given
                .iter()
                .map(|(key, (value, ..))| (key.clone(), value.clone()))
                .collect(),
        };
        self.mistakes.or(config)
    }

    /// `None` where the key was not given.
    fn listeners(&mut self, key: &str) -> Option<Vec<Listener>> {
        let text = self.given.get(key)?.0.clone();
        let protocols: BTreeMap<String, String> =
            list(self.text("listener.security.protocol.map").unwrap_or(""))
                .iter()
                .filter_map(|pair| pair.split_once(':'))
                .map(|(name, protocol)| {
                    (name.trim().to_uppercase(), protocol.trim().to_uppercase())
                })
                .collect();
        let mut listeners: Vec<Listener> = Vec::new();
        for entry in list(&text) {
            let Some(listener) = parse_listener(&entry) else {
                self.mistake(key, format!("{key} has \"{entry}\", which is not NAME://host:port"));
                continue;
            };
            match protocols.get(&listener.name).map(String::as_str) {
                Some("PLAINTEXT") => {}
                Some(protocol) => self.mistake(
                    key,
                    format!(
                        "{key} has \"{entry}\": {protocol} is not supported yet; use PLAINTEXT"
                    ),
                ),
                None => self.mistake(
                    key,
                    format!(
                        "{key} has \"{entry}\": no security protocol is defined for {}; \
                         add it to listener.security.protocol.map",
                        listener.name
                    ),
                ),
            }
            if listeners.iter().any(|other| other.name == listener.name) {
                self.mistake(key, format!("{key} names {} twice", listener.name));
            }
            listeners.push(listener);
        }
        (!listeners.is_empty()).then_some(listeners)
    }

    fn connection_overrides(&mut self) -> BTreeMap<String, usize> {
        let key = "max.connections.per.ip.overrides";
        let mut overrides = BTreeMap::new();
        for pair in list(self.text(key).unwrap_or("")) {
            match pair.rsplit_once(':').map(|(ip, count)| (ip, count.trim().parse())) {
                Some((ip, Ok(count))) => drop(overrides.insert(ip.trim().to_owned(), count)),
                _ => self.mistake(key, format!("{key} has \"{pair}\", which is not address:count")),
            }
        }
        overrides
    }
}

/// `NAME://host:port`; the host may be empty or an IPv6 address in brackets.
fn parse_listener(text: &str) -> Option<Listener> {
    let (name, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if name.is_empty() || host.contains(['/', ' ']) {
        return None;
    }
    Some(Listener { name: name.to_uppercase(), host: host.to_owned(), port: port.parse().ok()? })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The words of Kafka's own complaint, so that one who searches for it finds it.
fn check_value(key: &Key, value: &str) -> Result<(), String> {
    check(key.name, key.kind, key.range, value)
}

/// Checks `value` for a key of this kind and range, in Kafka's words.
pub(crate) fn check(name: &str, kind: Kind, range: Range, value: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("Invalid value {value} for configuration {name}: {why}"));
    let number = match kind {
        Kind::Bool
            if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") =>
        {
            return wrong("Expected value to be either true or false");
        }
        Kind::Int => match value.trim().parse::<i32>() {
            Ok(number) => Some(f64::from(number)),
            Err(_) => return wrong("Not a number of type INT"),
        },
        Kind::Short => match value.trim().parse::<i16>() {
            Ok(number) => Some(f64::from(number)),
            Err(_) => return wrong("Not a number of type SHORT"),
        },
        Kind::Long => match value.trim().parse::<i64>() {
            Ok(number) => Some(number as f64),
            Err(_) => return wrong("Not a number of type LONG"),
        },
        Kind::Double => match value.trim().parse::<f64>() {
            Ok(number) => Some(number),
            Err(_) => return wrong("Not a number of type DOUBLE"),
        },
        _ => None,
    };
    match range {
        Range::AtLeast(least) if number.is_some_and(|number| number < least as f64) => {
            wrong(&format!("Value must be at least {least}"))
        }
        Range::Between(least, _) if number.is_some_and(|number| number < least) => {
            wrong(&format!("Value must be at least {}", least as i64))
        }
        Range::Between(_, most) if number.is_some_and(|number| number > most) => {
            wrong(&format!("Value must be no more than {most}"))
        }
        Range::OneOf(allowed) => {
            let given = if kind == Kind::List { list(value) } else { vec![value.to_owned()] };
            match given.iter().find(|given| !allowed.contains(&given.as_str())) {
                Some(given) => Err(format!(
                    "Invalid value {given} for configuration {name}: String must be one of: {}",
                    allowed.join(", ")
                )),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
