//! `elkfk autoscale`: the box alone, what it decided and why, and the ladder in virtual time.

mod decided;
mod recorded;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use elkfk_autoscaler::shell::{Settings, Standing};
use elkfk_autoscaler::simulate::{self, Policy, SCENARIOS, Trace};
use elkfk_autoscaler::{Mode, Parameters};
use serde_json::{Map, Value};

use crate::args::{self, AutoscaleCommand, Autoscaler, Simulate};
use crate::say::{or_end as say, sayln};
use crate::signals::asked_to_stop;

/// What is there answers sooner; what is not is then told.
const ANSWER_SOON: Duration = Duration::from_secs(3);

/// What can be asked while a cluster is there.
pub(crate) async fn run(command: AutoscaleCommand) -> Result<bool> {
    match command {
        AutoscaleCommand::Run(args) => alone(args).await.map(|()| true),
        AutoscaleCommand::Status(args) => decided::status(&args).await,
        AutoscaleCommand::Log(args) => decided::log(&args).await,
        AutoscaleCommand::Explain(args) => decided::explain(&args).await,
        AutoscaleCommand::Simulate(args) => simulate(&args).map(|()| true),
    }
}

/// Runs the box until Ctrl-C or its failure.
async fn alone(args: Autoscaler) -> Result<()> {
    let flags = flags(args.mode, args.partitions_max, args.consumers_max);
    let settings = settings(args.parameters.as_deref(), flags)?;
    let config = elkfk_autoscaler::Config {
        bootstrap_servers: args.bootstrap_server,
        zookeeper: args.zookeeper,
        sinks: args.sinks,
        settings,
        groups: args.groups,
        topics: args.topics,
        decisions_topic: args.decisions_topic,
        record: args.record,
        ..elkfk_autoscaler::Config::default()
    };
    let at = config.bootstrap_servers.clone();
    let mode = config.settings.of_all().mode.name();
    let running = elkfk_autoscaler::start(config).await.context("start autoscaler")?;
    let say_standing = async {
        let mut standing = running.standing();
        // Who is there answers within that; a start that works says one line.
        let is_soon = standing.wait_for(|now| !matches!(now, Standing::Waiting(_)));
        let _ = tokio::time::timeout(ANSWER_SOON, is_soon).await;
        loop {
            let (state, what) = match &*standing.borrow_and_update() {
                Standing::Waiting(what) => ("waiting", format!("for {what}")),
                Standing::Behind => ("standby", "another instance decides".to_owned()),
                Standing::Deciding => ("ready", format!("mode {mode}")),
            };
            sayln!("{:<12} {at:<26} {state:<9} {what}", "autoscaler");
            if standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let result = tokio::select! {
        () = say_standing => Ok(()),
        error = running.failed() => Err(anyhow!("autoscaler: {error}")),
        () = asked_to_stop() => Ok(()),
    };
    tokio::select! {
        () = running.stop() => {}
        () = asked_to_stop() => std::process::exit(130),
    }
    result
}

/// Parameters that were given as flags, under their names in the file.
pub(crate) fn flags(
    mode: Option<args::Mode>,
    partitions_max: Option<u32>,
    consumers_max: Option<u32>,
) -> Map<String, Value> {
    let mode = mode.map(|mode| match mode {
        args::Mode::Off => Mode::Off,
        args::Mode::Advise => Mode::Advise,
        args::Mode::Auto => Mode::Auto,
    });
    let given = [
        ("mode", mode.map(|mode| Value::from(mode.name()))),
        ("partitions_max", partitions_max.map(Value::from)),
        ("consumers_max", consumers_max.map(Value::from)),
    ];
    given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// The file's parameters, if there is one, under the flags.
pub(crate) fn settings(file: Option<&Path>, mut flags: Map<String, Value>) -> Result<Settings> {
    let (name, text) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read {}", path.display()))?;
            (path.display().to_string(), text)
        }
        None => ("flags".to_owned(), "{}".to_owned()),
    };
    // One consumer may be all that there may be.
    if let Some(max) = flags.get("consumers_max").and_then(Value::as_u64)
        && file.is_none()
    {
        let least = u64::from(Parameters::default().consumers_min).min(max);
        flags.insert("consumers_min".to_owned(), least.into());
    }
    Ok(Settings::parse(&name, &text, flags)?)
}

pub(crate) fn simulate(args: &Simulate) -> Result<()> {
    let traces: Vec<Trace> = match args.traces.as_slice() {
        [] => names().filter_map(simulate::scenario).collect(),
        asked => {
            let found = asked.iter().map(|name| traces(name)).collect::<Result<Vec<_>>>()?;
            found.into_iter().flatten().collect()
        }
    };
    let policies = match &args.policy {
        None => Policy::ALL.to_vec(),
        Some(name) => vec![policy(name)?],
    };
    let parameters = match &args.parameters {
        None => simulate::acting(),
        Some(file) => {
            let flags = flags(Some(args::Mode::Auto), None, None);
            settings(Some(file), flags)?.of_all().clone()
        }
    };
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

/// A scenario of this name, else a file: a trace, or a recording, which has one for each group and topic.
fn traces(name: &str) -> Result<Vec<Trace>> {
    if let Some(trace) = simulate::scenario(name) {
        return Ok(vec![trace]);
    }
    if !Path::new(name).exists() {
        let hint = elkfk_base::mistakes::did_you_mean(name, names());
        let known: Vec<_> = names().collect();
        bail!("{name}: no such file and no such scenario{hint}; there are {}", known.join(", "));
    }
    let mut traces = recorded::read(name)?;
    for trace in &mut traces {
        let mistakes = trace.mistakes();
        if !mistakes.is_empty() {
            bail!("{name}: {}", mistakes.join("; "));
        }
        if trace.name.is_empty() {
            name.clone_into(&mut trace.name);
        }
    }
    Ok(traces)
}
