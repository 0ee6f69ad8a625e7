//! The deploy files, checked as far as that can be done without a Docker engine: they are accepted,
//! and every flag, file, port and variable that they name exists.

use std::path::Path;
use std::process::Command;

use elkfk_tests::process::elkfk;
use elkfk_tests::{KAFKA_TOOLS, peers, workspace};
use serde_json::Value;

const FILES: [&str; 3] = ["all-in-one.yml", "three-hosts.yml", "with-elasticsearch.yml"];

/// The file as `docker-compose config` understands it.
fn resolved(test: &str, file: &str) -> Option<String> {
    let path = workspace().join("compose").join(file);
    let Ok(output) = Command::new("docker-compose").arg("-f").arg(&path).arg("config").output()
    else {
        peers::skip(test, "docker-compose");
        return None;
    };
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Lists such as `command: ["up", …]`, one line or two, of every service that runs our binary.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for key in ["command: [", "test: [\"CMD\", \"elkfk\", "] {
        for rest in text.split(key).skip(1) {
            let list = rest.split(']').next().unwrap();
            let words = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            found.push(words);
        }
    }
    found
}

fn help(subcommand: &str) -> String {
    let output = Command::new(elkfk()).args([subcommand, "--help"]).output().unwrap();
    assert!(
        output.status.success(),
        "elkfk {subcommand} --help: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn compose_accepts_every_file() {
    for file in FILES {
        let Some(text) = resolved("compose_accepts_every_file", file) else { return };
        assert!(text.contains("services:"), "{file}");
    }
}

#[test]
fn every_flag_and_subcommand_exists() {
    let mut seen = 0;
    for file in FILES.into_iter().chain(["Dockerfile"]) {
        let text = std::fs::read_to_string(workspace().join("compose").join(file)).unwrap();
        let mut commands = commands(&text);
        for line in text.lines().filter(|line| line.contains("CMD [")) {
            let words: Vec<_> = line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            commands.push(words.into_iter().skip_while(|word| word == "elkfk").collect());
        }
        for words in commands {
            let help = help(&words[0]);
            for flag in words.iter().filter(|word| word.starts_with('-')) {
                assert!(help.contains(flag.as_str()), "{file}: elkfk {} has no {flag}", words[0]);
                seen += 1;
            }
        }
    }
    assert!(seen > 15, "only {seen} flags were found");
}

/// A service that runs our image, as compose understands it.
struct Service {
    name: String,
    /// The words after the entry point.
    command: Vec<String>,
    /// (port of the host, port of the container)
    ports: Vec<(u16, u16)>,
    /// (place on the host or name of a volume, place in the container)
    volumes: Vec<(String, String)>,
}

impl Service {
    fn value(&self, flag: &str) -> Option<&str> {
        let at = self.command.iter().position(|word| word == flag)?;
        self.command.get(at + 1).map(String::as_str)
    }

    /// What the file mounted at `place` says.
    fn mounted(&self, place: &str) -> String {
        let (source, _) = self.volumes.iter().find(|(_, target)| target == place).unwrap();
        std::fs::read_to_string(source).unwrap()
    }

    /// The value of `key=` in the file that the command names.
    fn configured(&self, key: &str) -> String {
        let text = self.mounted(self.command.last().unwrap());
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{}: no {key}", self.name)).to_owned()
    }

    /// Addresses its boxes listen on.
    fn listens(&self) -> Vec<String> {
        match self.command[0].as_str() {
            "up" => {
                let ip = self.value("--listen").unwrap_or("127.0.0.1");
                let mut ports = vec![2181, 9092, 5601];
                if self.value("--elasticsearch").is_none() {
                    ports.push(9200);
                }
                ports.into_iter().map(|port| format!("{ip}:{port}")).collect()
            }
            "store" | "dashboard" => vec![self.value("--listen").unwrap().to_owned()],
            "coordinator" => {
                let ip = self.configured("clientPortAddress");
                vec![format!("{ip}:{}", self.configured("clientPort"))]
            }
            "broker" => vec![self.configured("listeners").replace("PLAINTEXT://", "")],
            "shipper" | "sink" => vec![],
            other => panic!("{}: where does {other} listen?", self.name),
        }
    }
}

fn our_services(test: &str, file: &str) -> Option<Vec<Service>> {
    let all: Value = serde_norway::from_str(&resolved(test, file)?).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let services = all["services"].as_object().unwrap().iter();
    let ours = services.filter(|(_, service)| service["image"] == "elkfk");
    let ours = ours.map(|(name, service)| Service {
        name: format!("{file}: {name}"),
        command: list(&service["command"]).iter().map(text).collect(),
        ports: list(&service["ports"])
            .iter()
            .map(|port| {
                // 127.0.0.1:5601:5601/tcp
                let port = text(port);
                let mut parts = port.trim_end_matches("/tcp").rsplit(':');
                let mut next = || parts.next().unwrap().parse().unwrap();
                let container = next();
                (next(), container)
            })
            .collect(),
        volumes: list(&service["volumes"])
            .iter()
            .map(|volume| {
                let volume = text(volume);
                let mut parts = volume.split(':');
                let mut next = || parts.next().unwrap().to_owned();
                (next(), next())
            })
            .collect(),
    });
    Some(ours.collect())
}

fn dockerfile() -> String {
    std::fs::read_to_string(workspace().join("compose/Dockerfile")).unwrap()
}

#[test]
fn published_ports_are_exposed_and_listened_on() {
    let dockerfile = dockerfile();
    let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let mut seen = 0;
    for file in FILES {
        let Some(services) = our_services("published_ports_are_exposed_and_listened_on", file)
        else {
            return;
        };
        let mut taken = std::collections::BTreeSet::new();
        for service in services {
            let listens = service.listens();
            for (host, container) in &service.ports {
                let name = &service.name;
                assert!(exposed.split(' ').any(|port| port == container.to_string()), "{name}");
                // On loopback in the container nobody outside reaches it.
                let wanted = format!("0.0.0.0:{container}");
                assert!(listens.contains(&wanted), "{name} publishes {container}: {listens:?}");
                assert!(taken.insert(*host), "{name}: port {host} is published twice");
                seen += 1;
            }
        }
    }
    assert!(seen >= 9, "only {seen} ports were found");
}

#[test]
fn every_path_in_a_container_is_mounted_or_copied() {
    let dockerfile = dockerfile();
    let copied: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY ")?.rsplit(' ').next())
        .filter(|target| target.starts_with('/'))
        .collect();
    let mut seen = 0;
    for file in FILES {
        let Some(services) = our_services("every_path_in_a_container_is_mounted_or_copied", file)
        else {
            return;
        };
        for service in services {
            let mut paths: Vec<String> =
                service.command.iter().filter(|word| word.starts_with('/')).cloned().collect();
            match service.command[0].as_str() {
                "coordinator" => paths.push(service.configured("dataDir")),
                "broker" => paths.push(service.configured("log.dirs")),
                "shipper" => {
                    let text = service.mounted(service.command.last().unwrap());
                    paths.extend(
                        text.split([' ', '\'', '"', '\n', '['])
                            .filter(|word| word.starts_with('/'))
                            .map(str::to_owned),
                    );
                }
                _ => {}
            }
            for path in paths {
                let is_there = service
                    .volumes
                    .iter()
                    .map(|(_, target)| target.as_str())
                    .chain(copied.iter().copied())
                    .any(|place| Path::new(&path).starts_with(place));
                assert!(is_there, "{}: {path} is neither mounted nor copied", service.name);
                seen += 1;
            }
        }
    }
    assert!(seen >= 12, "only {seen} paths were found");
}

#[test]
fn the_image_links_every_tool() {
    let dockerfile = dockerfile();
    for tool in KAFKA_TOOLS {
        assert!(dockerfile.contains(tool), "{tool} has no link");
        let output = Command::new(elkfk()).arg(tool).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("no command"), "{tool}: {text}");
    }
}

