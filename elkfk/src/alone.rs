//! One box alone, with its ancestor's configuration file.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::args;
use crate::files;
use crate::say::sayln;
use crate::signals::asked_to_stop;

fn say(name: &str, at: impl Display) {
    say_how(name, at, "ready");
}

fn say_how(name: &str, at: impl Display, how: impl Display) {
    sayln!("{name:<12} {at:<26} {how}");
}

/// Runs until Ctrl-C or the failure of the box; then `stop` is awaited.
macro_rules! until_stopped {
    ($name:literal, $running:expr) => {{
        let running = $running;
        let result = tokio::select! {
            error = running.failed() => Err(anyhow!("{}: {error}", $name)),
            () = asked_to_stop() => Ok(()),
        };
        tokio::select! {
            () = running.stop() => {}
            () = asked_to_stop() => std::process::exit(130),
        }
        result
    }};
}

fn read(path: &Path) -> Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

pub(crate) async fn coordinator(file: &Path) -> Result<()> {
    // From the file, as `myid` is read beside it.
    let config = elkfk_coordinator::Config::from_file(file)?;
    let running = elkfk_coordinator::start(config).await.context("start coordinator")?;
    let how = match running.waits_for_a_majority() {
        true => "serves while a majority of its servers runs: elkfk coordinator status",
        false => "ready",
    };
    say_how("coordinator", running.local_addr(), how);
    until_stopped!("coordinator", running)
}

pub(crate) async fn broker(args: args::Broker) -> Result<()> {
    let (name, text) = read(&args.config)?;
    let config = elkfk_broker::Config::from_text(&name, &text, &args.overrides)?;
    let running = elkfk_broker::start(config).await.context("start broker")?;
    say("broker", running.local_addr());
    until_stopped!("broker", running)
}

pub(crate) async fn store(args: args::Store) -> Result<()> {
    let args::Store { data, listen, retention_days } = args;
    let config =
        elkfk_store::Config { listen, data_dir: data, retention_days, ..Default::default() };
    let running = elkfk_store::start(config).await.context("start store")?;
    say("store", running.local_addr());
    until_stopped!("store", running)
}

pub(crate) async fn sink(args: args::Sink) -> Result<()> {
    let mut config = elkfk_sink::Config {
        files: pipelines(&args.config)?,
        workers_max: args.workers_max,
        consumers_max: args.consumers_max,
        ..Default::default()
    };
    if let Some(workers) = args.workers {
        config.workers = workers;
    }
    if args.api_enabled {
        let (host, (first, last)) = (&*args.api_http_host, args.api_http_port);
        let found = tokio::net::lookup_host((host, first)).await;
        let mut found = found.with_context(|| format!("find api.http.host {host}"))?;
        config.api =
            Some(found.next().with_context(|| format!("api.http.host {host} has no address"))?);
        config.api_port_last = Some(last);
    }
    let running = elkfk_sink::start(config).await.context("start sink")?;
    match running.api_addr() {
        Some(api) => {
            say_how("sink", names(&args.config), format_args!("ready     api http://{api}"))
        }
        None => say("sink", names(&args.config)),
    }
    until_stopped!("sink", running)
}

/// The files as given; of a directory without files of its own, the pipelines in its folders, as `up` finds them.
fn pipelines(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in given {
        let nested = if path.is_dir() { files::pipelines_in(path)? } else { vec![] };
        if nested.iter().any(|file| file.parent() != Some(path)) {
            found.extend(nested);
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn shipper(args: args::Shipper) -> Result<()> {
    let (name, text) = read(&args.config)?;
    let config = elkfk_shipper::Config::parse(&name, &text, args.ignore_unsupported, &|name| {
        std::env::var(name).ok()
    })?;
    let running = elkfk_shipper::start(config).await.context("start shipper")?;
    say("shipper", args.config.display());
    until_stopped!("shipper", running)
}

pub(crate) async fn dashboard(args: args::Dashboard) -> Result<()> {
    let config = elkfk_dashboard::Config {
        listen: args.listen,
        bootstrap_servers: args.bootstrap_server,
        elasticsearch: args.elasticsearch,
        index_pattern: args.index,
        data: args.data,
        zookeeper: args.zookeeper,
        sinks: args.sink,
        decisions_topic: args.decisions_topic,
        external_url: args.external_url,
    };
    let running = elkfk_dashboard::start(config).await.context("start dashboard")?;
    let at: SocketAddr = running.local_addr();
    say("dashboard", format!("http://{at}"));
    until_stopped!("dashboard", running)
}

/// Whether every record was sent again.
pub(crate) async fn replay(args: args::Replay) -> Result<bool> {
    let args::Replay { topic, bootstrap_server, from_beginning } = args;
    let topic = topic.strip_suffix(".dead").map(str::to_owned).unwrap_or(topic);
    let config = elkfk_sink::ReplayConfig {
        bootstrap_servers: bootstrap_server,
        topic,
        from_beginning,
        ..Default::default()
    };
    let report = elkfk_sink::replay(config).await.context("replay")?;
    for (topic, count) in &report.sent {
        sayln!("{topic}: {count} sent again");
    }
    let left = [
        (report.without_value, "too large to have been kept, and no longer in their topic"),
        (report.unsendable, report.unsendable_reason.as_deref().unwrap_or("refused")),
        (report.foreign, "no dead letters"),
    ];
    let is_all_sent = left.iter().all(|(count, _)| *count == 0);
    for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
        sayln!("{count} records left: {what}");
    }
    if report.sent.is_empty() {
        sayln!("nothing to send again");
    }
    Ok(is_all_sent)
}
