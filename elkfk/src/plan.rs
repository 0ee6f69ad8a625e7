//! What `elkfk up` is to run: flags over files over defaults, settled before anything is started.
//!
//! A flag that contradicts a file and cannot win over it is refused by name; so is a file that points
//! to a server which is not the one started here.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use elkfk_autoscaler::shell::Settings;

use crate::args::{Mode, Up};
use crate::files::{self, ConfigFile, Values};
use crate::{autoscale, demo};

const COORDINATOR_PORT: u16 = 2181;
const BROKER_PORT: u16 = 9092;
const TOPIC: &str = "logs";
pub(crate) const AUTOSCALER_JSON: &str = "autoscaler.json";
const WATCH: &str = "/var/log/**";

/// The configuration of every box; `None` where the real thing is used.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) data: PathBuf,
    pub(crate) listen: IpAddr,
    pub(crate) coordinator: Option<elkfk_coordinator::Config>,
    pub(crate) broker: Option<Broker>,
    /// Its hosts are set once the broker's address is known.
    pub(crate) shipper: elkfk_shipper::Config,
    /// The topic between shipper and sink; `None` where filebeat.yml makes it from each event.
    pub(crate) topic: Option<String>,
    /// Those of the configuration directory; empty: the default one.
    pub(crate) pipelines: Vec<PathBuf>,
    /// `None`: nothing is decided about backlogs.
    pub(crate) autoscaler: Option<Settings>,
}

/// server.properties, read again once the coordinator's address is known.
#[derive(Debug)]
pub(crate) struct Broker {
    name: String,
    text: String,
    /// `key=value` of the flags.
    overrides: Vec<String>,
    /// What follows the hosts in zookeeper.connect: empty, or `/path`.
    chroot: String,
    config: elkfk_broker::Config,
}

impl Broker {
    /// Its configuration on a coordinator at `at`, or on the ZooKeeper it already names.
    pub(crate) fn on(self, at: Option<SocketAddr>) -> Result<elkfk_broker::Config> {
        let Self { name, text, mut overrides, chroot, config } = self;
        let Some(at) = at else { return Ok(config) };
        overrides.push(format!("zookeeper.connect={at}{chroot}"));
        Ok(elkfk_broker::Config::from_text(&name, &text, &overrides)?)
    }
}

impl Plan {
    pub(crate) fn of(args: &Up) -> Result<Self> {
        let config = args.config.as_deref();
        if let Some(dir) = config.filter(|dir| !dir.is_dir()) {
            bail!("--config {}: no such directory; elkfk init {0} writes one", dir.display());
        }
        let data = match (&args.data, config) {
            (Some(data), _) => data.clone(),
            // Where the files of `init` keep theirs.
            (None, Some(dir)) => dir.join("data"),
            (None, None) => default_data()?,
        };
        let data =
            std::path::absolute(&data).with_context(|| format!("find {}", data.display()))?;
        let listen = args.listen.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let mut watch =
            if args.watch.is_empty() { vec![WATCH.to_owned()] } else { args.watch.clone() };
        let demo = args.demo.then(|| format!("{}/**", demo::directory(&data).display()));
        watch.extend(demo.clone());
        let values = Values {
            data: data.clone(),
            listen,
            coordinator_port: args.coordinator_port.unwrap_or(COORDINATOR_PORT),
            broker_port: args.broker_port.unwrap_or(BROKER_PORT),
            zookeeper: args.zookeeper.clone().unwrap_or_else(|| {
                let port = args.coordinator_port.unwrap_or(COORDINATOR_PORT);
                SocketAddr::new(listen, port).to_string()
            }),
            bootstrap: args.bootstrap_server.clone().unwrap_or_else(|| {
                SocketAddr::new(listen, args.broker_port.unwrap_or(BROKER_PORT)).to_string()
            }),
            topic: args.topic.clone().unwrap_or_else(|| TOPIC.to_owned()),
            watch,
        };

        let has_broker = args.bootstrap_server.is_none();
        let coordinator = if has_broker && args.zookeeper.is_none() {
            Some(coordinator(args, config, &values)?)
        } else {
            None
        };
        let broker = match has_broker {
            true => Some(broker(args, config, &values, coordinator.as_ref())?),
            false => None,
        };
        let shipper = shipper(args, config, &values, broker.as_ref(), demo)?;
        let topic = shipper.output.topic.fixed().map(str::to_owned);
        let plan = Self {
            data,
            listen,
            coordinator,
            broker,
            shipper,
            topic,
            pipelines: files::pipelines(config)?,
            autoscaler: autoscaler(args, config)?,
        };
        if plan.topic.is_none() && plan.pipelines.is_empty() {
            bail!(
                "filebeat.yml makes output.kafka.topic from each event, and the default pipeline reads one topic; give it with --topic, or put pipelines into --config DIR/pipelines"
            );
        }
        if args.data.is_some() {
            plan.check_data()?;
        }
        Ok(plan)
    }

