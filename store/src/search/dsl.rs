//! The query DSL: from JSON to a tree, with Elasticsearch's words for what it refuses.
//!
//! Keys that cannot change which documents match (`boost`, `_name`, `analyze_wildcard`, …) are taken
//! and ignored, except that `boost` is not applied to scores.

use serde_json::{Map, Value};

use crate::error::EsError;
use crate::search::query_string::{self, SyntaxError};

/// Values of one `terms` or `ids` query, as `index.max_terms_count`.
const TERMS_MAX: usize = 65_536;

/// Deepest nesting of queries, as `indices.query.bool.max_nested_depth`.
const DEPTH_MAX: usize = 30;
/// Clauses of one query, as `indices.query.bool.max_clause_count` on a small machine.
const CLAUSES_MAX: usize = 4096;

#[derive(Debug, Clone)]
pub enum Query {
    All,
    None,
    Term {
        field: String,
        value: Value,
        folds_case: bool,
    },
    Terms {
        field: String,
        values: Vec<Value>,
    },
    Match(Match),
    /// Any of the fields, `*` and wildcards among them.
    MultiMatch {
        fields: Vec<String>,
        template: Match,
    },
    Range(Range),
    Exists(String),
    Prefix {
        field: String,
        value: String,
        folds_case: bool,
    },
    Wildcard {
        field: String,
        pattern: String,
        folds_case: bool,
    },
    Regexp {
        field: String,
        pattern: String,
        folds_case: bool,
    },
    Fuzzy {
        field: String,
        value: String,
        distance: u8,
        prefix: usize,
    },
    Ids(Vec<String>),
    Bool(Box<Bool>),
    Constant(Box<Query>),
    Any(Vec<Query>),
    QueryString(Box<QueryString>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchKind {
    Words,
    Phrase,
    PhrasePrefix,
    /// All words, the last as a prefix, in any order.
    BoolPrefix,
}

#[derive(Debug, Clone)]
pub struct Match {
    pub field: String,
    pub value: Value,
    pub kind: MatchKind,
    pub needs_all: bool,
    pub minimum: Option<String>,
    pub slop: u32,
    pub fuzziness: Option<Value>,
    pub is_lenient: bool,
}

impl Match {
    pub fn new(field: &str, value: Value, kind: MatchKind) -> Self {
        Self {
            field: field.to_owned(),
            value,
            kind,
            needs_all: false,
            minimum: None,
            slop: 0,
            fuzziness: None,
            is_lenient: false,
        }
    }

    /// The text to analyze.
    pub fn text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Range {
    pub field: String,
    pub gte: Option<Value>,
    pub gt: Option<Value>,
    pub lte: Option<Value>,
    pub lt: Option<Value>,
    pub format: Option<String>,
    pub time_zone: Option<String>,
    pub is_lenient: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Bool {
    pub must: Vec<Query>,
    pub filter: Vec<Query>,
    pub should: Vec<Query>,
    pub must_not: Vec<Query>,
    pub minimum: Option<String>,
}

/// A `query_string` or `simple_query_string`, parsed; a mistake in it is reported by the shards.
#[derive(Debug, Clone)]
pub struct QueryString {
    pub text: String,
    pub tree: Result<Query, SyntaxError>,
}

/// Parses `text` as the JSON of one query; `source` is the request it stands in, for positions.
pub fn parse(json: &Value, source: &str) -> Result<Query, EsError> {
    Parser { source, clauses: std::cell::Cell::new(0) }.query(json, 0)
}

struct Parser<'a> {
    source: &'a str,
    clauses: std::cell::Cell<usize>,
}

/// Where the value of `key` starts in `source`: line and column from 1.
pub fn locate(source: &str, key: &str) -> (usize, usize) {
    let quoted = format!("\"{key}\"");
    let mut from = 0;
    while let Some(found) = source[from..].find(&quoted) {
        let after = from + found + quoted.len();
        let rest = source[after..].trim_start();
        if let Some(value) = rest.strip_prefix(':') {
            let value = value.trim_start();
            return crate::json::line_column(source, source.len() - value.len());
        }
        from = after;
    }
    (1, 1)
}

impl Parser<'_> {
    fn parsing(&self, key: &str, reason: String) -> EsError {
        let (line, column) = locate(self.source, key);
        EsError::new(400, "parsing_exception", reason).with("line", line).with("col", column)
    }

    fn query(&self, json: &Value, depth: usize) -> Result<Query, EsError> {
        if depth > DEPTH_MAX {
            return Err(EsError::new(
                400,
                "x_content_parse_exception",
                format!(
                    "The nested depth of the query exceeds the maximum nested depth for queries set in [{DEPTH_MAX}]"
                ),
            ));
        }
        self.clauses.set(self.clauses.get() + 1);
        if self.clauses.get() > CLAUSES_MAX {
            return Err(EsError::illegal_argument(format!(
                "Query contains too many clauses; maxClauseCount is set to {CLAUSES_MAX}"
            )));
        }
        let Some(object) = json.as_object() else {
            return Err(
                self.parsing("query", "[_na] query malformed, must start with start_object".into())
            );
        };
        let Some((name, body)) = object.iter().next() else {
            return Err(EsError::illegal_argument("query malformed, empty clause found"));
        };
        if let Some((second, _)) = object.iter().nth(1) {
            return Err(self.parsing(
                second,
                format!("[{name}] malformed query, expected [END_OBJECT] but found [FIELD_NAME]"),
            ));
        }
        let query = match name.as_str() {
            "match_all" => Query::All,
            "match_none" => Query::None,
            "term" => {
                let (field, value, options) = self.field(name, body, &["value"])?;
                Query::Term { field, value, folds_case: flag(&options, "case_insensitive") }
            }
            "terms" => {
                let Some((field, values)) =
                    body.as_object().and_then(|body| body.iter().find(|(key, _)| !is_common(key)))
                else {
                    return Err(
                        self.parsing(name, "[terms] query requires a field and a list".into())
                    );
                };
                let Some(values) = values.as_array() else {
                    return Err(self.parsing(
                        field,
                        "[terms] query does not support terms lookup here".into(),
                    ));
                };
                if values.len() > TERMS_MAX {
                    return Err(EsError::illegal_argument(format!(
                        "The number of terms [{}] used in the Terms Query request has exceeded the allowed maximum of [{TERMS_MAX}].",
                        values.len()
                    )));
                }
                Query::Terms { field: field.clone(), values: values.clone() }
            }
            "match" => self.match_query(name, body, MatchKind::Words)?,
            "match_phrase" => self.match_query(name, body, MatchKind::Phrase)?,
            "match_phrase_prefix" => self.match_query(name, body, MatchKind::PhrasePrefix)?,
            "match_bool_prefix" => self.match_query(name, body, MatchKind::BoolPrefix)?,
            "multi_match" => {
                let body = self.object(name, body)?;
                let kind = match body.get("type").and_then(Value::as_str) {
                    Some("phrase") => MatchKind::Phrase,
                    Some("phrase_prefix") => MatchKind::PhrasePrefix,
                    Some("bool_prefix") => MatchKind::BoolPrefix,
                    _ => MatchKind::Words,
                };
                let value = body.get("query").cloned().ok_or_else(|| {
                    self.parsing(name, "No text specified for multi_match query".into())
                })?;
                let mut template = Match::new("", value, kind);
                options_into(&mut template, body);
                let fields = field_list(body.get("fields"));
                Query::MultiMatch {
                    fields: if fields.is_empty() { vec!["*".into()] } else { fields },
                    template,
                }
            }
            "range" => {
                let (field, value, options) = self.field(name, body, &[])?;
                let _ = value;
                let get = |key: &str| options.get(key).filter(|value| !value.is_null()).cloned();
                for key in options.keys() {
                    if !matches!(
                        key.as_str(),
                        "gte"
                            | "gt"
                            | "lte"
                            | "lt"
                            | "from"
                            | "to"
                            | "include_lower"
                            | "include_upper"
                            | "format"
                            | "time_zone"
                            | "relation"
                            | "boost"
                            | "_name"
                    ) {
                        return Err(
                            self.parsing(key, format!("[range] query does not support [{key}]"))
                        );
                    }
                }
                let mut range = Range {
                    field,
                    gte: get("gte"),
                    gt: get("gt"),
                    lte: get("lte"),
                    lt: get("lt"),
                    format: get("format").and_then(|f| f.as_str().map(str::to_owned)),
                    time_zone: get("time_zone").and_then(|f| f.as_str().map(str::to_owned)),
                    is_lenient: false,
                };
                let includes = |key: &str| options.get(key).and_then(Value::as_bool) != Some(false);
                if let Some(from) = get("from") {
                    *(if includes("include_lower") { &mut range.gte } else { &mut range.gt }) =
                        Some(from);
                }
                if let Some(to) = get("to") {
                    *(if includes("include_upper") { &mut range.lte } else { &mut range.lt }) =
                        Some(to);
                }
                Query::Range(range)
            }
            "exists" => {
                let field = body.get("field").and_then(Value::as_str);
                Query::Exists(
                    field
                        .ok_or_else(|| {
                            self.parsing(name, "[exists] must be provided with a [field]".into())
                        })?
                        .to_owned(),
                )
            }
            "prefix" => {
                let (field, value, options) = self.field(name, body, &["value", "prefix"])?;
                Query::Prefix {
                    field,
                    value: text_of(&value),
                    folds_case: flag(&options, "case_insensitive"),
                }
            }
            "wildcard" => {
                let (field, value, options) = self.field(name, body, &["value", "wildcard"])?;
                Query::Wildcard {
                    field,
                    pattern: text_of(&value),
                    folds_case: flag(&options, "case_insensitive"),
                }
            }
            "regexp" => {
                let (field, value, options) = self.field(name, body, &["value"])?;
                Query::Regexp {
                    field,
                    pattern: text_of(&value),
                    folds_case: flag(&options, "case_insensitive"),
                }
            }
            "fuzzy" => {
                let (field, value, options) = self.field(name, body, &["value"])?;
                let value = text_of(&value);
                let distance = fuzziness(options.get("fuzziness"), &value);
                let prefix =
                    options.get("prefix_length").and_then(Value::as_u64).unwrap_or(0) as usize;
                Query::Fuzzy { field, value, distance, prefix }
            }
            "ids" => {
                let values =
                    body.get("values").and_then(Value::as_array).cloned().unwrap_or_default();
                if values.len() > TERMS_MAX {
                    return Err(EsError::illegal_argument(format!(
                        "The number of ids [{}] used in the Ids Query request has exceeded the allowed maximum of [{TERMS_MAX}].",
                        values.len()
                    )));
                }
                Query::Ids(values.iter().map(text_of).collect())
            }
            "bool" => self.bool_query(name, body, depth)?,
            "constant_score" => {
                let filter = body.get("filter").ok_or_else(|| {
                    self.parsing(name, "[constant_score] requires a 'filter' element".into())
                })?;
                Query::Constant(Box::new(self.query(filter, depth + 1)?))
            }
            "dis_max" => {
                let queries =
                    body.get("queries").and_then(Value::as_array).cloned().unwrap_or_default();
                Query::Any(
                    queries
                        .iter()
                        .map(|query| self.query(query, depth + 1))
                        .collect::<Result<_, _>>()?,
                )
            }
            "boosting" => {
                let positive = body.get("positive").ok_or_else(|| {
                    self.parsing(
                        name,
                        "[boosting] query requires 'positive' query to be set'".into(),
                    )
                })?;
                self.query(positive, depth + 1)?
            }
            "query_string" => {
                let body = self.object(name, body)?;
                let text = body.get("query").map(text_of).ok_or_else(|| {
                    self.parsing(name, "[query_string] must be provided with a [query]".into())
                })?;
                let mut fields = field_list(body.get("fields"));
                if fields.is_empty() {
                    fields.extend(
                        body.get("default_field").and_then(Value::as_str).map(str::to_owned),
                    );
                }
                let options = query_string::Options {
                    is_lenient: flag(body, "lenient")
                        || fields.is_empty()
                        || fields.iter().any(|f| f.contains('*')),
                    needs_all: has_and(body, "default_operator"),
                    fields: if fields.is_empty() { vec!["*".into()] } else { fields },
                };
                let tree = query_string::parse(&text, &options);
                Query::QueryString(Box::new(QueryString { text, tree }))
            }
            "simple_query_string" => {
                let body = self.object(name, body)?;
                let text = body.get("query").map(text_of).ok_or_else(|| {
                    self.parsing(name, "[simple_query_string] query text missing".into())
                })?;
                let fields = field_list(body.get("fields"));
                let options = query_string::Options {
                    is_lenient: true,
                    needs_all: has_and(body, "default_operator"),
                    fields: if fields.is_empty() { vec!["*".into()] } else { fields },
                };
                query_string::parse_simple(&text, &options)
            }
            "nested" | "function_score" | "script" | "script_score" | "geo_bounding_box"
            | "geo_distance" | "geo_shape" | "has_child" | "has_parent" | "more_like_this"
            | "percolate" | "intervals" | "span_term" | "span_near" | "knn"
            | "distance_feature" | "terms_set" | "combined_fields" | "pinned" | "wrapper" => {
                return Err(
                    self.parsing(name, format!("[{name}] query is not supported by this store"))
                );
            }
            unknown => {
                let (line, column) = locate(self.source, unknown);
                return Err(self.parsing(unknown, format!("unknown query [{unknown}]")).caused_by(
                    EsError::new(
                        400,
                        "named_object_not_found_exception",
                        format!("[{line}:{column}] unknown field [{unknown}]"),
                    ),
                ));
            }
        };
        Ok(query)
    }

    fn object<'v>(&self, name: &str, body: &'v Value) -> Result<&'v Map<String, Value>, EsError> {
        body.as_object().ok_or_else(|| {
            self.parsing(
                name,
                format!("[{name}] query malformed, no start_object after query name"),
            )
        })
    }

