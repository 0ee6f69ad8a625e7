//! `elkfk up`: every box in one process, over the sockets they would use apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use elkfk_autoscaler::shell::DECISIONS_TOPIC;
use elkfk_base::Tasks;
use elkfk_broker_client::{Client, NewTopic};
use tracing::{info, warn};

use crate::args::Up;
use crate::plan::Plan;
use crate::say::{asideln, sayln};
use crate::{demo, files, signals};

const GROUP: &str = "elkfk-sink";
const PARTITIONS: i32 = 3;
/// A box that has not stopped by then is left behind; what it holds is safe, see docs/ARCHITECTURE.md.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The boxes that run here; `None` where the real thing is used, or nothing has started yet.
#[derive(Debug, Default)]
struct Boxes {
    coordinator: Option<elkfk_coordinator::Running>,
    broker: Option<elkfk_broker::Running>,
    store: Option<elkfk_store::Running>,
    sink: Option<elkfk_sink::Running>,
    autoscaler: Option<elkfk_autoscaler::Running>,
    shipper: Option<elkfk_shipper::Running>,
    dashboard: Option<elkfk_dashboard::Running>,
    demo: Option<Tasks>,
}

impl Boxes {
    /// Stops in the order of the data, so that nothing is asked of a box that has left.
    async fn stop(self) {
        if let Some(demo) = self.demo {
            demo.shutdown().await;
        }
        if let Some(shipper) = self.shipper {
            stopped("shipper", shipper.stop()).await;
        }
        if let Some(autoscaler) = self.autoscaler {
            stopped("autoscaler", autoscaler.stop()).await;
        }
        if let Some(sink) = self.sink {
            stopped("sink", sink.stop()).await;
        }
        if let Some(dashboard) = self.dashboard {
            stopped("dashboard", dashboard.stop()).await;
        }
        if let Some(store) = self.store {
            stopped("store", store.stop()).await;
        }
        if let Some(broker) = self.broker {
            stopped("broker", broker.stop()).await;
        }
        if let Some(coordinator) = self.coordinator {
            stopped("coordinator", coordinator.stop()).await;
        }
    }

