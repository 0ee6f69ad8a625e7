//! Errors as Elasticsearch words them: a status, and an `error` object that names its root cause.

use serde_json::{Map, Value, json};

/// An error answer. Boxed, as every result of a handler carries room for one.
#[derive(Debug, Clone)]
pub struct EsError(Box<Details>);

/// What an error answer says.
#[derive(Debug, Clone)]
pub struct Details {
    pub status: u16,
    /// `type`, `reason`, further keys and `caused_by`; what a bulk item shows as its `error`.
    pub cause: Map<String, Value>,
    /// The innermost cause where it is not `cause` itself.
    root: Option<Value>,
    /// The whole body, where it has another shape.
    raw: Option<Value>,
    /// The `Allow` header of a 405.
    pub allow: Option<String>,
}

impl std::ops::Deref for EsError {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl std::ops::DerefMut for EsError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

/// Bytes of one text of an error: what is wrong is shown by its beginning, and an answer stays small
/// however large the request was.
const TEXT_BYTES_MAX: usize = 4096;

/// A text that may quote a request, cut.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let bytes = text.len();
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.shrink_to_fit();
        text.push_str(&format!("… [{bytes} bytes]"));
    }
    text
}

impl EsError {
    pub fn new(status: u16, kind: &str, reason: impl Into<String>) -> Self {
        let mut cause = Map::new();
        cause.insert("type".into(), kind.into());
        cause.insert("reason".into(), cut(reason.into()).into());
        Self(Box::new(Details { status, cause, root: None, raw: None, allow: None }))
    }

    pub fn illegal_argument(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// An error whose `error` is a plain text.
    pub fn text(status: u16, text: impl Into<String>, with_status: bool) -> Self {
        let text = cut(text.into());
        let raw = if with_status {
            json!({"error": text, "status": status})
        } else {
            json!({"error": text})
        };
        let mut error = Self::new(status, "", text);
        error.raw = Some(raw);
        error
    }

    /// An answer that is not an error object at all, such as the `{}` of a missing pipeline.
    pub fn raw(status: u16, body: Value) -> Self {
        let mut error = Self::new(status, "", "");
        error.raw = Some(body);
        error
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = match value.into() {
            Value::String(text) => cut(text).into(),
            value => value,
        };
        self.cause.insert(key.into(), value);
        self
    }

    pub fn caused_by(self, cause: EsError) -> Self {
        self.with("caused_by", Value::Object(cause.0.cause))
    }

    pub fn rooted_in(mut self, root: EsError) -> Self {
        self.root = Some(Value::Object(root.0.cause));
        self
    }

    pub fn reason(&self) -> &str {
        self.cause.get("reason").and_then(Value::as_str).unwrap_or_default()
    }

    /// The whole body of the answer.
    pub fn body(&self) -> Value {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let root = self.root.clone().unwrap_or_else(|| {
            let mut root = self.cause.clone();
            root.remove("caused_by");
            root.remove("failed_shards");
            Value::Object(root)
        });
        let mut error = Map::new();
        error.insert("root_cause".into(), json!([root]));
        error.extend(self.cause.clone());
        json!({"error": error, "status": self.status})
    }

    pub fn no_such_index(index: &str) -> Self {
        Self::new(404, "index_not_found_exception", format!("no such index [{index}]"))
            .with("resource.type", "index_or_alias")
            .with("resource.id", index)
            .with("index_uuid", "_na_")
            .with("index", index)
    }

    /// A failure of the query phase, as Elasticsearch reports it when every shard failed alike.
    pub fn all_shards_failed(self, index: &str, shard_cause: Option<EsError>) -> Self {
        let mut root = self.cause.clone();
        root.remove("caused_by");
        let mut error = Self::new(
            self.status,
            "search_phase_execution_exception",
            "all shards failed",
        )
        .with("phase", "query")
        .with("grouped", true)
        .with(
            "failed_shards",
            json!([{"shard": 0, "index": index, "node": NODE_ID, "reason": self.cause.clone()}]),
        );
        if let Some(cause) = shard_cause {
            error = error.caused_by(cause);
        }
        error.root = Some(Value::Object(root));
        error
    }

    /// A plain illegal argument met by the shards of `index`.
    pub fn on_shards(self, index: &str) -> Self {
        let twice = self.clone().caused_by(self.clone());
        self.all_shards_failed(index, Some(twice))
    }

    pub fn internal(reason: impl Into<String>) -> Self {
        Self::new(500, "exception", reason)
    }
}

impl From<tantivy::TantivyError> for EsError {
    fn from(error: tantivy::TantivyError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<std::io::Error> for EsError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}

/// Bytes of one answer's documents. More would be held in memory at once, as their texts and as one.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Refuses an answer that grows beyond what is held in memory.
pub fn check_answer(bytes: usize) -> Result<(), EsError> {
    if bytes <= ANSWER_BYTES_MAX {
        return Ok(());
    }
    crate::metrics::REJECTED.with_label_values(&["answer"]).inc();
    Err(EsError::new(
        429,
        "circuit_breaking_exception",
        format!("[request] Data too large, data for [hits] would be [{bytes}], which is larger than the limit of [{ANSWER_BYTES_MAX}]; ask for fewer documents at a time or for less of their _source"),
    )
    .with("bytes_wanted", bytes)
    .with("bytes_limit", ANSWER_BYTES_MAX)
    .with("durability", "TRANSIENT"))
}

/// This node's id, as `/_nodes` and error answers show it.
pub const NODE_ID: &str = "elkfkStoreNode00000001";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_quotes_is_cut() {
        let long = "é".repeat(1 << 20);
        let error = EsError::illegal_argument(long.clone()).with("index", long.clone());
        let error = error.caused_by(EsError::text(400, long, true));
        assert!(error.body().to_string().len() < 10 * TEXT_BYTES_MAX);
        assert!(error.reason().ends_with("… [2097152 bytes]"));
    }
}