#[test]
fn a_build_of_the_image_leaves_out_what_it_does_not_need() {
    let ignored = std::fs::read_to_string(workspace().join(".dockerignore")).unwrap();
    for name in [".git", "target", "**/node_modules", "data"] {
        assert!(ignored.lines().any(|line| line == name), "{name}");
    }
}

#[test]
fn every_file_mounted_or_copied_exists() {
    let compose = workspace().join("compose");
    for file in FILES {
        let text = std::fs::read_to_string(compose.join(file)).unwrap();
        for volume in text
            .lines()
            .filter_map(|line| line.split("./").nth(1))
            .map(|rest| rest.split(':').next().unwrap())
        {
            assert!(compose.join(volume).exists(), "{file}: {volume}");
        }
    }
    let dockerfile = std::fs::read_to_string(compose.join("Dockerfile")).unwrap();
    for line in
        dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
    {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(workspace().join(source).exists(), "Dockerfile: {source}");
    }
}

#[test]
fn mounted_configuration_is_accepted() {
    let files = ["zoo.cfg", "server.properties", "filebeat.yml"]
        .map(|name| workspace().join("compose/config").join(name));
    for file in files
        .iter()
        .map(|file| file.as_path())
        .chain([Path::new("pipelines/default/pipeline.conf")])
    {
        let output =
            Command::new(elkfk()).arg("check").arg(workspace().join(file)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "elkfk check {}: {text}", file.display());
    }
}

#[test]
fn every_variable_is_read_by_a_file_it_is_given_to() {
    let root = workspace();
    let read: String = ["compose/config/filebeat.yml", "pipelines/default/pipeline.conf"]
        .iter()
        .map(|file| std::fs::read_to_string(root.join(file)).unwrap())
        .collect();
    let text = std::fs::read_to_string(root.join("compose/three-hosts.yml")).unwrap();
    let mut seen = 0;
    for name in text
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter(|word| word.starts_with("ELKFK_"))
    {
        assert!(read.contains(&format!("${{{name}")), "{name} is read nowhere");
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} variables were found");
}

#[test]
fn saved_objects_refer_only_to_each_other() {
    let text =
        std::fs::read_to_string(workspace().join("compose/kibana/saved-objects.ndjson")).unwrap();
    let objects: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_there = |wanted: &Value| {
        objects.iter().any(|o| o["id"] == wanted["id"] && o["type"] == wanted["type"])
    };
    for object in &objects {
        for reference in object["references"].as_array().unwrap() {
            assert!(is_there(reference), "{} refers to {reference}", object["id"]);
        }
    }
}