    /// `{"field": value}` or `{"field": {"value": value, …}}`.
    fn field(
        &self,
        name: &str,
        body: &Value,
        value_keys: &[&str],
    ) -> Result<(String, Value, Map<String, Value>), EsError> {
        let mut entries = self.object(name, body)?.iter().filter(|(key, _)| !is_common(key));
        let Some((field, value)) = entries.next() else {
            return Err(EsError::illegal_argument("fieldName must not be null or empty"));
        };
        if let Some((other, _)) = entries.next() {
            return Err(self.parsing(
                other,
                format!(
                    "[{name}] query doesn't support multiple fields, found [{field}] and [{other}]"
                ),
            ));
        }
        match value {
            Value::Object(options) => {
                let value = value_keys
                    .iter()
                    .find_map(|key| options.get(*key))
                    .cloned()
                    .unwrap_or(Value::Null);
                if value.is_null() && !value_keys.is_empty() {
                    return Err(EsError::illegal_argument("value cannot be null"));
                }
                Ok((field.clone(), value, options.clone()))
            }
            Value::Array(_) => {
                Err(self.parsing(field, format!("[{name}] query does not support array of values")))
            }
            Value::Null => Err(EsError::illegal_argument("value cannot be null")),
            value => Ok((field.clone(), value.clone(), Map::new())),
        }
    }

