//! The configuration files that `elkfk init` writes and `elkfk up` reads: the same texts, so that
//! what is written is what is in force.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rust_embed::RustEmbed;

use crate::say::sayln;

/// The pipelines that come with the program, with their samples.
#[derive(RustEmbed)]
#[folder = "../pipelines"]
#[include = "*/pipeline.conf"]
#[include = "*/sample.log"]
#[include = "*/expected.jsonl"]
struct Pipelines;

const ZOO_CFG: &str = include_str!("../templates/zoo.cfg");
const SERVER_PROPERTIES: &str = include_str!("../templates/server.properties");
const FILEBEAT_YML: &str = include_str!("../templates/filebeat.yml");

/// What the texts leave open.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    pub(crate) data: PathBuf,
    pub(crate) listen: IpAddr,
    pub(crate) coordinator_port: u16,
    pub(crate) broker_port: u16,
    pub(crate) zookeeper: String,
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) watch: Vec<String>,
}

impl Values {
    fn fill(&self, template: &str) -> String {
        let data = self.data.display().to_string();
        // Single quotes in YAML: '' stands for one.
        let paths: Vec<_> = self
            .watch
            .iter()
            .map(|glob| format!("      - '{}'", glob.replace('\'', "''")))
            .collect();
        let pattern: String = data
            .chars()
            .flat_map(|c| (!c.is_alphanumeric() && c != '/').then_some('\\').into_iter().chain([c]))
            .collect();
        template
            .replace("{{data_pattern}}", &pattern.replace('\'', "''"))
            .replace("{{data}}", &data)
            .replace("{{listen}}", &self.listen.to_string())
            .replace("{{coordinator_port}}", &self.coordinator_port.to_string())
            .replace("{{broker_port}}", &self.broker_port.to_string())
            .replace("{{zookeeper}}", &self.zookeeper)
            .replace("{{bootstrap}}", &self.bootstrap)
            .replace("{{topic}}", &self.topic)
            .replace("{{paths}}", &paths.join("\n"))
    }
}

/// One of the three files: its name, and its text where no file takes its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConfigFile {
    pub(crate) name: &'static str,
    template: &'static str,
}

pub(crate) const COORDINATOR: ConfigFile = ConfigFile { name: "zoo.cfg", template: ZOO_CFG };
pub(crate) const BROKER: ConfigFile =
    ConfigFile { name: "server.properties", template: SERVER_PROPERTIES };
pub(crate) const SHIPPER: ConfigFile = ConfigFile { name: "filebeat.yml", template: FILEBEAT_YML };

impl ConfigFile {
    /// Where it stands in `config`, if it is there.
    pub(crate) fn path(self, config: Option<&Path>) -> Option<PathBuf> {
        config.map(|dir| dir.join(self.name)).filter(|path| path.exists())
    }

    /// The text with the defaults.
    pub(crate) fn text(self, values: &Values) -> String {
        values.fill(self.template)
    }
}

/// Pipeline files of `config`; empty where it has none.
pub(crate) fn pipelines(config: Option<&Path>) -> Result<Vec<PathBuf>> {
    match config.map(|dir| dir.join("pipelines")).filter(|dir| dir.is_dir()) {
        Some(dir) => pipelines_in(&dir),
        None => Ok(vec![]),
    }
}

/// Pipeline files of a directory: `*.conf` and `*/pipeline.conf`.
pub(crate) fn pipelines_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        let nested = path.join("pipeline.conf");
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        } else if nested.is_file() {
            files.push(nested);
        }
    }
    files.sort();
    Ok(files)
}

/// The text of the pipeline that recognises common logs and keeps any other line as it is.
pub(crate) fn default_pipeline() -> Result<String> {
    let file = Pipelines::get("default/pipeline.conf")
        .context("the program holds its default pipeline")?;
    Ok(String::from_utf8(file.data.into_owned())?)
}

/// `elkfk init`: writes what is missing in `dir` and says so.
pub(crate) fn init(dir: &Path) -> Result<()> {
    let data = std::path::absolute(dir)?.join("data");
    let values = Values {
        data,
        listen: IpAddr::from([127, 0, 0, 1]),
        coordinator_port: 2181,
        broker_port: 9092,
        zookeeper: "127.0.0.1:2181".into(),
        bootstrap: "127.0.0.1:9092".into(),
        topic: "logs".into(),
        watch: vec!["/var/log/**".into()],
    };
    let mut texts: Vec<(PathBuf, String)> = [COORDINATOR, BROKER, SHIPPER]
        .iter()
        .map(|file| (file.name.into(), values.fill(file.template)))
        .collect();
    // One pipeline is in force; the others are there to start from.
    for name in Pipelines::iter() {
        let file = Pipelines::get(&name).context("a listed pipeline is there")?;
        let folder = if name.starts_with("default/") { "pipelines" } else { "examples" };
        let text = String::from_utf8(file.data.into_owned())?;
        texts.push((Path::new(folder).join(name.as_ref()), text));
    }
    for (name, text) in texts {
        let path = dir.join(name);
        if path.exists() {
            sayln!("{:<44} kept as it is", path.display());
            continue;
        }
        let folder = path.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        sayln!("{:<44} written", path.display());
    }
    sayln!("\nnext: elkfk check {0} && elkfk up --config {0}", dir.display());
    Ok(())
}
