//! The index template, installed where it is missing.
//!
//! Strings become keywords, `message` is searched as text, a malformed value or one field too many
//! does not cost the document. What an older server does not know is left out at a second try.

use hyper::Method;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::client::HttpClient;
use super::options::{Elasticsearch, IndexTemplate};

/// Below Elasticsearch's own templates for data streams (100) and Logstash's (200): whatever a shop
/// has for these indices goes first.
const PRIORITY: u32 = 50;

/// The template for the indices that `index` can name.
pub fn body(index: &str, ignores_beyond_limit: bool) -> Value {
    let mut settings = json!({
        "index.refresh_interval": "5s",
        "index.mapping.ignore_malformed": true,
        "index.mapping.total_fields.limit": 1000,
    });
    if ignores_beyond_limit {
        settings["index.mapping.total_fields.ignore_dynamic_beyond_limit"] = true.into();
    }
    json!({
        "index_patterns": [pattern(index)],
        "priority": PRIORITY,
        "template": {
            "settings": settings,
            "mappings": {
                "date_detection": false,
                "dynamic_templates": [
                    {"strings": {
                        "match_mapping_type": "string",
                        "mapping": {"type": "keyword", "ignore_above": 1024},
                    }},
                ],
                "properties": {
                    "@timestamp": {"type": "date"},
                    "message": {"type": "text", "norms": false},
                },
            },
        },
        "_meta": {"description": "installed by elkfk where it was missing; edit it freely"},
    })
}

/// `logs-*` for `logs-%{+YYYY.MM.dd}`.
fn pattern(index: &str) -> String {
    let (mut pattern, mut rest) = (String::new(), index);
    while let Some((before, after)) = rest.split_once("%{") {
        pattern.push_str(before);
        pattern.push('*');
        // Two braces enclose Java's date patterns.
        let end = if after.starts_with('{') { "}}" } else { "}" };
        rest = after.split_once(end).map_or("", |(_, rest)| rest);
    }
    pattern.push_str(rest);
    pattern.to_lowercase()
}

/// Whether one template could stand for these indices alone: one for `*…` would be laid over
/// indices that are not ours.
pub fn is_specific(index: &str) -> bool {
    !pattern(index).starts_with('*')
}

/// What to make of an answer that is neither good nor a refusal.
fn is_passing(status: u16) -> bool {
    // Unauthorised: once the credentials are repaired the template is still to be installed. 403, in
    // contrast, is said to users who may write documents and nothing else.
    matches!(status, 401 | 429 | 500..)
}

/// Installs the template unless it is there.
///
/// # Errors
/// The cluster was not reached; to be tried again. A refusal is told in the log instead: the user
/// may have reasons, and documents can be indexed without it.
pub async fn install(
    client: &HttpClient,
    output: &Elasticsearch,
    template: &IndexTemplate,
    node: usize,
) -> Result<(), String> {
    let path = format!("/_index_template/{}", template.name);
    let node = &output.nodes[node];
    let call = |method, body: String| {
        let body = if body.is_empty() { vec![] } else { vec![body.into()] };
        client.call(node, method, &path, "application/json", body, 0)
    };
    if !template.overwrite {
        let (status, _) = call(Method::GET, String::new()).await?;
        match status {
            200 => return Ok(()),
            404 => {}
            status if is_passing(status) => return Err(status.to_string()),
            _ => {
                warn!(template = template.name, status, "index template not looked up");
                return Ok(());
            }
        }
    }
    let own = match &template.file {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => {
                warn!(path = %path.display(), %error, "index template not read");
                return Ok(());
            }
        },
        None => None,
    };
    let bodies = match own {
        Some(text) => vec![text],
        None => [true, false].map(|limit| body(&output.index_text, limit).to_string()).into(),
    };
    let mut refusal = String::new();
    for body in bodies {
        let (status, answer) = call(Method::PUT, body).await?;
        match status {
            200..=299 => {
                info!(template = template.name, "index template installed");
                return Ok(());
            }
            status if is_passing(status) => return Err(status.to_string()),
            _ => refusal = format!("{status} {}", String::from_utf8_lossy(&answer)),
        }
    }
    let refusal: String = refusal.chars().take(500).collect();
    warn!(
        template = template.name,
        refusal, "index template refused; fields are mapped by the cluster's defaults"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_for_every_index_is_none_of_ours() {
        assert!(is_specific("logs-%{+YYYY.MM.dd}") && is_specific("plain"));
        assert!(!is_specific("%{[service]}-%{+YYYY.MM.dd}") && !is_specific("%{a}"));
    }

    #[test]
    fn bad_credentials_leave_the_template_to_be_installed_later() {
        assert!([401, 429, 500, 503].into_iter().all(is_passing));
        assert!(![200, 400, 403, 404, 405].into_iter().any(is_passing));
    }

    #[test]
    fn pattern_covers_what_the_index_can_be() {
        for (index, expected) in [
            ("logs-%{+YYYY.MM.dd}", "logs-*"),
            ("%{[a][b]}-x-%{{yyyy}}", "*-x-*"),
            ("Plain", "plain"),
        ] {
            assert_eq!(pattern(index), expected);
        }
    }
}
