//! Somebody else's test suite on our servers: what passes on a real ZooKeeper must pass on ours.
//!
//! What passed on a real one is kept as a list beside the suite, as `UPDATE_GOLDEN=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The names of a list, one a line.
pub(crate) fn names(path: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

pub(crate) fn write(path: &Path, names: &BTreeSet<String>) -> Result<()> {
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// How each test ended: `OUTCOME SECONDS NAME WHY` a line, the last line of a test counts.
pub(crate) fn results(path: &Path) -> Result<BTreeMap<String, Outcome>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("no test of the suite ended: read {}", path.display()))?;
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let (outcome, _seconds) = (words.next()?.to_owned(), words.next()?);
        let name = words.next()?.to_owned();
        Some((name, Outcome { outcome, why: words.next().unwrap_or_default().to_owned() }))
    };
    Ok(text.lines().filter_map(line).collect())
}

#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    outcome: String,
    why: String,
}

impl Outcome {
    pub(crate) fn has_passed(&self) -> bool {
        self.outcome == "passed"
    }
}

/// Runs `wanted` by `run`, which gets a file of names and a file for the results, and fails unless all of them pass.
///
/// Suites made for quick machines have tests that fail by chance on a busy one: what fails is run twice more, alone.
/// It is named all the same.
pub(crate) fn must_pass(
    dir: &Path,
    wanted: &BTreeSet<String>,
    mut run: impl FnMut(&Path, &Path) -> Result<()>,
) -> Result<()> {
    let mut left = wanted.clone();
    let mut why = BTreeMap::new();
    for attempt in 0..3 {
        let (select, results_file) =
            (dir.join(format!("select{attempt}")), dir.join(format!("results{attempt}")));
        write(&select, &left)?;
        run(&select, &results_file)?;
        let results = results(&results_file)?;
        left.retain(|name| {
            let outcome = results.get(name);
            if let Some(outcome) = outcome.filter(|outcome| !outcome.has_passed()) {
                why.insert(name.clone(), outcome.clone());
            }
            !outcome.is_some_and(Outcome::has_passed)
        });
        if left.is_empty() {
            break;
        }
        eprintln!(
            "attempt {}: {} of {} did not pass: {left:?}",
            attempt + 1,
            left.len(),
            wanted.len()
        );
    }
    let told: Vec<String> = left
        .iter()
        .map(|name| match why.get(name) {
            Some(Outcome { outcome, why }) => format!("{name}: {outcome} {why}"),
            None => format!("{name}: did not run"),
        })
        .collect();
    ensure!(told.is_empty(), "{} of {} failed:\n{}", told.len(), wanted.len(), told.join("\n"));
    eprintln!("{} passed", wanted.len());
    Ok(())
}
