//! The options of output `elasticsearch`, as in docs/sink-delivery.md.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use elkfk_base::Mistakes;

use super::template;
use crate::config::{Located, Options, Plugin};
use crate::delivery::backoff::Backoff;
use crate::event::Template;

/// A checked output.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    pub nodes: Vec<Node>,
    pub index: Template,
    /// What `index` was read from: the template's pattern follows from it.
    pub index_text: String,
    /// `None`: the record's own id.
    pub document_id: Option<Template>,
    pub action: Action,
    /// Value of the header `Authorization`.
    pub authorization: Option<String>,
    pub headers: Vec<(String, String)>,
    /// Path and query of a bulk request, the node's own path not included.
    pub bulk_path: String,
    /// 0 to 9; `None`: 1 for nodes elsewhere, 0 for those on loopback, where it only costs.
    pub compression_level: Option<u32>,
    pub timeout: Duration,
    pub retry: Backoff,
    pub template: Option<IndexTemplate>,
    /// Distinct indices within an hour; events for more are dead letters.
    pub indices_per_hour: usize,
    /// What waits for an index that refuses writes for longer becomes dead letters.
    pub lane_patience: Option<Duration>,
}

/// What happens to a document whose id is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It stays as it is: the default, since our ids name the line.
    Create,
    /// It is replaced.
    Index,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Index => "index",
        }
    }
}

/// One address of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub host: String,
    pub port: u16,
    /// Without a slash at its end; empty for the root.
    pub path: String,
}

impl Node {
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }

    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The index template that is installed where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTemplate {
    pub name: String,
    /// The user's own; else ours.
    pub file: Option<PathBuf>,
    pub overwrite: bool,
}

/// As many shards as Elasticsearch lets a node have by default.
const INDICES_PER_HOUR: u64 = 1000;
const DEFAULT_INDEX: &str = "logs-%{+YYYY.MM.dd}";

const IGNORED: [&str; 16] = [
    "dlq_custom_codes",
    "dlq_on_failed_indexname_interpolation",
    "ecs_compatibility",
    "enable_metric",
    "failure_type_logging_whitelist",
    "healthcheck_path",
    "id",
    "ilm_pattern",
    "ilm_policy",
    "pool_max",
    "pool_max_per_route",
    "resurrect_delay",
    "silence_errors_in_log",
    "template_api",
    "validate_after_inactivity",
    "workers",
];

const REFUSED: [&str; 50] = [
    "ca_trusted_fingerprint",
    "cacert",
    "cloud_auth",
    "cloud_id",
    "codec",
    "data_stream_auto_routing",
    "data_stream_dataset",
    "data_stream_namespace",
    "data_stream_sync_fields",
    "data_stream_type",
    "doc_as_upsert",
    "document_type",
    "drop_error_types",
    "ilm_rollover_alias",
    "join_field",
    "keystore",
    "keystore_password",
    "keystore_type",
    "parameters",
    "parent",
    "proxy",
    "retry_on_conflict",
    "routing",
    "script",
    "script_lang",
    "script_type",
    "script_var_name",
    "scripted_upsert",
    "sniffing",
    "sniffing_delay",
    "sniffing_path",
    "ssl_certificate",
    "ssl_certificate_authorities",
    "ssl_cipher_suites",
    "ssl_key",
    "ssl_keystore_password",
    "ssl_keystore_path",
    "ssl_keystore_type",
    "ssl_supported_protocols",
    "ssl_truststore_password",
    "ssl_truststore_path",
    "ssl_truststore_type",
    "tls_version",
    "truststore",
    "truststore_password",
    "truststore_type",
    "upsert",
    "version",
    "version_type",
    "ssl_certificate_verification",
];

