//! `elkfk autoscale`: the backlog ladder, so far in virtual time.

use std::path::Path;

use anyhow::{Context, Result, bail};
use elkfk_autoscaler::simulate::{self, Policy, SCENARIOS, Trace};

use crate::args::Simulate;
use crate::say::or_end as say;

pub(crate) fn simulate(args: &Simulate) -> Result<()> {
    let traces = match args.traces.as_slice() {
        [] => names().map(trace).collect::<Result<Vec<_>>>(),
        asked => asked.iter().map(|name| trace(name)).collect(),
    }?;
    let policies = match &args.policy {
        None => Policy::ALL.to_vec(),
        Some(name) => vec![policy(name)?],
    };
    let parameters = simulate::acting();
    for trace in &traces {
        let reports: Vec<_> =
            policies.iter().map(|policy| simulate::run(trace, *policy, &parameters)).collect();
        if args.json {
            for report in &reports {
                say(&format!("{}\n", serde_json::to_string(report)?));
            }
            continue;
        }
        say(&simulate::table(&reports));
        if args.log {
            for report in reports.iter().filter(|report| report.policy == Policy::Ladder) {
                say(&simulate::decision_log(report, true));
            }
        }
    }
    Ok(())
}

fn policy(name: &str) -> Result<Policy> {
    Policy::ALL.into_iter().find(|policy| policy.name() == name).with_context(|| {
        let known = Policy::ALL.map(Policy::name);
        let hint = elkfk_base::mistakes::did_you_mean(name, known);
        format!("--policy {name}: no such rule{hint}; there are {}", known.join(", "))
    })
}

fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|(name, _)| *name)
}

/// A scenario of this name, else a file.
fn trace(name: &str) -> Result<Trace> {
    if let Some(trace) = simulate::scenario(name) {
        return Ok(trace);
    }
    if !Path::new(name).exists() {
        let hint = elkfk_base::mistakes::did_you_mean(name, names());
        let known: Vec<_> = names().collect();
        bail!("{name}: no such file and no such scenario{hint}; there are {}", known.join(", "));
    }
    let text = std::fs::read_to_string(name).with_context(|| format!("read {name}"))?;
    let mut trace: Trace = serde_json::from_str(&text)
        .with_context(|| format!("{name}: not a trace as docs/autoscaler.md describes it"))?;
    let mistakes = trace.mistakes();
    if !mistakes.is_empty() {
        bail!("{name}: {}", mistakes.join("; "));
    }
    if trace.name.is_empty() {
        name.clone_into(&mut trace.name);
    }
    Ok(trace)
}