    /// With `--data`, no file may keep its box's data elsewhere.
    fn check_data(&self) -> Result<()> {
        let mut kept = Vec::new();
        if let Some(config) = &self.coordinator {
            kept.push(("dataDir of zoo.cfg", &config.data_dir));
            kept.extend(config.data_log_dir.iter().map(|dir| ("dataLogDir of zoo.cfg", dir)));
        }
        if let Some(broker) = &self.broker {
            let dirs = broker.config.log_dirs.iter();
            kept.extend(dirs.map(|dir| ("log.dirs of server.properties", dir)));
        }
        kept.push(("path.data of filebeat.yml", &self.shipper.data));
        for (what, dir) in kept {
            let dir = std::path::absolute(dir)?;
            ensure!(
                dir.starts_with(&self.data),
                "--data {}: but {what} is {}; leave --data out, or change the file",
                self.data.display(),
                dir.display()
            );
        }
        Ok(())
    }

    /// Each port in force, before anything is started: what sets it is known here.
    pub(crate) fn check_ports(&self, args: &Up) -> Result<()> {
        let ip = self.listen.to_string();
        let mut wanted = Vec::new();
        if let Some(config) = &self.coordinator {
            let host = config.listen.ip().to_string();
            wanted.push(("coordinator", "--coordinator-port", host, config.listen.port()));
        }
        if let Some(broker) = &self.broker {
            for listener in &broker.config.listeners {
                let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
                wanted.push(("broker", "--broker-port", host.to_owned(), listener.port));
            }
        }
        if args.elasticsearch.is_none() {
            wanted.push(("store", "--store-port", ip.clone(), args.store_port));
        }
        wanted.push(("dashboard", "--dashboard-port", ip, args.dashboard_port));
        let mut taken = Vec::new();
        for (name, flag, host, port) in wanted {
            if port == 0 {
                continue;
            }
            if let Err(error) = TcpListener::bind((host.as_str(), port)) {
                let cause = match error.kind() {
                    std::io::ErrorKind::AddrInUse => {
                        "the address is in use; stop the program that holds it".to_owned()
                    }
                    _ => error.to_string(),
                };
                let at = match host.parse() {
                    Ok(ip) => SocketAddr::new(ip, port).to_string(),
                    Err(_) => format!("{host}:{port}"),
                };
                taken.push(format!("{name}: listen on {at}: {cause}, or give another port with {flag} (0 takes any free one)"));
            }
        }
        if taken.is_empty() { Ok(()) } else { bail!("{}", taken.join("\n")) }
    }
}

/// Where data goes unless `--data` or `--config` says otherwise.
fn default_data() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    Ok(base
        .context("neither XDG_DATA_HOME nor HOME is set; give a directory with --data")?
        .join("elkfk"))
}

/// What the autoscaler may do: flags over autoscaler.json over the defaults.
fn autoscaler(args: &Up, config: Option<&Path>) -> Result<Option<Settings>> {
    if args.autoscale == Some(Mode::Off) {
        return Ok(None);
    }
    let file = config.map(|dir| dir.join(AUTOSCALER_JSON)).filter(|file| file.exists());
    let flags = autoscale::flags(args.autoscale, args.partitions_max, args.consumers_max);
    autoscale::settings(file.as_deref(), flags).map(Some)
}

fn coordinator(
    args: &Up,
    config: Option<&Path>,
    values: &Values,
) -> Result<elkfk_coordinator::Config> {
    let Some(path) = files::COORDINATOR.path(config) else {
        let text = files::COORDINATOR.text(values);
        let parsed = elkfk_coordinator::Config::parse(files::COORDINATOR.name, &text)?;
        return Ok(without_default_admin(parsed));
    };
    let mut read = elkfk_coordinator::Config::from_file(&path)?;
    if let Some(port) = args.coordinator_port {
        read.listen.set_port(port);
    }
    if let Some(ip) = args.listen {
        read.listen.set_ip(ip);
    }
    Ok(without_default_admin(read))
}

/// The page has it all, so the AdminServer is there only for who asks for it.
fn without_default_admin(mut config: elkfk_coordinator::Config) -> elkfk_coordinator::Config {
    config.admin.is_enabled &= config.admin.is_asked_for;
    config
}

/// A file's name for messages and its text, or the defaults'.
fn text(file: ConfigFile, config: Option<&Path>, values: &Values) -> Result<(String, String)> {
    match file.path(config) {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            Ok((path.display().to_string(), text))
        }
        None => Ok((file.name.to_owned(), file.text(values))),
    }
}