impl Elasticsearch {
    /// Reads the plugin; `None` after noting what was wrong.
    pub fn read(plugin: &Plugin, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.0.len();
        let mut options = Options::new(plugin, mistakes);
        let path = options.text("path").unwrap_or_default();
        let mut hosts = options.list("hosts");
        if hosts.is_empty() {
            let place = plugin.place.clone();
            hosts.push(Located { value: "127.0.0.1:9200".into(), place });
        }
        let mut user = options.text("user");
        let mut password = options.text("password").unwrap_or_default();
        let api_key = options.text("api_key");
        let mut nodes = Vec::new();
        for host in &hosts {
            match read_host(&host.value, &path) {
                Ok((node, credentials)) => {
                    nodes.push(node);
                    if let Some((name, secret)) = credentials {
                        user = Some(name);
                        password = secret;
                    }
                }
                Err(text) => options.mistake(&host.place, text),
            }
        }
        for switch in ["ssl", "ssl_enabled"] {
            if options.boolean(switch, false) {
                options.mistake(&plugin.place, format!("{switch}: {NO_TLS}"));
            }
        }
        // Of these only the values that ask for nothing special can be honoured.
        for (name, allowed) in [
            ("data_stream", &["false", "auto"][..]),
            ("ilm_enabled", &["false", "auto"][..]),
            ("ssl_verification_mode", &["full"][..]),
        ] {
            if let Some(given) = options.located(name)
                && !allowed.contains(&given.value.as_str())
            {
                let text = format!(
                    "{name} => {} is not supported; it may be {}",
                    given.value,
                    allowed.join(" or ")
                );
                options.mistake(&given.place, text);
            }
        }
        let document_id = options.template("document_id");
        let action = match options.located("action") {
            None if document_id.is_some() => Action::Index,
            None => Action::Create,
            Some(action) => match action.value.as_str() {
                "create" => Action::Create,
                "index" => Action::Index,
                other => {
                    options.mistake(
                        &action.place,
                        format!("action {other} is not supported; it may be create or index"),
                    );
                    Action::Create
                }
            },
        };
        let index = options.located("index").unwrap_or_else(|| Located {
            value: DEFAULT_INDEX.into(),
            place: plugin.place.clone(),
        });
        let parsed_index = options.template_of(&index);
        if parsed_index.as_ref().is_some_and(Template::uses_clock) {
            options.mistake(&index.place, "index depends on the time of day, so a repeated record would be indexed twice; use %{+…}, the event's own time");
        }
        let level = options.number("compression_level");
        let compression_level =
            match (options.setting("http_compression").and_then(|s| s.as_text()), level) {
                (Some("false"), None) => Some(0),
                (_, Some(level)) if !(0.0..=9.0).contains(&level) => {
                    options.mistake(&plugin.place, "compression_level goes from 0 to 9");
                    None
                }
                (_, Some(level)) => Some(level as u32),
                (Some("true"), None) => Some(1),
                _ => None,
            };
        let mut bulk_path = options.text("bulk_path").unwrap_or_else(|| "/_bulk".into());
        bulk_path.push(if bulk_path.contains('?') { '&' } else { '?' });
        bulk_path.push_str("filter_path=errors,items.*.status,items.*.error");
        if let Some(pipeline) = options.located("pipeline") {
            match Template::parse(&pipeline.value).ok().as_ref().and_then(Template::as_literal) {
                Some(name) => {
                    bulk_path.push_str("&pipeline=");
                    bulk_path.push_str(name);
                }
                None => options.mistake(
                    &pipeline.place,
                    "pipeline that depends on the event is not supported; name one pipeline",
                ),
            }
        }
        let mut manage = options.boolean("manage_template", true);
        if !template::is_specific(&index.value) && !options.has("template") {
            // The user's own template names its indices itself.
            manage = false;
        }
        let index_template = IndexTemplate {
            name: options.text("template_name").unwrap_or_else(|| template_name(&index.value)),
            file: options.text("template").map(PathBuf::from),
            overwrite: options.boolean("template_overwrite", false),
        };
        let seconds = |number: Option<f64>, default: u64| {
            number
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or(Duration::from_secs(default))
        };
        let timeout = seconds(options.number("timeout"), 60);
        let retry = Backoff {
            first: options
                .number("retry_initial_interval")
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or(Duration::from_millis(250)),
            longest: seconds(options.number("retry_max_interval"), 30),
        };
        let headers = options
            .hash("custom_headers")
            .into_iter()
            .filter_map(|(name, value)| Some((name.value, value.as_text()?.to_owned())))
            .collect();
        let indices_per_hour = options.count("elkfk.indices_per_hour", INDICES_PER_HOUR) as usize;
        let lane_patience = options
            .number("elkfk.lane_patience")
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        options.ignored(&IGNORED);
        options.refused(&REFUSED);
        options.finish();
        let authorization = match (api_key, user) {
            (Some(key), _) => {
                // Logstash takes `id:key`; Elasticsearch hands out that text in base64 as well.
                let key = if key.contains(':') { BASE64.encode(key) } else { key };
                Some(format!("ApiKey {key}"))
            }
            (None, Some(user)) => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
            }
            (None, None) => None,
        };
        if mistakes.0.len() > before {
            return None;
        }
        Some(Self {
            nodes,
            index: parsed_index?,
            index_text: index.value,
            document_id,
            action,
            authorization,
            headers,
            bulk_path,
            compression_level,
            timeout,
            retry,
            template: manage.then_some(index_template),
            indices_per_hour,
            lane_patience,
        })
    }

    /// Whether bodies for this node are compressed, and how much.
    pub fn compression_for(&self, node: &Node) -> u32 {
        self.compression_level.unwrap_or(if node.is_loopback() { 0 } else { 1 })
    }
}

