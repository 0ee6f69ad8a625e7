//! `elkfk check`: reads files as their boxes would and names every mistake.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use elkfk_base::Mistakes;

/// What a file's name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Coordinator,
    Broker,
    Shipper,
    Pipeline,
}

fn kind(path: &Path) -> Result<Kind> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    Ok(match extension {
        "cfg" => Kind::Coordinator,
        "properties" => Kind::Broker,
        "yml" | "yaml" => Kind::Shipper,
        "conf" => Kind::Pipeline,
        _ if path.is_dir() => Kind::Pipeline,
        _ => bail!(
            "{}: cannot tell what it is; the name should end in .cfg (zoo.cfg), .properties (server.properties), .yml (filebeat.yml) or .conf (a pipeline)",
            path.display()
        ),
    })
}

/// Whether every file is right; prints a line for each, the mistakes to standard error.
pub(crate) fn run(files: &[PathBuf]) -> Result<bool> {
    let mut is_right = true;
    for path in files {
        let kind = kind(path)?;
        if !path.exists() {
            bail!("{}: no such file", path.display());
        }
        match check(kind, path)? {
            Ok(()) => println!("{}: right", path.display()),
            Err(mistakes) => {
                is_right = false;
                eprintln!("{mistakes}");
            }
        }
    }
    Ok(is_right)
}

fn check(kind: Kind, path: &Path) -> Result<Result<(), Mistakes>> {
    let name = path.display().to_string();
    let text = || std::fs::read_to_string(path).with_context(|| format!("read {name}"));
    Ok(match kind {
        Kind::Coordinator => elkfk_coordinator::Config::from_file(path).map(drop),
        Kind::Broker => elkfk_broker::Config::from_text(&name, &text()?, &[]).map(drop),
        Kind::Shipper => {
            elkfk_shipper::Config::parse(&name, &text()?, false, &|name| std::env::var(name).ok())
                .map(drop)
        }
        Kind::Pipeline => elkfk_sink::check(&elkfk_sink::Config {
            files: vec![path.to_owned()],
            ..Default::default()
        }),
    })
}