    fn match_query(&self, name: &str, body: &Value, kind: MatchKind) -> Result<Query, EsError> {
        let (field, value, options) = self.field(name, body, &["query"])?;
        for key in options.keys() {
            if !matches!(
                key.as_str(),
                "query"
                    | "operator"
                    | "minimum_should_match"
                    | "slop"
                    | "fuzziness"
                    | "lenient"
                    | "analyzer"
                    | "boost"
                    | "_name"
                    | "zero_terms_query"
                    | "prefix_length"
                    | "max_expansions"
                    | "fuzzy_transpositions"
                    | "fuzzy_rewrite"
                    | "auto_generate_synonyms_phrase_query"
                    | "cutoff_frequency"
            ) {
                return Err(self.parsing(key, format!("[{name}] query does not support [{key}]")));
            }
        }
        let mut query = Match::new(&field, value, kind);
        options_into(&mut query, &options);
        Ok(Query::Match(query))
    }

    fn bool_query(&self, name: &str, body: &Value, depth: usize) -> Result<Query, EsError> {
        let mut query = Bool::default();
        for (key, value) in self.object(name, body)? {
            let list = match key.as_str() {
                "must" => &mut query.must,
                "filter" => &mut query.filter,
                "should" => &mut query.should,
                "must_not" | "mustNot" => &mut query.must_not,
                "minimum_should_match" => {
                    query.minimum = Some(text_of(value));
                    continue;
                }
                "boost" | "_name" | "adjust_pure_negative" => continue,
                _ => {
                    return Err(self.parsing(key, format!("[bool] query does not support [{key}]")));
                }
            };
            match value {
                Value::Array(clauses) => {
                    for clause in clauses {
                        list.push(self.query(clause, depth + 1)?);
                    }
                }
                clause => list.push(self.query(clause, depth + 1)?),
            }
        }
        Ok(Query::Bool(Box::new(query)))
    }
}