const NO_TLS: &str = "TLS is not built in yet; give an http:// address, or a local TLS proxy's";

/// `elkfk-logs` for `logs-%{+YYYY.MM.dd}`: one template for each family of indices.
fn template_name(index: &str) -> String {
    let family = index.split("%{").next().unwrap_or_default().trim_matches(['-', '.', '_']);
    if family.is_empty() { "elkfk".into() } else { format!("elkfk-{}", family.to_lowercase()) }
}

type Credentials = (String, String);

/// `host`, `host:port`, `http://user:password@host:port/path`.
fn read_host(text: &str, path: &str) -> Result<(Node, Option<Credentials>), String> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(format!("{text}: {NO_TLS}")),
        Some((scheme, _)) => return Err(format!("{text}: scheme {scheme} is not http")),
        None => text,
    };
    let (authority, own_path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let credentials = match credentials {
        None => None,
        Some(text) => {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            Some((user.to_owned(), password.to_owned()))
        }
    };
    let (host, port) = match address.rsplit_once(':') {
        // A colon within brackets belongs to an IPv6 address.
        Some((host, port)) if !port.contains(']') => (
            host,
            port.parse().map_err(|_| format!("{text}: port {port} is not a number up to 65535"))?,
        ),
        _ => (address, 9200),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace()) {
        return Err(format!("{text}: names no host"));
    }
    let path = if own_path.is_empty() { path } else { own_path };
    let path = path.trim_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok((Node { host: host.into(), port, path }, credentials))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Pipeline;

    fn read(options: &str) -> Result<Elasticsearch, Mistakes> {
        let text = format!("output {{ elasticsearch {{ {options} }} }}");
        let pipeline = Pipeline::parse("a.conf", &text, &|_| None)?;
        let mut mistakes = Mistakes::default();
        let output = Elasticsearch::read(&pipeline.outputs()[0], &mut mistakes);
        mistakes.or(()).map(|()| output.expect("no mistake was noted"))
    }

    fn refused(options: &str) -> String {
        read(options).expect_err("options are wrong").to_string()
    }

    #[test]
    fn hosts_are_read_with_ports_paths_and_credentials() {
        let output = read(r#"hosts => ["a", "http://u:p@b:9201/es/", "[::1]:9202"]"#).unwrap();
        let nodes: Vec<_> =
            output.nodes.iter().map(|n| format!("{}{}", n.authority(), n.path)).collect();
        assert_eq!(nodes, ["a:9200", "b:9201/es", "[::1]:9202"]);
        assert_eq!(output.authorization.as_deref(), Some("Basic dTpw"));
        assert_eq!(output.compression_for(&output.nodes[0]), 1);
        assert_eq!(output.compression_for(&output.nodes[2]), 0);
    }

    #[test]
    fn documents_are_created_unless_the_user_gives_ids() {
        assert_eq!(read("").unwrap().action, Action::Create);
        assert_eq!(read(r#"document_id => "%{[a]}""#).unwrap().action, Action::Index);
        assert_eq!(read(r#"action => "index""#).unwrap().action, Action::Index);
        assert!(refused(r#"action => "update""#).contains("create or index"));
    }

    #[test]
    fn own_options_stand_in_quotes() {
        let output = read("").unwrap();
        assert_eq!((output.indices_per_hour, output.lane_patience), (1000, None));
        let output =
            read(r#""elkfk.indices_per_hour" => 5 "elkfk.lane_patience" => 3600"#).unwrap();
        assert_eq!(output.indices_per_hour, 5);
        assert_eq!(output.lane_patience, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn template_is_named_after_its_indices() {
        let name = |options| read(options).unwrap().template.unwrap().name;
        assert_eq!(name(""), "elkfk-logs");
        assert_eq!(read(r#"index => "%{type}-x""#).unwrap().template, None);
        assert_eq!(name(r#"index => "%{type}-x" template => "mine.json""#), "elkfk");
        assert_eq!(name(r#"template_name => "mine""#), "mine");
        assert_eq!(read("manage_template => false").unwrap().template, None);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        assert!(refused(r#"hosts => "https://a""#).contains("TLS is not built in yet"));
        assert!(refused("ssl_enabled => true").contains("TLS is not built in yet"));
        assert!(refused(r#"data_stream => "true""#).contains("data_stream"));
        assert!(refused(r#"cloud_id => "x""#).contains("\"cloud_id\""));
        assert!(refused(r#"hosts => "a:99999""#).contains("99999"));
        assert!(refused(r#"index => "logs-%{{TIME_NOW}}""#).contains("event's own time"));
        assert!(refused(r#"indx => "a""#).contains("did you mean \"index\"?"));
    }
}