fn broker(
    args: &Up,
    config: Option<&Path>,
    values: &Values,
    coordinator: Option<&elkfk_coordinator::Config>,
) -> Result<Broker> {
    let (name, text) = text(files::BROKER, config, values)?;
    let read = elkfk_broker::Config::from_text(&name, &text, &[])?;
    let mut overrides = Vec::new();
    if args.broker_port.is_some() || args.listen.is_some() {
        let [listener] = &read.listeners[..] else {
            let flag = if args.broker_port.is_some() { "--broker-port" } else { "--listen" };
            bail!(
                "{name} has {} listeners, and {flag} can set but one; leave the flag out, or change listeners in the file",
                read.listeners.len()
            );
        };
        let host = args.listen.map_or(listener.host.clone(), |ip| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        let port = args.broker_port.unwrap_or(listener.port);
        overrides.push(format!("listeners={}://{host}:{port}", listener.name));
    }
    let connect = read.zookeeper_connect.clone();
    let (hosts, path) = connect.split_at(connect.find('/').unwrap_or(connect.len()));
    if let Some(zookeeper) = &args.zookeeper {
        overrides.push(format!("zookeeper.connect={zookeeper}"));
    } else if let (Some(coordinator), Some(_)) = (coordinator, files::BROKER.path(config)) {
        // The port as the files have it, before a flag changed it: the two files agree on that.
        let of_file = match files::COORDINATOR.path(config) {
            Some(path) => elkfk_coordinator::Config::from_file(&path)?.listen.port(),
            None => COORDINATOR_PORT,
        };
        let ports = [of_file, coordinator.listen.port()];
        if let Some(other) = foreign(hosts.split(','), &ports, coordinator.listen.ip()) {
            bail!(
                "{name}: zookeeper.connect={connect}: {other} is not the coordinator that is started here ({}); use it with --zookeeper {connect}, or change the line",
                coordinator.listen
            );
        }
    }
    let config = elkfk_broker::Config::from_text(&name, &text, &overrides)?;
    Ok(Broker { name, text, overrides, chroot: path.to_owned(), config })
}

fn shipper(
    args: &Up,
    config: Option<&Path>,
    values: &Values,
    broker: Option<&Broker>,
    demo: Option<String>,
) -> Result<elkfk_shipper::Config> {
    let (name, text) = text(files::SHIPPER, config, values)?;
    let mut read =
        elkfk_shipper::Config::parse(&name, &text, false, &|name| std::env::var(name).ok())?;
    if files::SHIPPER.path(config).is_none() {
        return Ok(read);
    }
    if args.topic.is_some() {
        let defaults = files::SHIPPER.text(values);
        let defaults =
            elkfk_shipper::Config::parse(files::SHIPPER.name, &defaults, false, &|_| None)?;
        read.output.topic = defaults.output.topic;
    }
    if !args.watch.is_empty() {
        let [input] = &mut read.inputs[..] else {
            bail!(
                "{name} has {} inputs, and --watch can set the paths of but one; leave the flag out, or change the file",
                read.inputs.len()
            );
        };
        input.paths.clone_from(&args.watch);
    }
    if let Some(glob) = demo {
        let mut inputs = elkfk_shipper::Config::watch([glob], "", "").inputs;
        inputs.iter_mut().for_each(|input| "demo".clone_into(&mut input.id));
        read.inputs.append(&mut inputs);
    }
    if let Some(broker) = broker {
        let ports: Vec<u16> = elkfk_broker::Config::from_text(&broker.name, &broker.text, &[])?
            .listeners
            .iter()
            .chain(&broker.config.listeners)
            .map(|listener| listener.port)
            .collect();
        let hosts = read.output.hosts.iter().map(String::as_str);
        if let Some(other) = foreign(hosts, &ports, values.listen) {
            bail!(
                "{name}: output.kafka.hosts: {other} is not the broker that is started here (port {}); use it with --bootstrap-server {}, or change the line",
                broker.config.listeners.first().map_or(0, |listener| listener.port),
                read.output.hosts.join(",")
            );
        }
    }
    Ok(read)
}

/// The first of `hosts` that is not on this machine at one of `ports`.
fn foreign<'a>(
    hosts: impl Iterator<Item = &'a str>,
    ports: &[u16],
    listen: IpAddr,
) -> Option<&'a str> {
    hosts.map(str::trim).find(|at| {
        let (host, port) = at.rsplit_once(':').unwrap_or((at, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == listen);
        !is_here || !port.parse().is_ok_and(|port| ports.contains(&port))
    })
}