fn options_into(query: &mut Match, options: &Map<String, Value>) {
    query.needs_all = has_and(options, "operator");
    query.minimum = options.get("minimum_should_match").map(text_of);
    query.slop = options.get("slop").and_then(Value::as_u64).unwrap_or(0).min(1000) as u32;
    query.fuzziness = options.get("fuzziness").cloned();
    query.is_lenient = flag(options, "lenient");
}

fn has_and(options: &Map<String, Value>, key: &str) -> bool {
    options
        .get(key)
        .and_then(Value::as_str)
        .is_some_and(|operator| operator.eq_ignore_ascii_case("and"))
}

fn flag(options: &Map<String, Value>, key: &str) -> bool {
    matches!(options.get(key), Some(Value::Bool(true)))
        || options.get(key).and_then(Value::as_str) == Some("true")
}

fn is_common(key: &str) -> bool {
    matches!(key, "boost" | "_name")
}

/// Field names without their `^boost`.
fn field_list(value: Option<&Value>) -> Vec<String> {
    let strip = |text: &str| text.split('^').next().unwrap_or(text).to_owned();
    match value {
        Some(Value::String(text)) => vec![strip(text)],
        Some(Value::Array(list)) => list.iter().filter_map(|v| v.as_str().map(strip)).collect(),
        _ => Vec::new(),
    }
}

