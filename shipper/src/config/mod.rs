//! `filebeat.yml` → a checked [`Config`].

mod input;
mod keys;
mod output;
mod reader;
mod yaml;

use std::path::{Path, PathBuf};
use std::time::Duration;

use elkfk_base::{Mistake, Mistakes};
use serde_json::Value;

pub use input::{CloseConfig, InputConfig, StartAt};
pub use output::{Compression, OutputConfig, PartitionChoice};
use reader::Found;
pub(crate) use reader::Section;
use yaml::Document;

/// The topic events go to where the file names none.
pub(crate) const DEFAULT_TOPIC: &str = "logs";
/// Bytes of events handed to the producer and not acknowledged yet; reading stops beyond. Each event
/// costs the producer some 400 bytes more than its own length.
pub(crate) const DEFAULT_IN_FLIGHT_BYTES: u64 = 32 << 20;
/// How long an unfinished last line of a file that was rotated away or deleted may still grow.
pub(crate) const DEFAULT_PARTIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an event waits for others to share its request.
pub(crate) const DEFAULT_LINGER: Duration = Duration::from_millis(1);
/// How long a stop waits for acknowledgements: with all that follows it, the user waits less than 5 s.
pub(crate) const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// What the shipper reads and where it sends it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory of the registry. Held by one process at a time.
    pub data: PathBuf,
    /// `agent.name` and `host.name` of every event.
    pub name: String,
    pub inputs: Vec<InputConfig>,
    pub output: OutputConfig,
    /// How long a stop waits for acknowledgements.
    pub shutdown_timeout: Duration,
    pub in_flight_bytes: u64,
    /// Files held open at a time; 0 takes half of what the system allows.
    pub open_files: usize,
    pub partial_timeout: Duration,
    /// What the file asks for and has no effect, one sentence each with its place.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "data/shipper".into(),
            name: host_name(),
            inputs: Vec::new(),
            output: OutputConfig::default(),
            shutdown_timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            in_flight_bytes: DEFAULT_IN_FLIGHT_BYTES,
            open_files: 0,
            partial_timeout: DEFAULT_PARTIAL_TIMEOUT,
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// What `elkfk up --watch` needs: one input over `globs`, symlinks followed, the default topic.
    pub fn watch(
        globs: impl IntoIterator<Item = impl Into<String>>,
        bootstrap: &str,
        data: impl Into<PathBuf>,
    ) -> Self {
        let input = InputConfig {
            id: "watch".into(),
            paths: globs.into_iter().map(Into::into).collect(),
            symlinks: true,
            ..InputConfig::default()
        };
        let mut config = Self { data: data.into(), inputs: vec![input], ..Self::default() };
        config.output.hosts = bootstrap.split(',').map(|host| host.trim().to_string()).collect();
        config
    }

    /// Reads `path`, with variables from the environment.
    pub fn read(path: &Path, ignore_unsupported: bool) -> Result<Self, Mistakes> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Mistakes(vec![Mistake::new(&file, 0, 0, format!("read: {error}"))]))?;
        Self::parse(&file, &text, ignore_unsupported, &|name| std::env::var(name).ok())
    }

    /// Reads the text of a `filebeat.yml` called `file` in messages.
    ///
    /// A known key that is not honoured is a mistake, all of them at once, unless
    /// `ignore_unsupported` (or `elkfk.ignore_unsupported: true`) makes them warnings.
    pub fn parse(
        file: &str,
        text: &str,
        ignore_unsupported: bool,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let document = Document::parse(file, text, variable)?;
        let top = Section { document: &document, path: String::new(), value: &document.root };
        let mut found = Found::default();
        top.check(keys::TOP, &mut found);
        let inputs = top.items("filebeat.inputs");
        for section in &inputs {
            section.check(keys::INPUT, &mut found);
        }
        let kafka = top.child("output.kafka");
        if let Some(section) = &kafka {
            section.check(keys::KAFKA, &mut found);
        }

        let Found { mut mistakes, ignored: mut warnings, refused } = found;
        let ignore_unsupported =
            top.bool("elkfk.ignore_unsupported", &mut mistakes).unwrap_or(ignore_unsupported);
        for (line, path, why) in refused {
            if ignore_unsupported {
                warnings.push(format!("{file}:{line}: {path} has no effect: {why}"));
            } else {
                let text = format!(
                    "{path} is not supported: {why}; remove it or start with --ignore-unsupported"
                );
                mistakes.push(Mistake::new(file, line, 0, text));
            }
        }

        let mut config = Self::default();
        if let Some(name) = top.text("name", &mut mistakes).filter(|name| !name.is_empty()) {
            config.name = name;
        }
        config.data = data_directory(&top, &mut mistakes);
        set(&mut config.shutdown_timeout, top.duration("filebeat.shutdown_timeout", &mut mistakes));
        set(&mut config.in_flight_bytes, top.bytes("elkfk.in_flight_bytes", &mut mistakes));
        set(&mut config.partial_timeout, top.duration("elkfk.partial_timeout", &mut mistakes));
        if let Some(files) = top.number("elkfk.open_files", &mut mistakes) {
            config.open_files = files as usize;
        }
        for section in &inputs {
            if section.bool("enabled", &mut mistakes) != Some(false) {
                let mut input = InputConfig::read(section, &top, &mut warnings, &mut mistakes);
                let is_same = |other: &&InputConfig| other.paths == input.paths;
                if section.get("id").is_none()
                    && let twins @ 1.. = config.inputs.iter().filter(is_same).count()
                {
                    input.id.push_str(&format!("#{twins}"));
                }
                if config.inputs.iter().any(|other| other.id == input.id) {
                    let text =
                        format!("input id \"{}\" is used twice; give each its own", input.id);
                    section.complain("id", text, &mut mistakes);
                }
                config.inputs.push(input);
            }
        }
        if config.inputs.is_empty() {
            let text = "no input is enabled; give filebeat.inputs a type, an id and paths";
            mistakes.push(document.mistake("filebeat.inputs", text));
        }
        match &kafka {
            Some(section) => {
                config.output = OutputConfig::read(section, &mut warnings, &mut mistakes)
            }
            None => mistakes.push(document.mistake(
                "output",
                "no output.kafka; give it hosts: [\"127.0.0.1:9092\"] and a topic",
            )),
        }
        set(&mut config.output.linger, top.duration("elkfk.linger", &mut mistakes));
        config.warnings = warnings;
        mistakes.0.sort_by_key(|mistake| mistake.line);
        mistakes.or(config)
    }
}

fn data_directory(top: &Section<'_>, mistakes: &mut Mistakes) -> PathBuf {
    let data = top.text("path.data", mistakes).unwrap_or_else(|| "data".into());
    let registry =
        top.text("filebeat.registry.path", mistakes).unwrap_or_else(|| "registry".into());
    Path::new(&data).join(registry)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    if name.is_empty() { "localhost".into() } else { name.into_owned() }
}

/// `add` into `base`, inner groups merged.
fn merge(base: &mut serde_json::Map<String, Value>, add: &serde_json::Map<String, Value>) {
    for (key, value) in add {
        match (base.get_mut(key), value) {
            (Some(Value::Object(inner)), Value::Object(add)) => merge(inner, add),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
