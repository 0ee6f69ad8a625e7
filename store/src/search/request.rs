//! The body and parameters of a search.

use serde_json::{Map, Value, json};

use crate::aggs::request::{Aggs, parse_aggs};
use crate::error::EsError;
use crate::search::dsl::{self, Query, text_of};
use crate::search::query_string;

/// Deepest page, as `index.max_result_window`.
pub const WINDOW_MAX: usize = 10_000;

/// How exactly hits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    All,
    None,
    UpTo(u64),
}

#[derive(Debug, Clone)]
pub struct SortSpec {
    /// `_score`, `_doc` or a field.
    pub field: String,
    pub is_descending: bool,
    pub missing_first: bool,
    pub format: Option<String>,
    pub has_unmapped_type: bool,
}

/// What of `_source` is shown.
#[derive(Debug, Clone, Default)]
pub struct SourceFilter {
    pub is_off: bool,
    pub includes: Vec<String>,
    pub excludes: Vec<String>,
}

impl SourceFilter {
    pub fn is_whole(&self) -> bool {
        !self.is_off && self.includes.is_empty() && self.excludes.is_empty()
    }
}

#[derive(Debug, Clone)]
pub struct FieldSpec {
    pub pattern: String,
    pub format: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Highlight {
    pub fields: Vec<String>,
    pub pre: String,
    pub post: String,
    pub fragment_size: usize,
    pub fragments: usize,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub query: Query,
    pub post_filter: Option<Query>,
    pub from: usize,
    pub size: usize,
    pub sort: Vec<SortSpec>,
    pub search_after: Option<Vec<Value>>,
    pub source: SourceFilter,
    pub fields: Vec<FieldSpec>,
    /// `docvalue_fields`, of those that can be aggregated.
    pub docvalue_fields: Vec<FieldSpec>,
    pub track: Track,
    pub aggs: Aggs,
    pub highlight: Option<Highlight>,
    pub shows_version: bool,
    pub shows_seq_no: bool,
    pub tracks_scores: bool,
    pub min_score: Option<f32>,
    pub timeout_ms: Option<u64>,
    /// A point in time instead of index names.
    pub pit: Option<String>,
}

/// Keys that are taken and change nothing here.
const IGNORED: &[&str] = &[
    "script_fields",
    "stored_fields",
    "runtime_mappings",
    "explain",
    "profile",
    "stats",
    "indices_boost",
    "ext",
    "preference",
    "terminate_after",
    "_name",
    "rescore",
];

/// Reads a search; `source` is the text of `body`, for positions in errors.
pub fn parse(body: &Value, source: &str) -> Result<Request, EsError> {
    let mut request = Request {
        query: Query::All,
        post_filter: None,
        from: 0,
        size: 10,
        sort: Vec::new(),
        search_after: None,
        source: SourceFilter::default(),
        fields: Vec::new(),
        docvalue_fields: Vec::new(),
        track: Track::UpTo(10_000),
        aggs: Aggs::default(),
        highlight: None,
        shows_version: false,
        shows_seq_no: false,
        tracks_scores: false,
        min_score: None,
        timeout_ms: None,
        pit: None,
    };
    let empty = Map::new();
    let object = match body {
        Value::Null => &empty,
        Value::Object(object) => object,
        _ => {
            return Err(EsError::new(
                400,
                "parsing_exception",
                "Expected [START_OBJECT] but found something else",
            )
            .with("line", 1)
            .with("col", 1));
        }
    };
    let count = |key: &str, value: &Value| -> Result<usize, EsError> {
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        match number {
            Some(number) if number >= 0 => Ok(number as usize),
            Some(-1) if key == "size" => Ok(10),
            _ => Err(EsError::illegal_argument(format!(
                "[{key}] parameter cannot be negative, found [{value}]"
            ))),
        }
    };
    for (key, value) in object {
        match key.as_str() {
            "query" => {
                if value.as_object().is_some_and(|query| !query.is_empty()) {
                    request.query = dsl::parse(value, source)?;
                }
            }
            "post_filter" => request.post_filter = Some(dsl::parse(value, source)?),
            "from" => request.from = count(key, value)?,
            "size" => request.size = count(key, value)?,
            "sort" => request.sort = parse_sort(value)?,
            "search_after" => request.search_after = value.as_array().cloned(),
            "_source" => request.source = parse_source(value),
            "fields" => request.fields = parse_fields(value),
            "docvalue_fields" => request.docvalue_fields = parse_fields(value),
            "track_total_hits" => request.track = parse_track(value)?,
            "aggs" | "aggregations" => request.aggs = parse_aggs(value, source)?,
            "highlight" => request.highlight = Some(parse_highlight(value)),
            "version" => request.shows_version = value.as_bool() == Some(true),
            "seq_no_primary_term" => request.shows_seq_no = value.as_bool() == Some(true),
            "track_scores" => request.tracks_scores = value.as_bool() == Some(true),
            "min_score" => request.min_score = value.as_f64().map(|score| score as f32),
            "timeout" => request.timeout_ms = value.as_str().and_then(duration_ms),
            "pit" => request.pit = value.get("id").and_then(Value::as_str).map(str::to_owned),
            key if IGNORED.contains(&key) => {}
            "collapse" | "suggest" | "knn" | "slice" | "retriever" | "rank" => {
                let (line, column) = dsl::locate(source, key);
                return Err(EsError::new(
                    400,
                    "parsing_exception",
                    format!("[{key}] is not supported by this store"),
                )
                .with("line", line)
                .with("col", column));
            }
            key => {
                let (line, column) = dsl::locate(source, key);
                let token = match value {
                    Value::Object(_) => "START_OBJECT",
                    Value::Array(_) => "START_ARRAY",
                    Value::String(_) => "VALUE_STRING",
                    Value::Number(_) => "VALUE_NUMBER",
                    Value::Bool(_) => "VALUE_BOOLEAN",
                    Value::Null => "VALUE_NULL",
                };
                return Err(EsError::new(
                    400,
                    "parsing_exception",
                    format!("Unknown key for a {token} in [{key}]."),
                )
                .with("line", line)
                .with("col", column));
            }
        }
    }
    Ok(request)
}

impl Request {
    /// Takes over what the address says; it wins over the body.
    pub fn take_parameters(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), EsError> {
        let number = |key: &str| -> Result<Option<usize>, EsError> {
            get(key)
                .map(|text| {
                    text.parse().map_err(|_| {
                        EsError::illegal_argument(format!(
                            "Failed to parse int parameter [{key}] with value [{text}]"
                        ))
                    })
                })
                .transpose()
        };
        if let Some(text) = get("q") {
            let is_and = get("default_operator")
                .is_some_and(|operator| operator.eq_ignore_ascii_case("and"));
            let field = get("df");
            let options = query_string::Options {
                is_lenient: field.is_none() || get("lenient").as_deref() == Some("true"),
                fields: vec![field.unwrap_or_else(|| "*".into())],
                needs_all: is_and,
            };
            let tree = query_string::parse(&text, &options);
            self.query = Query::QueryString(Box::new(dsl::QueryString { text, tree }));
        }
        self.from = number("from")?.unwrap_or(self.from);
        self.size = number("size")?.unwrap_or(self.size);
        if let Some(text) = get("sort") {
            self.sort = text
                .split(',')
                .filter(|part| !part.is_empty())
                .map(|part| match part.rsplit_once(':') {
                    Some((field, order @ ("asc" | "desc"))) => sort_spec(field, Some(order)),
                    _ => sort_spec(part, None),
                })
                .collect();
        }
        let list = |text: String| {
            text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        if let Some(text) = get("_source") {
            match text.as_str() {
                "" | "true" => self.source = SourceFilter::default(),
                "false" => self.source = SourceFilter { is_off: true, ..SourceFilter::default() },
                _ => self.source = SourceFilter { includes: list(text), ..SourceFilter::default() },
            }
        }
        if let Some(text) = get("_source_includes") {
            self.source.includes = list(text);
        }
        if let Some(text) = get("_source_excludes") {
            self.source.excludes = list(text);
        }
        if let Some(text) = get("track_total_hits") {
            self.track = parse_track(&serde_json::from_str(&text).unwrap_or(Value::Bool(true)))?;
        }
        if let Some(text) = get("timeout") {
            self.timeout_ms = duration_ms(&text);
        }
        Ok(())
    }

    /// # Errors
    /// A page that lies too deep.
    pub fn check_window(&self) -> Result<(), EsError> {
        let end = self.from.saturating_add(self.size);
        if end > WINDOW_MAX {
            return Err(EsError::illegal_argument(format!(
                "Result window is too large, from + size must be less than or equal to: [{WINDOW_MAX}] but was [{end}]. See the scroll api for a more efficient way to request large data sets. This limit can be set by changing the [index.max_result_window] index level setting."
            )));
        }
        if let Some(after) = &self.search_after {
            if self.sort.is_empty() {
                return Err(EsError::illegal_argument("Sort must contain at least one field."));
            }
            if after.len() != self.sort.len() {
                return Err(EsError::illegal_argument(format!(
                    "search_after has {} value(s) but sort has {}.",
                    after.len(),
                    self.sort.len()
                )));
            }
        }
        Ok(())
    }

    /// Whether hits come in the order of their scores.
    pub fn is_by_score(&self) -> bool {
        self.sort.is_empty() || self.sort.iter().any(|sort| sort.field == "_score")
    }
}

fn duration_ms(text: &str) -> Option<u64> {
    elkfk_base::units::parse_duration(text, std::time::Duration::from_millis(1))
        .map(|duration| duration.as_millis() as u64)
}

fn parse_track(value: &Value) -> Result<Track, EsError> {
    Ok(match value {
        Value::Bool(true) => Track::All,
        Value::Bool(false) => Track::None,
        value => match value.as_i64() {
            Some(-1) => Track::All,
            Some(limit) if limit >= 0 => Track::UpTo(limit as u64),
            _ => {
                return Err(EsError::illegal_argument(
                    "[track_total_hits] parameter must be positive or equals to -1",
                ));
            }
        },
    })
}

fn sort_spec(field: &str, order: Option<&str>) -> SortSpec {
    let is_descending = match order {
        Some(order) => order.eq_ignore_ascii_case("desc"),
        None => field == "_score",
    };
    SortSpec {
        field: field.to_owned(),
        is_descending,
        missing_first: false,
        format: None,
        has_unmapped_type: false,
    }
}

pub fn parse_sort(value: &Value) -> Result<Vec<SortSpec>, EsError> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut specs = Vec::new();
    for item in list {
        match item {
            Value::String(text) => match text.rsplit_once(':') {
                Some((field, order @ ("asc" | "desc"))) => {
                    specs.push(sort_spec(field, Some(order)))
                }
                _ => specs.push(sort_spec(text, None)),
            },
            Value::Object(object) => {
                for (field, options) in object {
                    let order =
                        options.as_str().or_else(|| options.get("order").and_then(Value::as_str));
                    let mut spec = sort_spec(field, order);
                    spec.missing_first =
                        options.get("missing").and_then(Value::as_str) == Some("_first");
                    spec.format = options.get("format").and_then(Value::as_str).map(str::to_owned);
                    spec.has_unmapped_type = options.get("unmapped_type").is_some();
                    if matches!(field.as_str(), "_script" | "_geo_distance") {
                        return Err(EsError::illegal_argument(format!(
                            "sort by [{field}] is not supported by this store"
                        )));
                    }
                    specs.push(spec);
                }
            }
            _ => {
                return Err(EsError::illegal_argument(
                    "malformed sort format, within the sort array, an object, or an actual string are allowed",
                ));
            }
        }
    }
    Ok(specs)
}

pub fn parse_source(value: &Value) -> SourceFilter {
    let list = |value: Option<&Value>| -> Vec<String> {
        match value {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(list)) => list.iter().map(text_of).collect(),
            _ => Vec::new(),
        }
    };
    match value {
        Value::Bool(shown) => SourceFilter { is_off: !shown, ..SourceFilter::default() },
        Value::Object(object) => SourceFilter {
            is_off: false,
            includes: list(object.get("includes").or(object.get("include"))),
            excludes: list(object.get("excludes").or(object.get("exclude"))),
        },
        other => SourceFilter { includes: list(Some(other)), ..SourceFilter::default() },
    }
}

