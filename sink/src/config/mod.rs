//! Logstash's configuration language.
//!
//! Several files make one pipeline, joined in the order of their names. A reader of plugins'
//! options is [`Options`]; conditions are compiled by [`Predicate`].

mod ast;
mod condition;
mod options;
mod parse;

use std::path::{Path, PathBuf};

use elkfk_base::{Mistake, Mistakes};

pub use ast::{
    Attribute, Branch, Comparison, Condition, Config, Operand, Place, Plugin, Section, Setting,
    SettingKind, Statement,
};
pub use condition::Predicate;
pub use options::{Located, Options};
pub use parse::{Env, parse_file};

/// Reads files into one configuration. A directory stands for its `*.conf` files.
pub fn read_files(files: &[PathBuf], env: Env<'_>) -> Result<Config, Mistakes> {
    let (mut config, mut mistakes) = (Config::default(), Mistakes::default());
    let mut paths = Vec::new();
    for file in files {
        match list(file) {
            Ok(found) if found.is_empty() => mistakes.push(Mistake::new(
                file.display().to_string(),
                0,
                0,
                "holds no *.conf file; name a pipeline's file or directory",
            )),
            Ok(found) => paths.extend(found),
            Err(error) => mistakes.push(unreadable(file, &error)),
        }
    }
    for path in paths {
        match std::fs::read(&path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => {
                    parse_file(&path.display().to_string(), &text, env, &mut config, &mut mistakes)
                }
                Err(error) => {
                    let valid = error.utf8_error().valid_up_to();
                    let line =
                        error.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
                    let text = "bytes that are not UTF-8; save the file as UTF-8";
                    mistakes.push(Mistake::new(path.display().to_string(), line, 0, text));
                }
            },
            Err(error) => mistakes.push(unreadable(&path, &error)),
        }
    }
    mistakes.or(config)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Mistake {
    Mistake::new(path.display().to_string(), 0, 0, format!("cannot be read: {error}"))
}

fn list(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