    /// Resolves when a box ends by itself, with its name and the reason.
    async fn failed(&self) -> anyhow::Error {
        async fn of<F: Future<Output = String>>(name: &str, failure: Option<F>) -> anyhow::Error {
            match failure {
                Some(failure) => anyhow!("{name}: {}", failure.await),
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            error = of("coordinator", self.coordinator.as_ref().map(|running| running.failed())) => error,
            error = of("broker", self.broker.as_ref().map(|running| running.failed())) => error,
            error = of("store", self.store.as_ref().map(|running| running.failed())) => error,
            error = of("sink", self.sink.as_ref().map(|running| running.failed())) => error,
            error = of("autoscaler", self.autoscaler.as_ref().map(|running| running.failed())) => error,
            error = of("shipper", self.shipper.as_ref().map(|running| running.failed())) => error,
            error = of("dashboard", self.dashboard.as_ref().map(|running| running.failed())) => error,
        }
    }
}

async fn stopped(name: &'static str, stop: impl Future<Output = ()>) {
    match tokio::time::timeout(STOP_LIMIT, stop).await {
        Ok(()) => info!(name, "box stopped"),
        Err(_) => warn!(name, "did not stop in time and is left behind"),
    }
}

fn say(name: &str, at: &str, state: &str, more: &str) {
    sayln!("{:<12} {at:<26} {state:<9} {more}", name);
}

/// Runs until Ctrl-C, SIGTERM or the failure of a box.
pub(crate) async fn run(args: Up) -> Result<()> {
    let mut boxes = Boxes::default();
    let result = tokio::select! {
        result = start(&args, &mut boxes) => result,
        () = signals::asked_to_stop() => Err(anyhow!("stopped while starting")),
    };
    let result = match result {
        Ok(()) => {
            sayln!("\nCtrl-C stops, data is kept");
            tokio::select! {
                error = boxes.failed() => Err(error),
                () = signals::asked_to_stop() => Ok(()),
            }
        }
        Err(error) => Err(error),
    };
    if result.is_ok() {
        asideln!("stopping; Ctrl-C again ends at once");
    }
    tokio::select! {
        () = boxes.stop() => {}
        () = signals::asked_to_stop() => std::process::exit(130),
    }
    result
}

async fn start(args: &Up, boxes: &mut Boxes) -> Result<()> {
    let plan = Plan::of(args)?;
    plan.check_ports(args)?;
    let Plan { data, listen, coordinator, broker, mut shipper, topic, pipelines, autoscaler } =
        plan;
    std::fs::create_dir_all(&data).with_context(|| {
        format!("create {}; make its parent writable for this user or give another directory with --data", data.display())
    })?;

    // The store needs none of the others: it opens its indices while the broker opens its logs.
    let store = async {
        if args.elasticsearch.is_some() {
            return Ok(None);
        }
        let listen = SocketAddr::new(listen, args.store_port);
        let config = elkfk_store::Config {
            listen,
            data_dir: data.join("store"),
            retention_days: args.retention_days,
            ..Default::default()
        };
        elkfk_store::start(config).await.context("start store").map(Some)
    };
    let brokers = async {
        let bootstrap = if let Some(broker) = broker {
            let mut at = None;
            if let Some(config) = coordinator {
                let coordinator =
                    elkfk_coordinator::start(config).await.context("start coordinator")?;
                let addr = reachable(coordinator.local_addr());
                at = Some(addr);
                say("coordinator", &addr.to_string(), "ready", "");
                boxes.coordinator = Some(coordinator);
            }
            let broker = elkfk_broker::start(broker.on(at)?).await.context("start broker")?;
            let addr = reachable(broker.local_addr());
            boxes.broker = Some(broker);
            addr.to_string()
        } else {
            args.bootstrap_server.clone().context("neither a broker nor --bootstrap-server")?
        };
        let topic = ensure_topic(&bootstrap, topic.as_deref()).await?;
        let state = if args.bootstrap_server.is_some() { "given" } else { "ready" };
        say("broker", &bootstrap, state, &topic);
        Ok::<_, anyhow::Error>(bootstrap)
    };
    let (store, brokers) = tokio::join!(store, brokers);
    // Even where the brokers failed, a store that runs is stopped in order.
    let bootstrap = match store {
        Ok(store) => {
            boxes.store = store;
            brokers?
        }
        Err(error) => {
            brokers?;
            return Err(error);
        }
    };
    let elasticsearch = match (&args.elasticsearch, &boxes.store) {
        (Some(url), _) => url.clone(),
        (None, Some(store)) => format!("http://{}", reachable(store.local_addr())),
        (None, None) => bail!("neither a store nor --elasticsearch"),
    };
    let at = elasticsearch.trim_start_matches("http://").trim_end_matches('/');
    say(
        "store",
        at,
        if args.elasticsearch.is_some() { "given" } else { "ready" },
        "index logs-YYYY.MM.dd",
    );

    if args.demo {
        let tasks = Tasks::new();
        demo::start(&demo::directory(&data), &tasks).context("start the demo")?;
        boxes.demo = Some(tasks);
    }
    let pipelines = if pipelines.is_empty() { default_pipeline(&data)? } else { pipelines };
    let mut env = BTreeMap::from([
        ("ELKFK_BOOTSTRAP".to_owned(), bootstrap.clone()),
        ("ELKFK_ELASTICSEARCH".to_owned(), elasticsearch.clone()),
    ]);
    env.extend(topic.map(|topic| ("ELKFK_TOPIC".to_owned(), topic)));
    let defaults = elkfk_sink::Config::default();
    let sink = elkfk_sink::start(elkfk_sink::Config {
        files: pipelines.clone(),
        env,
        group: Some(GROUP.to_owned()),
        instance: Some(instance(&data)?),
        // For the page and the autoscaler; it asks for no password, so for nobody else.
        api: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        consumers_max: args.consumers_max.map_or(defaults.consumers_max, |max| max as usize),
        ..defaults
    });
    let sink = sink.await.context("start sink")?;
    let sinks: Vec<_> = sink.api_addr().map(|at| format!("http://{at}")).into_iter().collect();
    boxes.sink = Some(sink);
    let names: Vec<_> = pipelines.iter().filter_map(|path| pipeline_name(path)).collect();
    let api = sinks.first().map(|at| format!(", api {at}")).unwrap_or_default();
    let of_pipelines = format!("pipeline {}{api}", names.join(", "));
    say("sink", &format!("group {GROUP}"), "ready", &of_pipelines);

    let zookeeper = match (&args.zookeeper, &boxes.coordinator) {
        (Some(connect), _) => Some(connect.clone()),
        (None, Some(coordinator)) => Some(reachable(coordinator.local_addr()).to_string()),
        (None, None) => None,
    };
    // The page comes before the lines, so that it shows the first of them.
    let page = elkfk_dashboard::start(elkfk_dashboard::Config {
        listen: SocketAddr::new(listen, args.dashboard_port),
        bootstrap_servers: bootstrap.clone(),
        elasticsearch,
        data: Some(data.join("dashboard")),
        zookeeper: zookeeper.clone(),
        sinks: sinks.clone(),
        decisions_topic: DECISIONS_TOPIC.to_owned(),
        external_url: args.external_url.clone(),
        ..Default::default()
    });
    let page = page.await.context("start dashboard")?;
    let page_at = format!("http://{}", reachable(page.local_addr()));
    boxes.dashboard = Some(page);

    if let Some(settings) = autoscaler {
        let mode = settings.of_all().mode.name();
        let running = elkfk_autoscaler::start(elkfk_autoscaler::Config {
            bootstrap_servers: bootstrap.clone(),
            zookeeper,
            sinks,
            settings,
            ..Default::default()
        });
        boxes.autoscaler = Some(running.await.context("start autoscaler")?);
        say("autoscaler", &format!("topic {DECISIONS_TOPIC}"), "ready", mode);
    }

    shipper.output.hosts = bootstrap.split(',').map(|host| host.trim().to_owned()).collect();
    let paths: Vec<_> =
        shipper.inputs.iter().flat_map(|input| &input.paths).map(String::as_str).collect();
    let paths = paths.join(" ");
    boxes.shipper = Some(elkfk_shipper::start(shipper).await.context("start shipper")?);
    say("shipper", &paths, "reading", "");
    say("dashboard", &page_at, "ready", "");
    info!(data = %data.display(), "all boxes run");
    Ok(())
}

/// Where a listener on every address can be reached from here.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], addr.port())) } else { addr }
}

