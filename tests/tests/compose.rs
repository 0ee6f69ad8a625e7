//! The deploy files, checked as far as that can be done without a Docker engine: they are accepted,
//! and every flag, file, port and variable that they name exists.

use std::path::Path;
use std::process::Command;

use elkfk_tests::process::elkfk;
use elkfk_tests::{peers, workspace};
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