fn parse_fields(value: &Value) -> Vec<FieldSpec> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| match item {
            Value::Object(object) => FieldSpec {
                pattern: object.get("field").map(text_of).unwrap_or_default(),
                format: object.get("format").and_then(Value::as_str).map(str::to_owned),
            },
            other => FieldSpec { pattern: text_of(other), format: None },
        })
        .collect()
}

fn parse_highlight(value: &Value) -> Highlight {
    let first = |key: &str, default: &str| {
        value
            .get(key)
            .and_then(|tags| tags.get(0))
            .and_then(Value::as_str)
            .unwrap_or(default)
            .to_owned()
    };
    let number = |key: &str, default: u64| {
        value.get(key).and_then(Value::as_u64).unwrap_or(default) as usize
    };
    let fields = match value.get("fields") {
        Some(Value::Object(fields)) => fields.keys().cloned().collect(),
        Some(Value::Array(list)) => {
            list.iter().filter_map(|f| f.as_object()).flat_map(|f| f.keys().cloned()).collect()
        }
        _ => Vec::new(),
    };
    Highlight {
        fields,
        pre: first("pre_tags", "<em>"),
        post: first("post_tags", "</em>"),
        fragment_size: number("fragment_size", 100),
        fragments: number("number_of_fragments", 5),
    }
}

/// A search over everything, for internal use.
pub fn everything(query: Query) -> Request {
    let mut request =
        parse(&json!({}), "").unwrap_or_else(|_| unreachable!("an empty body is a search"));
    request.query = query;
    request
}
