//! Where messages say that the page is: as it was given, else where people last found it, else where it
//! listens. Pure but for the machine's name.

use std::sync::OnceLock;

use super::Alerts;
use crate::Config;

const BYTES_MAX: usize = 300;

pub(super) fn of(config: &Config, alerts: &Alerts) -> String {
    let given = config.external_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
    given.or_else(|| alerts.kept.page_url.clone()).unwrap_or_else(|| {
        let (ip, port) = (config.listen.ip(), config.listen.port());
        match ip.is_unspecified() {
            // That is no address to go to.
            true => format!("http://{}:{port}", host_name()),
            false => format!("http://{}", config.listen),
        }
    })
}

fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
    })
}

/// Of the headers of a request that was found to come from the page itself, or from a program. A page behind
/// a proxy that speaks https says so in its origin.
pub(super) fn of_request(host: Option<&str>, origin: Option<&str>) -> Option<String> {
    let is_page = |origin: &&str| origin.starts_with("http://") || origin.starts_with("https://");
    let url = match origin.filter(is_page) {
        Some(origin) => origin.to_owned(),
        None => format!("http://{}", host.filter(|host| !host.is_empty())?),
    };
    let uri: hyper::Uri = url.parse().ok()?;
    let is_more = uri.authority()?.as_str().contains('@') || !matches!(uri.path(), "" | "/");
    (url.len() <= BYTES_MAX && !is_more && uri.query().is_none()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_before_what_was_seen_and_that_before_what_is_listened_on() {
        let mut alerts = super::super::open(None);
        let mut config = Config { listen: ([127, 0, 0, 1], 5601).into(), ..Config::default() };
        assert_eq!(of(&config, &alerts), "http://127.0.0.1:5601");
        config.listen = ([0, 0, 0, 0], 5601).into();
        assert_eq!(of(&config, &alerts), format!("http://{}:5601", host_name()));
        alerts.kept.page_url = of_request(Some("logs.shop:5601"), None);
        assert_eq!(of(&config, &alerts), "http://logs.shop:5601");
        config.external_url = Some("https://logs.shop/".into());
        assert_eq!(of(&config, &alerts), "https://logs.shop");
    }

    #[test]
    fn only_a_plain_address_is_taken_from_a_request() {
        let of = |host, origin| of_request(host, origin);
        assert_eq!(of(Some("a:1"), Some("https://logs")), Some("https://logs".into()));
        assert_eq!(of(Some("a:1"), Some("null")), Some("http://a:1".into()));
        let long = "x".repeat(BYTES_MAX);
        for host in ["", "user@a", "a/b", "a?b", "a b", "<b>", &long] {
            assert_eq!(of(Some(host), None), None, "{host}");
        }
        assert_eq!(of(None, None), None);
    }
}
