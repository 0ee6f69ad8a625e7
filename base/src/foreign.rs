//! Requests that a page of another site makes a browser send to a port on this machine.
//!
//! A port on loopback has no password: that nobody else reaches it is its protection. A browser
//! reaches it for any page it shows. Two ways are closed here: a name of the page's own that was
//! made to point here (DNS rebinding), which the `Host` header gives away, and a plain request
//! across sites, of which browsers say so in `Origin` and `Sec-Fetch-Site`. Programs send neither.

use std::net::IpAddr;

/// What a request says of where it comes from; `None` for headers it lacks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// GET or HEAD.
    pub only_reads: bool,
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`
    pub fetch_site: Option<&'a str>,
    /// `Sec-Fetch-Mode`
    pub fetch_mode: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// Of a request by what `header` says: the value of a header named in lower case.
    pub fn of(only_reads: bool, header: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            only_reads,
            host: header("host"),
            origin: header("origin"),
            fetch_site: header("sec-fetch-site"),
            fetch_mode: header("sec-fetch-mode"),
        }
    }
}

/// Whether a server that listens on `listen` should refuse the request as that of another site's page.
pub fn is_foreign(listen: IpAddr, asked: &Asked<'_>) -> bool {
    let host = asked.host.unwrap_or_default();
    if listen.is_loopback() && !host.is_empty() && !is_loopback_name(without_port(host)) {
        return true;
    }
    // A link that was followed is foreign too, but shows its answer to the user and not to the page.
    let is_link = asked.only_reads && asked.fetch_mode == Some("navigate");
    if asked.fetch_site == Some("cross-site") && !is_link {
        return true;
    }
    asked.origin.is_some_and(|origin| is_foreign_origin(origin, host))
}

fn is_foreign_origin(origin: &str, host: &str) -> bool {
    let authority = match origin.split_once("://") {
        Some(("http" | "https", authority)) => authority,
        // An extension that the user installed, which is no page.
        Some(_) => return false,
        // `null`: a sandboxed frame, a file, a redirect from elsewhere.
        None => return true,
    };
    let is_own = authority.eq_ignore_ascii_case(host);
    let is_local =
        is_loopback_name(without_port(authority)) && is_loopback_name(without_port(host));
    !is_own && !is_local
}

fn without_port(authority: &str) -> &str {
    authority
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(authority, |(name, _)| name)
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name == "[::1]"
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const EVERY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn ask<'a>(host: &'a str, origin: &'a str) -> Asked<'a> {
        Asked {
            host: Some(host),
            origin: Some(origin).filter(|origin| !origin.is_empty()),
            ..Asked::default()
        }
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        for host in ["localhost", "LOCALHOST:9200", "127.0.0.1:9200", "127.0.0.2", "[::1]:9200", ""]
        {
            assert!(!is_foreign(LOOPBACK, &ask(host, "")), "{host}");
        }
        assert!(!is_foreign(LOOPBACK, &Asked::default()));
        for host in ["evil.example", "localhost.evil.example:9200", "10.0.0.1:9200", "x:y"] {
            assert!(is_foreign(LOOPBACK, &ask(host, "")), "{host}");
            assert!(!is_foreign(EVERY, &ask(host, "")), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for listen in [LOOPBACK, EVERY] {
            for origin in ["https://evil.example", "http://localhost.evil.example", "null", "evil"]
            {
                assert!(is_foreign(listen, &ask("localhost:9200", origin)), "{origin}");
            }
            for origin in
                ["http://localhost:9200", "http://127.0.0.1:3000", "moz-extension://ab-cd"]
            {
                assert!(!is_foreign(listen, &ask("localhost:9200", origin)), "{origin}");
            }
        }
        assert!(!is_foreign(EVERY, &ask("logs.example:9200", "http://logs.example:9200")));
        assert!(is_foreign(EVERY, &ask("logs.example:9200", "http://localhost:3000")));
    }

    #[test]
    fn a_link_may_be_followed_but_nothing_sent_across_sites() {
        let across = |only_reads, fetch_mode| Asked {
            only_reads,
            host: Some("localhost:5601"),
            fetch_site: Some("cross-site"),
            fetch_mode,
            ..Asked::default()
        };
        assert!(!is_foreign(LOOPBACK, &across(true, Some("navigate"))));
        assert!(is_foreign(LOOPBACK, &across(false, Some("navigate"))));
        assert!(is_foreign(LOOPBACK, &across(true, Some("no-cors"))));
        let own = Asked { fetch_site: Some("same-origin"), ..across(false, Some("cors")) };
        assert!(!is_foreign(LOOPBACK, &own));
    }
}