/// A scalar as text.
pub fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Edits allowed for `text` by a `fuzziness` of `AUTO`, `AUTO:3,6` or a number.
pub fn fuzziness(value: Option<&Value>, text: &str) -> u8 {
    let given = value.map(text_of);
    match given.as_deref().map(str::parse::<f64>) {
        Some(Ok(distance)) => distance.clamp(0.0, 2.0) as u8,
        _ => match text.chars().count() {
            0..=2 => 0,
            3..=5 => 1,
            _ => 2,
        },
    }
}

/// How many of `count` optional clauses must match, by a `minimum_should_match` of `2`, `-1`, `75%`
/// or `-25%`.
pub fn minimum_of(text: &str, count: usize) -> usize {
    let text = text.trim();
    // Conditional forms, `3<90%`: the last condition that count exceeds.
    if text.contains('<') {
        let mut result = count;
        for condition in text.split_whitespace() {
            if let Some((limit, value)) = condition.split_once('<')
                && let Ok(limit) = limit.parse::<usize>()
            {
                if count <= limit {
                    return result;
                }
                result = minimum_of(value, count);
            }
        }
        return result;
    }
    let count = count as i64;
    let wanted = if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse::<i64>().unwrap_or(0).clamp(-100, 100);
        let part = count * percent.abs() / 100;
        if percent < 0 { count - part } else { part }
    } else {
        let number = text.parse::<i64>().unwrap_or(0);
        if number < 0 { count.saturating_add(number) } else { number }
    };
    wanted.max(0) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_queries_are_named_with_their_place() {
        let source = r#"{"query": {"no_such_query": {}}}"#;
        let error = parse(&json!({"no_such_query": {}}), source).unwrap_err();
        assert_eq!(error.reason(), "unknown query [no_such_query]");
        assert_eq!(
            (error.cause["line"].as_u64(), error.cause["col"].as_u64()),
            (Some(1), Some(29))
        );
    }

    #[test]
    fn nesting_has_a_limit() {
        let mut query = json!({"match_all": {}});
        for _ in 0..40 {
            query = json!({"bool": {"must": [query]}});
        }
        assert!(parse(&query, "").unwrap_err().reason().contains("nested depth"));
    }

    #[test]
    fn minimum_should_match_in_all_its_forms() {
        for (text, count, expected) in [
            ("2", 3, 2),
            ("-1", 3, 2),
            ("75%", 4, 3),
            ("-25%", 4, 3),
            ("9", 3, 9),
            ("-9", 3, 0),
            ("2<75%", 2, 2),
            ("2<75%", 4, 3),
            ("x", 2, 0),
        ] {
            assert_eq!(minimum_of(text, count), expected, "{text} of {count}");
        }
    }
}