/// Creates the topic where it does not exist; says how many partitions it has.
async fn ensure_topic(bootstrap: &str, topic: Option<&str>) -> Result<String> {
    let client = Client::new(elkfk_broker_client::Config::to(bootstrap));
    let asked: Vec<&str> = topic.into_iter().collect();
    let cluster = client.metadata(Some(&asked)).await.with_context(|| {
        format!("ask {bootstrap} for topic {}", topic.unwrap_or("of filebeat.yml"))
    })?;
    let Some(topic) = topic else {
        return Ok("topics as filebeat.yml makes them of each event".to_owned());
    };
    let existing = cluster.topic(topic).map_or(0, |topic| topic.partitions.len());
    if existing > 0 {
        return Ok(format!("topic {topic}, {existing} partitions"));
    }
    let created = client
        .create_topic(
            &NewTopic {
                name: topic.to_owned(),
                partitions: Some(PARTITIONS),
                ..NewTopic::default()
            },
            false,
        )
        .await;
    match created.with_context(|| format!("create topic {topic}"))? {
        Ok(_) => Ok(format!("topic {topic}, {PARTITIONS} partitions")),
        Err(refused) => bail!("create topic {topic}: {refused}"),
    }
}

/// The default pipeline, written below `data` so that it can be read there.
fn default_pipeline(data: &Path) -> Result<Vec<PathBuf>> {
    let path = data.join("sink/default/pipeline.conf");
    std::fs::create_dir_all(data.join("sink/default"))
        .with_context(|| format!("create {}", data.join("sink").display()))?;
    std::fs::write(&path, files::default_pipeline()?)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(vec![path])
}

/// The name of this data directory's sink in its group, drawn once: another `elkfk up` on the same Kafka has another.
fn instance(data: &Path) -> Result<String> {
    let path = data.join("sink/instance");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => {
            let name = format!("elkfk-{:08x}", rand::random::<u32>());
            std::fs::create_dir_all(data.join("sink"))
                .with_context(|| format!("create {}", data.join("sink").display()))?;
            elkfk_base::durable::replace(&path, name.as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
            Ok(name)
        }
    }
}

/// `nginx` of `…/nginx/pipeline.conf` and of `…/nginx.conf`.
fn pipeline_name(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_string_lossy();
    if stem == "pipeline" {
        Some(path.parent()?.file_name()?.to_string_lossy().into_owned())
    } else {
        Some(stem.into_owned())
    }
}
