//! The keys of zoo.cfg that are about what a server tells over HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// ZooKeeper's defaults.
const DEFAULT_PORT: u16 = 8080;
const DEFAULT_URL: &str = "/commands";
const DEFAULT_IDLE: Duration = Duration::from_secs(30);
const DEFAULT_METRICS_PORT: u16 = 7000;

/// The AdminServer, and where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// `admin.enableServer`.
    pub is_enabled: bool,
    /// `admin.serverAddress` and `admin.serverPort`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `admin.commandURL`, with a slash before and none behind.
    pub url: String,
    /// `admin.idleTimeout`: how long a connection may do nothing.
    pub idle: Duration,
    /// Whether zoo.cfg has one of these keys: then a port that is taken is a mistake, and not just
    /// the default's bad luck.
    pub is_asked_for: bool,
    /// Where `/metrics` is, as `metricsProvider.className` and `metricsProvider.httpPort` say.
    pub metrics: Option<SocketAddr>,
    has_metrics: bool,
    metrics_port: u16,
}

impl Default for AdminConfig {
    /// ZooKeeper's, but on loopback, where everything else of ours listens by default.
    fn default() -> Self {
        Self {
            is_enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            url: DEFAULT_URL.to_owned(),
            idle: DEFAULT_IDLE,
            is_asked_for: false,
            metrics: None,
            has_metrics: false,
            metrics_port: DEFAULT_METRICS_PORT,
        }
    }
}

impl AdminConfig {
    /// Neither of the two.
    pub fn off() -> Self {
        Self { is_enabled: false, ..Self::default() }
    }

    /// The keys [`AdminConfig::set`] knows.
    pub(crate) const KEYS: [&str; 7] = [
        "admin.enableServer",
        "admin.serverPort",
        "admin.serverAddress",
        "admin.commandURL",
        "admin.idleTimeout",
        "metricsProvider.className",
        "metricsProvider.httpPort",
    ];

    /// Takes one key of zoo.cfg.
    ///
    /// # Errors
    /// What is wrong with the value, and what to give instead.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = |remedy: &str| Err(format!("{key}={value}: {remedy}"));
        let port = || match value.parse::<u16>() {
            Ok(port) => Ok(port),
            Err(_) => Err(format!("{key}={value}: give a port from 0 to 65535")),
        };
        match key {
            "admin.enableServer" => match value {
                "true" => self.is_enabled = true,
                "false" => self.is_enabled = false,
                _ => return wrong("give true or false"),
            },
            "admin.serverPort" => self.listen.set_port(port()?),
            "admin.serverAddress" => match value {
                "localhost" => self.listen.set_ip(Ipv4Addr::LOCALHOST.into()),
                _ => match value.parse::<IpAddr>() {
                    Ok(address) => self.listen.set_ip(address),
                    Err(_) => return wrong("give an address such as 0.0.0.0"),
                },
            },
            "admin.commandURL" => {
                let url = value.trim_end_matches('/');
                if !url.starts_with('/') || url.len() > 200 {
                    return wrong("give a path such as /commands");
                }
                self.url = url.to_owned();
            }
            "admin.idleTimeout" => match value.parse::<u64>() {
                Ok(ms @ 1..=86_400_000) => self.idle = Duration::from_millis(ms),
                _ => return wrong("give milliseconds from 1 on"),
            },
            "metricsProvider.className" => {
                self.has_metrics = value.ends_with(".PrometheusMetricsProvider");
                if !self.has_metrics && !value.ends_with("MetricsProvider") {
                    return wrong(
                        "give org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider, or leave it out",
                    );
                }
            }
            "metricsProvider.httpPort" => self.metrics_port = port()?,
            _ => unreachable!("every key stands above"),
        }
        self.is_asked_for |= key.starts_with("admin.");
        Ok(())
    }

    /// To be called when all keys are in: metrics are served on the address of the clients.
    pub(crate) fn finish(&mut self, clients: SocketAddr) {
        let metrics = SocketAddr::new(clients.ip(), self.metrics_port);
        self.metrics = self.has_metrics.then_some(metrics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_zookeepers() {
        let mut config = AdminConfig::default();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        for (key, value) in [
            (
                "metricsProvider.className",
                "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
            ),
            ("metricsProvider.httpPort", "7001"),
        ] {
            config.set(key, value).unwrap();
        }
        assert!(!config.is_asked_for);
        config.finish("10.0.0.1:2181".parse().unwrap());
        assert_eq!(config.metrics, Some("10.0.0.1:7001".parse().unwrap()));
        for (key, value) in [
            ("admin.serverPort", "8081"),
            ("admin.serverAddress", "0.0.0.0"),
            ("admin.commandURL", "/cmd/"),
            ("admin.idleTimeout", "5000"),
            ("admin.enableServer", "false"),
        ] {
            config.set(key, value).unwrap();
        }
        assert_eq!(
            (config.listen.to_string().as_str(), config.url.as_str()),
            ("0.0.0.0:8081", "/cmd")
        );
        assert!(config.is_asked_for && !config.is_enabled);
        for (key, value) in [
            ("admin.serverPort", "99999"),
            ("admin.serverAddress", "here"),
            ("admin.enableServer", "yes"),
            ("admin.commandURL", "commands"),
            ("admin.idleTimeout", "0"),
            ("metricsProvider.className", "prometheus"),
        ] {
            let error = config.set(key, value).unwrap_err();
            assert!(error.starts_with(&format!("{key}={value}: give ")), "{error}");
        }
    }
}
