//! The definitions that `%{NAME}` may refer to: the stock ones, those of a directory, those of the filter.

use std::{collections::HashMap, path::Path, sync::LazyLock};

use elkfk_base::mistakes::did_you_mean;

use crate::filter::regex::Definitions;

/// Text of definitions: `NAME definition` on each line, `#` before a comment.
const SHARED: &str = include_str!("patterns/shared.txt");
const LEGACY: &str = include_str!("patterns/legacy.txt");
const ECS: &str = include_str!("patterns/ecs.txt");

static STOCK_LEGACY: LazyLock<HashMap<&str, &str>> =
    LazyLock::new(|| lines(SHARED).chain(lines(LEGACY)).collect());
static STOCK_ECS: LazyLock<HashMap<&str, &str>> =
    LazyLock::new(|| lines(SHARED).chain(lines(ECS)).collect());

/// The definitions one filter knows.
#[derive(Debug)]
pub(crate) struct Patterns {
    stock: &'static HashMap<&'static str, &'static str>,
    /// Take precedence over the stock.
    own: HashMap<String, String>,
}

impl Patterns {
    pub(crate) fn stock(is_ecs: bool) -> Self {
        let stock = if is_ecs { &STOCK_ECS } else { &STOCK_LEGACY };
        Self { stock, own: HashMap::new() }
    }

    pub(crate) fn add(&mut self, name: &str, definition: &str) {
        self.own.insert(name.to_owned(), definition.to_owned());
    }

    /// Adds the definitions of a file.
    pub(crate) fn add_file(&mut self, path: &Path) -> std::io::Result<()> {
        let text = std::fs::read_to_string(path)?;
        for (name, definition) in lines(&text) {
            self.add(name, definition);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.stock.keys().copied()
    }
}

impl Definitions for Patterns {
    fn definition(&self, name: &str) -> Option<&str> {
        self.own.get(name).map(String::as_str).or_else(|| self.stock.get(name).copied())
    }

    fn hint(&self, name: &str) -> String {
        did_you_mean(name, self.own.keys().map(String::as_str).chain(self.stock.keys().copied()))
    }
}

fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(name, definition)| (name, definition.trim_start()))
}
