//! A small client of Elasticsearch's HTTP API: our store or a real one.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// An answer larger than this is refused rather than held in memory.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(35);

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElasticError {
    #[error("{url} does not answer; is it running there?")]
    Unreachable { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} did not answer within {} s", TIMEOUT.as_secs())]
    Slow { url: String },
    /// The server understood and refused; `reason` is its own.
    #[error("{reason}")]
    Refused { status: u16, reason: String },
    #[error("{url} answered with something that is not JSON: {source}")]
    NotJson { url: String, source: serde_json::Error },
}

#[derive(Debug, Clone)]
pub(crate) struct Elastic {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Elastic {
    /// `url` such as `http://127.0.0.1:9200`.
    pub(crate) fn new(url: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: url.trim_end_matches('/').to_owned(), client }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, ElasticError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ElasticError> {
        self.call(Method::POST, path, body.to_string().into()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ElasticError> {
        let url = format!("{}{path}", self.url);
        let unreachable = |source| ElasticError::Unreachable { url: self.url.clone(), source };
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(body))
            .map_err(|error| unreachable(error.into()))?;
        let exchange = async {
            let answer =
                self.client.request(request).await.map_err(|error| unreachable(error.into()))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(unreachable)?;
            Ok((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| ElasticError::Slow { url: self.url.clone() })??;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|source| ElasticError::NotJson { url: self.url.clone(), source })?;
        if status.is_success() {
            return Ok(answer);
        }
        Err(ElasticError::Refused { status: status.as_u16(), reason: reason(&answer) })
    }
}

/// The innermost reason of an Elasticsearch error, which is the one that helps.
fn reason(answer: &Value) -> String {
    let error = &answer["error"];
    let root = error["root_cause"][0]["reason"].as_str();
    let failed = error["failed_shards"][0]["reason"]["reason"].as_str();
    let text = failed.or(root).or(error["reason"].as_str()).or(error.as_str());
    text.map_or_else(|| answer.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_innermost_reason_is_shown() {
        let nested = json!({"error": {"reason": "all shards failed", "root_cause": [{"reason": "no such field"}]}});
        assert_eq!(reason(&nested), "no such field");
        assert_eq!(reason(&json!({"error": "plain"})), "plain");
        assert_eq!(reason(&json!({"odd": 1})), r#"{"odd":1}"#);
    }
}
