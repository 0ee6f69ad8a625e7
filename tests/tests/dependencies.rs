//! Dependencies point one way: binary → boxes → wire → base. Boxes never name each other.

use std::collections::{BTreeMap, BTreeSet};

use elkfk_tests::workspace;

/// What each crate may name among ours. `elkfk`, `tests` and `bench` may name anything.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("base", &[] as &[_]),
        ("wire", &["base"]),
        ("shipper", &["base", "wire"]),
        ("sink", &["base", "wire"]),
        ("store", &["base", "wire"]),
        ("coordinator", &["base", "wire"]),
        ("coordinator/client", &["base", "wire"]),
        ("broker/client", &["base", "wire"]),
        ("broker", &["base", "wire", "coordinator-client"]),
        ("autoscaler", &["base", "wire", "coordinator-client", "broker-client"]),
        ("dashboard", &["base", "wire", "coordinator-client", "broker-client"]),
    ])
}

const FREE: [&str; 3] = ["elkfk", "tests", "bench"];

fn manifest(folder: &str) -> String {
    std::fs::read_to_string(workspace().join(folder).join("Cargo.toml")).unwrap()
}

/// The lines of the sections whose name `is_wanted`.
fn lines(manifest: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<&str> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if is_wanted(section) && line.contains('=') {
            found.push(line);
        }
    }
    found
}

/// Our crates that a box is built from, without the prefix of their names.
fn ours(manifest: &str) -> BTreeSet<&str> {
    lines(manifest, |section| matches!(section, "[dependencies]" | "[build-dependencies]"))
        .into_iter()
        .filter_map(|line| line.strip_prefix("elkfk-")?.split([' ', '.', '=']).next())
        .collect()
}

#[test]
fn boxes_never_name_each_other() {
    for (folder, allowed) in allowed() {
        let manifest = manifest(folder);
        let unexpected: Vec<_> =
            ours(&manifest).into_iter().filter(|name| !allowed.contains(name)).collect();
        assert!(unexpected.is_empty(), "{folder} names {unexpected:?}; it may name {allowed:?}");
    }
}

#[test]
fn every_member_has_a_rule() {
    let root = manifest("");
    let members = root.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        assert!(
            FREE.contains(&member) || allowed().contains_key(member),
            "{member} has no rule here"
        );
    }
}

#[test]
fn versions_stand_once_in_the_workspace() {
    for folder in allowed().keys().copied().chain(FREE) {
        for line in lines(&manifest(folder), |section| section.ends_with("dependencies]")) {
            assert!(line.contains("workspace = true"), "{folder}/Cargo.toml: {line}");
        }
    }
}

/// The cores: they decide, they are given the time, they touch nothing. Folders stand for all their files.
const CORES: [&str; 31] = [
    "shipper/src/harvester",
    "broker/src/partition/isr.rs",
    "broker/src/group/core.rs",
    "broker/src/group/member.rs",
    "broker/src/group/state.rs",
    "coordinator/src/tree",
    "coordinator/src/machine",
    "coordinator/src/consensus",
    "coordinator/src/replica",
    "coordinator/src/service",
    "sink/src/delivery",
    "broker/client/src/lag/track.rs",
    "broker/client/src/lag/retention.rs",
    "broker/client/src/lag/mod.rs",
    "dashboard/src/lag/history.rs",
    "dashboard/src/lag/heat.rs",
    "dashboard/src/lag/journal.rs",
    "dashboard/src/lag/answers.rs",
    "dashboard/src/lag/whatif.rs",
    "dashboard/src/marks.rs",
    "dashboard/src/alerts/rule.rs",
    "dashboard/src/alerts/measure.rs",
    "dashboard/src/alerts/watch.rs",
    "dashboard/src/groups/plan.rs",
    "dashboard/src/cluster/facts.rs",
    "dashboard/src/exporter.rs",
    "dashboard/src/overview/bottleneck.rs",
    "dashboard/src/overview/sample.rs",
    "dashboard/src/ensemble/words.rs",
    "autoscaler/src/ladder",
    "wire/src",
];

/// What reads a clock, a disk or a socket.
const IMPURE: [&str; 9] = [
    "Instant::now",
    "now_ms()",
    "SystemTime::now",
    "Timestamp::now",
    "tokio::",
    "std::fs",
    "File::open",
    "std::net::Tcp",
    "thread::sleep",
];

fn sources(path: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

#[test]
fn cores_read_no_clock_and_do_no_io() {
    for core in CORES {
        let root = workspace().join(core);
        assert!(root.exists(), "{core} is gone: name its successor here");
        let mut files = Vec::new();
        sources(&root, &mut files);
        for file in files {
            let name = file.strip_prefix(workspace()).unwrap().display().to_string();
            // Tests may do as they like.
            if name.contains("/tests") || name.ends_with("tests.rs") || name.contains("simulat") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap();
                if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                    panic!("{name}:{}: a core names {word}: {line}", number + 1);
                }
            }
        }
    }
}
