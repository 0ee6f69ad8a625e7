//! From a query to tantivy's, by the mapping of one index.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use jiff::tz::TimeZone;
use serde_json::Value;
use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, ConstScoreQuery, EmptyQuery, ExistsQuery, Occur, PhrasePrefixQuery,
    PhraseQuery, Query as TantivyQuery, RangeQuery, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};

use crate::analysis;
use crate::dates;
use crate::error::EsError;
use crate::index::Index;
use crate::index::document::{Fields, TIMESTAMP, column_name};
use crate::index::parse::{ip_key, ip_of_key};
use crate::mapping::{Kind, Mapping, Place, Resolved, wildcard};
use crate::search::dictionary::{DictionaryQuery, Test};
use crate::search::dsl::{Bool, Match, MatchKind, Query, Range, minimum_of, text_of};

type Compiled = Result<Box<dyn TantivyQuery>, EsError>;

/// Compiles for one index.
#[expect(missing_debug_implementations, reason = "holds columns or an index, which have none")]
pub struct Compiler<'a> {
    index: &'a Index,
    mapping: &'a Mapping,
    fields: Fields,
    now_ms: i64,
    deadline: Instant,
    /// Clauses so far, those that `*` and words expand to included.
    clauses: Cell<usize>,
}

/// Clauses of one query after expansion; each costs memory and a look at every segment.
const CLAUSES_MAX: usize = 8192;

/// Longest automaton of a regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

fn none() -> Compiled {
    Ok(Box::new(EmptyQuery))
}

fn any(queries: Vec<Box<dyn TantivyQuery>>) -> Box<dyn TantivyQuery> {
    match queries.len() {
        0 => Box::new(EmptyQuery),
        1 => queries.into_iter().next().unwrap_or(Box::new(EmptyQuery)),
        _ => Box::new(BooleanQuery::union(queries)),
    }
}

impl<'a> Compiler<'a> {
    pub fn new(index: &'a Index, mapping: &'a Mapping, now_ms: i64, deadline: Instant) -> Self {
        Self { index, mapping, fields: index.fields, now_ms, deadline, clauses: Cell::new(0) }
    }

    /// # Errors
    /// As the shards of this index would fail.
    pub fn compile(&self, query: &Query) -> Compiled {
        self.count(1)?;
        match query {
            Query::All => Ok(Box::new(AllQuery)),
            Query::None => none(),
            Query::Term { field, value, folds_case } => self.term(field, value, *folds_case, false),
            Query::Terms { field, values } => {
                let terms = values
                    .iter()
                    .map(|value| self.term(field, value, false, false))
                    .collect::<Result<_, _>>()?;
                Ok(constant(any(terms), 1.0))
            }
            Query::Match(query) => self.match_query(query),
            Query::MultiMatch { fields, template } => {
                let mut queries = Vec::new();
                let mut expanded = HashSet::new();
                for field in fields {
                    for field in self.expand(field)? {
                        if expanded.insert(field.clone()) {
                            let mut query = template.clone();
                            query.is_lenient |= fields.iter().any(|field| field.contains('*'));
                            query.field = field;
                            queries.push(self.match_query(&query)?);
                        }
                    }
                }
                Ok(any(queries))
            }
            Query::Range(range) => self.range(range),
            Query::Exists(field) => self.exists(field),
            Query::Prefix { field, value, folds_case } => {
                let (folded, folds) = (value.to_lowercase(), *folds_case);
                let wanted = if folds { folded } else { value.clone() };
                let literal = if folds { String::new() } else { value.clone() };
                self.by_terms(field, &literal, move |text| {
                    if folds {
                        text.to_lowercase().starts_with(&wanted)
                    } else {
                        text.starts_with(&wanted)
                    }
                })
            }
            Query::Wildcard { field, pattern, folds_case } => {
                let folds = *folds_case;
                let pattern = if folds { pattern.to_lowercase() } else { pattern.clone() };
                let literal: String = if folds {
                    String::new()
                } else {
                    pattern.chars().take_while(|c| !"*?\\".contains(*c)).collect()
                };
                let test = glob(&pattern)?;
                let field_pattern = pattern.clone();
                if pattern == "*" {
                    return self.exists(field);
                }
                let _ = field_pattern;
                self.by_terms(field, &literal, move |text| {
                    if folds { test.is_match(&text.to_lowercase()) } else { test.is_match(text) }
                })
            }
            Query::Regexp { field, pattern, folds_case } => {
                let regex = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
                    .case_insensitive(*folds_case)
                    .dot_matches_new_line(true)
                    .size_limit(REGEX_BYTES_MAX)
                    .build()
                    .map_err(|error| {
                        self.failed(format!(
                            "failed to create query: {}",
                            first_line(&error.to_string())
                        ))
                    })?;
                let literal: String = if *folds_case {
                    String::new()
                } else {
                    let plain = pattern
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || "/_-".contains(*c))
                        .collect::<String>();
                    // The last literal character may be repeated or optional.
                    let has_more = plain.len() < pattern.len();
                    if pattern.contains('|') { String::new() } else { drop_last(plain, has_more) }
                };
                self.by_terms(field, &literal, move |text| regex.is_match(text))
            }
            Query::Fuzzy { field, value, distance, prefix } => {
                let (value, distance) = (value.clone(), *distance);
                let literal: String = value.chars().take(*prefix).collect();
                self.by_terms(field, &literal, move |text| within_distance(&value, text, distance))
            }
            Query::Ids(ids) => Ok(constant(
                any(ids
                    .iter()
                    .map(|id| self.term_query(Term::from_field_text(self.fields.id, id)))
                    .collect()),
                1.0,
            )),
            Query::Bool(query) => self.bool_query(query),
            Query::Constant(query) => Ok(constant(self.compile(query)?, 1.0)),
            Query::Any(queries) => Ok(any(queries
                .iter()
                .map(|query| self.compile(query))
                .collect::<Result<_, _>>()?)),
            Query::QueryString(query) => match &query.tree {
                Ok(tree) => self.compile(tree),
                Err(error) => Err(self.query_shard(
                    format!("Failed to parse query [{}]", query.text),
                    Some(
                        EsError::new(400, "parse_exception", error.message.clone()).caused_by(
                            EsError::new(
                                400,
                                "parse_exception",
                                error
                                    .message
                                    .split_once("': ")
                                    .map_or(error.message.clone(), |(_, rest)| rest.to_owned()),
                            ),
                        ),
                    ),
                )),
            },
        }
    }

    fn query_shard(&self, reason: String, cause: Option<EsError>) -> EsError {
        let mut error = EsError::new(400, "query_shard_exception", reason)
            .with("index_uuid", self.index.info().uuid)
            .with("index", self.index.name.clone());
        if let Some(cause) = cause {
            error = error.caused_by(cause);
        }
        error.all_shards_failed(&self.index.name, None)
    }

    /// # Errors
    /// With `more` clauses there would be too many.
    fn count(&self, more: usize) -> Result<(), EsError> {
        let clauses = self.clauses.get().saturating_add(more);
        self.clauses.set(clauses);
        if clauses <= CLAUSES_MAX {
            return Ok(());
        }
        let reason = format!(
            "Query contains too many nested clauses; maxClauseCount is set to {CLAUSES_MAX}"
        );
        Err(EsError::new(400, "too_many_nested_clauses", reason)
            .all_shards_failed(&self.index.name, None))
    }

    fn failed(&self, reason: String) -> EsError {
        self.query_shard(reason, None)
    }

    /// The fields a pattern names. `*` leaves out keyword sub-fields of texts, whose values are
    /// searched through the text.
    ///
    /// # Errors
    /// There are too many, with those that the query has already.
    fn expand(&self, pattern: &str) -> Result<Vec<String>, EsError> {
        if !pattern.contains('*') {
            return Ok(vec![pattern.to_owned()]);
        }
        let fields: Vec<String> = self
            .mapping
            .fields
            .iter()
            .filter(|field| field.place != Place::Nowhere && wildcard(pattern, &field.path))
            .map(|field| field.path.to_string())
            .collect();
        self.count(fields.len())?;
        Ok(fields)
    }

    fn term_query(&self, term: Term) -> Box<dyn TantivyQuery> {
        Box::new(TermQuery::new(term, IndexRecordOption::Basic))
    }

    fn json_term(&self, field: Field, path: &str, text: &str) -> Term {
        let mut term = Term::from_field_json_path(field, path, true);
        term.append_type_and_str(text);
        term
    }

    /// The dictionary that holds a field's terms, and the bytes before each.
    fn dictionary(&self, resolved: &Resolved<'_>, place: Place) -> (Field, Vec<u8>) {
        match place {
            Place::Message => (self.fields.message, Vec::new()),
            Place::Text => (
                self.fields.text,
                self.json_term(self.fields.text, resolved.path, "")
                    .serialized_value_bytes()
                    .to_vec(),
            ),
            _ => (
                self.fields.keyword,
                self.json_term(self.fields.keyword, resolved.path, "")
                    .serialized_value_bytes()
                    .to_vec(),
            ),
        }
    }

    /// Documents with a term (a word of a text, a whole keyword) that passes the test.
    fn by_terms(
        &self,
        field: &str,
        literal: &str,
        test: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Compiled {
        self.by_test(field, literal, Arc::new(test))
    }

    fn by_test(&self, field: &str, literal: &str, test: Test) -> Compiled {
        if field.contains('*') {
            let queries = self
                .expand(field)?
                .into_iter()
                .map(|field| self.by_test(&field, literal, test.clone()));
            return Ok(constant(any(queries.collect::<Result<_, _>>()?), 1.0));
        }
        if field == "_id" {
            let query = DictionaryQuery::with_prefix(
                self.fields.id,
                Vec::new(),
                literal,
                self.deadline,
                test,
            );
            return Ok(Box::new(query));
        }
        if field == "_index" {
            return if test(&self.index.name) { Ok(Box::new(AllQuery)) } else { none() };
        }
        let Some(resolved) = self.mapping.resolve(field) else { return none() };
        let query = match (resolved.place, resolved.kind) {
            (Place::Message | Place::Text, _) => {
                let (field, path) = self.dictionary(&resolved, resolved.place);
                DictionaryQuery::with_prefix(field, path, literal, self.deadline, test)
            }
            (Place::Keyword, Kind::Text) => {
                let (long_field, long_path) = self.dictionary(&resolved, Place::Text);
                let long = {
                    let test = test.clone();
                    DictionaryQuery::with_prefix(
                        long_field,
                        long_path,
                        literal,
                        self.deadline,
                        Arc::new(move |text| test(text)),
                    )
                };
                let (field, path) = self.dictionary(&resolved, Place::Keyword);
                let short = DictionaryQuery::with_prefix(
                    field,
                    path,
                    "",
                    self.deadline,
                    Arc::new(move |text| analysis::words(text).iter().any(|word| test(word))),
                );
                return Ok(Box::new(BooleanQuery::union(vec![Box::new(short), Box::new(long)])));
            }
            (Place::Keyword, Kind::Ip) => {
                let (field, path) = self.dictionary(&resolved, Place::Keyword);
                let test = move |key: &str| {
                    ip_of_key(key).is_some_and(|address| test(&address.to_string()))
                };
                DictionaryQuery::with_prefix(field, path, "", self.deadline, Arc::new(test))
            }
            (Place::Keyword, _) => {
                let (field, path) = self.dictionary(&resolved, Place::Keyword);
                DictionaryQuery::with_prefix(field, path, literal, self.deadline, test)
            }
            _ => return none(),
        };
        Ok(Box::new(query))
    }

    fn term(&self, field: &str, value: &Value, folds_case: bool, is_lenient: bool) -> Compiled {
        if field.contains('*') {
            let queries = self
                .expand(field)?
                .into_iter()
                .map(|field| self.term(&field, value, folds_case, true));
            return Ok(any(queries.collect::<Result<_, _>>()?));
        }
        let text = text_of(value);
        match field {
            "_id" => return Ok(self.term_query(Term::from_field_text(self.fields.id, &text))),
            "_index" => {
                let info = self.index.info();
                let is_this = wildcard(&text, &self.index.name)
                    || info.aliases.contains_key(&text)
                    || info.data_stream.as_deref() == Some(&text);
                return if is_this { Ok(Box::new(AllQuery)) } else { none() };
            }
            _ => {}
        }
        let Some(resolved) = self.mapping.resolve(field) else { return none() };
        if folds_case && matches!(resolved.kind, Kind::Text | Kind::Keyword) {
            let wanted = text.to_lowercase();
            return self.by_terms(field, "", move |term| term.to_lowercase() == wanted);
        }
        match (resolved.kind, resolved.place) {
            (Kind::Text, Place::Keyword) => {
                let word = text.clone();
                self.by_terms(field, "", move |term| term == word)
            }
            (Kind::Keyword, Place::Message | Place::Text) => {
                // The keyword of a long text is not kept: its words in a row come close.
                self.words(&resolved, &Match::new(field, Value::String(text), MatchKind::Phrase))
            }
            (_, Place::Message) => {
                Ok(self.term_query(Term::from_field_text(self.fields.message, &text)))
            }
            (_, Place::Text) => {
                Ok(self.term_query(self.json_term(self.fields.text, resolved.path, &text)))
            }
            (Kind::Ip, _) => self.addresses(&resolved, &text, is_lenient),
            (_, Place::Keyword) => {
                Ok(self.term_query(self.json_term(self.fields.keyword, resolved.path, &text)))
            }
            (_, Place::Nowhere) => none(),
            (Kind::Boolean, _) => match text.as_str() {
                "true" => self.numbers(&resolved, Bound::Included(1), Bound::Included(1)),
                "false" | "" => self.numbers(&resolved, Bound::Included(0), Bound::Included(0)),
                _ if is_lenient => none(),
                _ => Err(self.failed(format!(
                    "Can't parse boolean value [{text}], expected [true] or [false]"
                ))),
            },
            (Kind::Date, _) => self.range_over(
                &resolved,
                &Range {
                    gte: Some(value.clone()),
                    lte: Some(value.clone()),
                    is_lenient,
                    field: field.to_owned(),
                    ..Range::default()
                },
            ),
            (Kind::Float, _) => match text.parse::<f64>() {
                Ok(number) => {
                    self.floats(&resolved, Bound::Included(number), Bound::Included(number))
                }
                Err(_) if is_lenient => none(),
                Err(_) => Err(self.not_a_number(&text)),
            },
            _ => match text.parse::<f64>() {
                Ok(number) if number.fract() == 0.0 => {
                    let number = text.parse::<i64>().unwrap_or(number as i64);
                    self.numbers(&resolved, Bound::Included(number), Bound::Included(number))
                }
                Ok(_) => none(),
                Err(_) if is_lenient => none(),
                Err(_) => Err(self.not_a_number(&text)),
            },
        }
    }

    fn not_a_number(&self, text: &str) -> EsError {
        let cause =
            EsError::new(400, "number_format_exception", format!("For input string: \"{text}\""));
        self.query_shard(
            format!("failed to create query: For input string: \"{text}\""),
            Some(cause),
        )
    }

    /// One address, or a block such as `10.0.0.0/8`.
    fn addresses(&self, resolved: &Resolved<'_>, text: &str, is_lenient: bool) -> Compiled {
        let refuse = || {
            if is_lenient {
                none()
            } else {
                Err(self.failed(format!(
                    "failed to create query: '{text}' is not an IP string literal."
                )))
            }
        };
        let Some((address, bits)) = text.split_once('/') else {
            let Ok(address) = text.parse::<IpAddr>() else { return refuse() };
            return Ok(self.term_query(self.json_term(
                self.fields.keyword,
                resolved.path,
                &ip_key(address),
            )));
        };
        let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u32>()) else {
            return refuse();
        };
        let bits = if address.is_ipv4() { bits.saturating_add(96) } else { bits };
        if bits > 128 {
            return refuse();
        }
        let number = u128::from(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        });
        let host = if bits == 0 { u128::MAX } else { (1u128 << (128 - bits)).wrapping_sub(1) };
        let key = |number: u128| ip_key(IpAddr::V6(number.into()));
        let (low, high) = (key(number & !host), key(number | host));
        self.strings(resolved, low.into_bytes(), Some([high.as_bytes(), &[0]].concat()))
    }

    /// Keywords from one up to before another.
    fn strings(&self, resolved: &Resolved<'_>, from: Vec<u8>, until: Option<Vec<u8>>) -> Compiled {
        let (field, path) = self.dictionary(resolved, resolved.place);
        Ok(Box::new(DictionaryQuery {
            field,
            path,
            from,
            until,
            test: Arc::new(|_| true),
            deadline: self.deadline,
        }))
    }

    fn numbers(&self, resolved: &Resolved<'_>, low: Bound<i64>, high: Bound<i64>) -> Compiled {
        let term = |number: i64| {
            if resolved.place == Place::Timestamp {
                Term::from_field_i64(self.fields.timestamp, number)
            } else {
                let mut term = Term::from_field_json_path(self.fields.number, resolved.path, true);
                term.append_type_and_fast_value(number);
                term
            }
        };
        Ok(self.between(resolved, low.map(term), high.map(term)))
    }

    fn floats(&self, resolved: &Resolved<'_>, low: Bound<f64>, high: Bound<f64>) -> Compiled {
        let term = |number: f64| {
            let mut term = Term::from_field_json_path(self.fields.number, resolved.path, true);
            term.append_type_and_fast_value(number);
            term
        };
        Ok(self.between(resolved, low.map(term), high.map(term)))
    }

    fn between(
        &self,
        resolved: &Resolved<'_>,
        low: Bound<Term>,
        high: Bound<Term>,
    ) -> Box<dyn TantivyQuery> {
        if matches!((&low, &high), (Bound::Unbounded, Bound::Unbounded)) {
            return Box::new(ExistsQuery::new(column_name(resolved.place, resolved.path), false));
        }
        Box::new(RangeQuery::new(low, high))
    }

    fn range(&self, range: &Range) -> Compiled {
        if range.field.contains('*') {
            let queries = self
                .expand(&range.field)?
                .into_iter()
                .map(|field| self.range(&Range { field, is_lenient: true, ..range.clone() }));
            return Ok(any(queries.collect::<Result<_, _>>()?));
        }
        match self.mapping.resolve(&range.field) {
            Some(resolved) => self.range_over(&resolved, range),
            None => none(),
        }
    }

    fn range_over(&self, resolved: &Resolved<'_>, range: &Range) -> Compiled {
        match resolved.kind {
            Kind::Date => {
                let zone = match &range.time_zone {
                    Some(zone) => dates::parse_zone(zone).ok_or_else(|| {
                        self.failed(format!(
                            "Invalid ID for region-based ZoneId, invalid format: {zone}"
                        ))
                    })?,
                    None => TimeZone::UTC,
                };
                let format = range.format.as_deref().unwrap_or(resolved.format);
                let instant = |value: &Option<Value>,
                               rounds_up: bool|
                 -> Result<Option<i64>, EsError> {
                    let Some(value) = value else { return Ok(None) };
                    let text = text_of(value);
                    let found = dates::parse_math(&text, format, &zone, self.now_ms, rounds_up);
                    match found {
                        Some(ms) => Ok(Some(ms)),
                        // Numbers are milliseconds whatever the field's format says.
                        None if value.is_number() => Ok(value.as_i64().or_else(|| value.as_f64().map(|ms| ms as i64))),
                        None => Err(self.query_shard(
                            format!("failed to create query: failed to parse date field [{text}] with format [{format}]"),
                            Some(EsError::new(400, "parse_exception", format!("failed to parse date field [{text}] with format [{format}]"))),
                        )),
                    }
                };
                let bounds = (|| {
                    Ok::<_, EsError>((
                        instant(&range.gte, false)?,
                        instant(&range.gt, true)?,
                        instant(&range.lte, true)?,
                        instant(&range.lt, false)?,
                    ))
                })();
                let (gte, gt, lte, lt) = match bounds {
                    Ok(bounds) => bounds,
                    Err(_) if range.is_lenient => return none(),
                    Err(error) => return Err(error),
                };
                self.numbers(resolved, low_bound(gte, gt), high_bound(lte, lt))
            }
            Kind::Integer | Kind::Boolean => {
                // Bounds with a fraction or beyond 64 bits are moved to the next whole number within.
                let number = |value: &Option<Value>| self.number(value, range.is_lenient);
                let (gte, gt, lte, lt) = match (
                    number(&range.gte)?,
                    number(&range.gt)?,
                    number(&range.lte)?,
                    number(&range.lt)?,
                ) {
                    (Some(gte), Some(gt), Some(lte), Some(lt)) => (gte, gt, lte, lt),
                    _ => return none(),
                };
                let low = gte.map(|n| n.ceil()).or(gt.map(|n| n.floor() + 1.0));
                let high = lte.map(|n| n.floor()).or(lt.map(|n| n.ceil() - 1.0));
                // Numbers too large for a float's 53 bits are taken from their text.
                let exact = |value: &Option<Value>| {
                    value.as_ref().and_then(|value| text_of(value).parse::<i64>().ok())
                };
                let low = exact(&range.gte)
                    .or(exact(&range.gt).and_then(|n| n.checked_add(1)))
                    .map_or_else(|| low.map(|n| n as i64), Some);
                let high = exact(&range.lte)
                    .or(exact(&range.lt).and_then(|n| n.checked_sub(1)))
                    .map_or_else(|| high.map(|n| n as i64), Some);
                self.numbers(
                    resolved,
                    low.map_or(Bound::Unbounded, Bound::Included),
                    high.map_or(Bound::Unbounded, Bound::Included),
                )
            }
            Kind::Float => {
                let number = |value: &Option<Value>| self.number(value, range.is_lenient);
                let (gte, gt, lte, lt) = match (
                    number(&range.gte)?,
                    number(&range.gt)?,
                    number(&range.lte)?,
                    number(&range.lt)?,
                ) {
                    (Some(gte), Some(gt), Some(lte), Some(lt)) => (gte, gt, lte, lt),
                    _ => return none(),
                };
                self.floats(resolved, low_bound(gte, gt), high_bound(lte, lt))
            }
            Kind::Ip => {
                let key = |value: &Option<Value>| -> Result<Option<String>, EsError> {
                    let Some(value) = value else { return Ok(None) };
                    let text = text_of(value);
                    let address: IpAddr = text.parse().map_err(|_| {
                        self.failed(format!(
                            "failed to create query: '{text}' is not an IP string literal."
                        ))
                    })?;
                    Ok(Some(ip_key(address)))
                };
                let bounds = (|| {
                    Ok::<_, EsError>((
                        key(&range.gte)?,
                        key(&range.gt)?,
                        key(&range.lte)?,
                        key(&range.lt)?,
                    ))
                })();
                let (gte, gt, lte, lt) = match bounds {
                    Ok(bounds) => bounds,
                    Err(_) if range.is_lenient => return none(),
                    Err(error) => return Err(error),
                };
                self.string_range(resolved, gte, gt, lte, lt)
            }
            Kind::Keyword | Kind::Text if resolved.place != Place::Nowhere => {
                let text = |value: &Option<Value>| value.as_ref().map(text_of);
                self.string_range(
                    resolved,
                    text(&range.gte),
                    text(&range.gt),
                    text(&range.lte),
                    text(&range.lt),
                )
            }
            _ => none(),
        }
    }

    fn string_range(
        &self,
        resolved: &Resolved<'_>,
        gte: Option<String>,
        gt: Option<String>,
        lte: Option<String>,
        lt: Option<String>,
    ) -> Compiled {
        // A string followed by a zero byte is the next one in order.
        let next = |text: String| [text.as_bytes(), &[0]].concat();
        let from = gte.map(String::into_bytes).or(gt.map(next)).unwrap_or_default();
        let until = lte.map(next).or(lt.map(String::into_bytes));
        self.strings(resolved, from, until)
    }

    /// `Ok(Some(None))` for no bound; `Ok(None)` where a bad bound is to match nothing.
    #[expect(clippy::option_option, reason = "absent and unusable are different here")]
    fn number(
        &self,
        value: &Option<Value>,
        is_lenient: bool,
    ) -> Result<Option<Option<f64>>, EsError> {
        let Some(value) = value else { return Ok(Some(None)) };
        let text = text_of(value);
        match text.parse::<f64>() {
            Ok(number) if !number.is_nan() => Ok(Some(Some(number))),
            _ if is_lenient => Ok(None),
            _ => match text.as_str() {
                "true" => Ok(Some(Some(1.0))),
                "false" => Ok(Some(Some(0.0))),
                _ => Err(self.not_a_number(&text)),
            },
        }
    }

    fn exists(&self, field: &str) -> Compiled {
        if field.contains('*') {
            let queries = self.expand(field)?.into_iter().map(|field| self.exists(&field));
            return Ok(constant(any(queries.collect::<Result<_, _>>()?), 1.0));
        }
        if matches!(field, "_id" | "_index" | "_source" | "_seq_no") {
            return Ok(Box::new(AllQuery));
        }
        let column = |name: String, is_tree: bool| -> Box<dyn TantivyQuery> {
            Box::new(ExistsQuery::new(name, is_tree))
        };
        let query = match self.mapping.resolve(field) {
            Some(resolved) => match resolved.place {
                Place::Nowhere => return none(),
                Place::Timestamp => column(TIMESTAMP.into(), false),
                // Long values of a short text are marked among the numbers.
                Place::Keyword if resolved.kind == Kind::Text => any(vec![
                    column(format!("k.{}", resolved.path), false),
                    column(format!("n.{}", resolved.path), false),
                ]),
                place => column(column_name(place, resolved.path), false),
            },
            None if self.mapping.is_object(field) => {
                any(vec![column(format!("k.{field}"), true), column(format!("n.{field}"), true)])
            }
            None => return none(),
        };
        Ok(constant(query, 1.0))
    }

    fn match_query(&self, query: &Match) -> Compiled {
        if query.field.contains('*') {
            let queries = self
                .expand(&query.field)?
                .into_iter()
                .map(|field| self.match_query(&Match { field, is_lenient: true, ..query.clone() }));
            return Ok(any(queries.collect::<Result<_, _>>()?));
        }
        let resolved = self.mapping.resolve(&query.field);
        match resolved {
            Some(resolved) if resolved.kind == Kind::Text => self.words(&resolved, query),
            _ if query.kind == MatchKind::PhrasePrefix || query.kind == MatchKind::BoolPrefix => {
                let prefix = query.text();
                self.by_terms(&query.field, &prefix.clone(), move |text| text.starts_with(&prefix))
            }
            _ => self.term(&query.field, &query.value, false, query.is_lenient),
        }
    }

    /// Words of a text field.
    fn words(&self, resolved: &Resolved<'_>, query: &Match) -> Compiled {
        let words = analysis::words(&query.text());
        if words.is_empty() || resolved.place == Place::Nowhere {
            return none();
        }
        self.count(words.len())?;
        let long_place =
            if resolved.place == Place::Keyword { Place::Text } else { resolved.place };
        let long = self.indexed_words(resolved, long_place, &words, query)?;
        if resolved.place != Place::Keyword {
            return Ok(long);
        }
        let (field, path) = self.dictionary(resolved, Place::Keyword);
        let wanted = query.clone();
        let minimum = minimum_words(query, words.len());
        let fuzz = query.fuzziness.clone();
        let test = move |text: &str| match wanted.kind {
            MatchKind::Words | MatchKind::BoolPrefix => {
                let found = analysis::words(text);
                let last = words.len() - 1;
                let hits = words.iter().enumerate().filter(|(i, word)| {
                    found.iter().any(|found| {
                        found == *word
                            || (wanted.kind == MatchKind::BoolPrefix
                                && *i == last
                                && found.starts_with(word.as_str()))
                            || fuzz.is_some()
                                && within_distance(
                                    word,
                                    found,
                                    crate::search::dsl::fuzziness(fuzz.as_ref(), word),
                                )
                    })
                });
                hits.count() >= minimum
            }
            MatchKind::Phrase => {
                contains_phrase(&analysis::words(text), &words, false, wanted.slop as usize)
            }
            MatchKind::PhrasePrefix => contains_phrase(&analysis::words(text), &words, true, 0),
        };
        let short = DictionaryQuery::with_prefix(field, path, "", self.deadline, Arc::new(test));
        Ok(Box::new(BooleanQuery::union(vec![Box::new(short), long])))
    }

    fn indexed_words(
        &self,
        resolved: &Resolved<'_>,
        place: Place,
        words: &[String],
        query: &Match,
    ) -> Compiled {
        let term = |word: &str| match place {
            Place::Message => Term::from_field_text(self.fields.message, word),
            _ => self.json_term(self.fields.text, resolved.path, word),
        };
        let one = |word: &str| -> Box<dyn TantivyQuery> {
            Box::new(TermQuery::new(term(word), IndexRecordOption::WithFreqs))
        };
        let starting = |prefix: &str| -> Box<dyn TantivyQuery> {
            let (field, path) = self.dictionary(resolved, place);
            Box::new(DictionaryQuery::with_prefix(
                field,
                path,
                prefix,
                self.deadline,
                Arc::new(|_| true),
            ))
        };
        Ok(match (query.kind, words) {
            (MatchKind::PhrasePrefix, [word]) => starting(word),
            (MatchKind::Words | MatchKind::Phrase, [word]) if query.fuzziness.is_none() => {
                one(word)
            }
            (MatchKind::Phrase, _) => {
                let terms = words.iter().enumerate().map(|(i, word)| (i, term(word))).collect();
                Box::new(PhraseQuery::new_with_offset_and_slop(terms, query.slop))
            }
            (MatchKind::PhrasePrefix, _) => {
                let mut phrase =
                    PhrasePrefixQuery::new(words.iter().map(|word| term(word)).collect());
                phrase.set_max_expansions(1024);
                Box::new(phrase)
            }
            (MatchKind::Words | MatchKind::BoolPrefix, _) => {
                let last = words.len() - 1;
                let mut queries: Vec<Box<dyn TantivyQuery>> = Vec::new();
                for (i, word) in words.iter().enumerate() {
                    queries.push(if query.kind == MatchKind::BoolPrefix && i == last {
                        starting(word)
                    } else if let Some(fuzziness) = &query.fuzziness {
                        let distance = crate::search::dsl::fuzziness(Some(fuzziness), word);
                        let (field, path) = self.dictionary(resolved, place);
                        let word = word.clone();
                        let test = move |text: &str| within_distance(&word, text, distance);
                        Box::new(DictionaryQuery::with_prefix(
                            field,
                            path,
                            "",
                            self.deadline,
                            Arc::new(test),
                        ))
                    } else {
                        one(word)
                    });
                }
                let minimum = minimum_words(query, queries.len());
                if minimum <= 1 {
                    any(queries)
                } else {
                    let clauses = queries.into_iter().map(|query| (Occur::Should, query)).collect();
                    Box::new(BooleanQuery::with_minimum_required_clauses(clauses, minimum))
                }
            }
        })
    }

    fn bool_query(&self, query: &Bool) -> Compiled {
        let mut clauses: Vec<(Occur, Box<dyn TantivyQuery>)> = Vec::new();
        for clause in &query.must {
            clauses.push((Occur::Must, self.compile(clause)?));
        }
        for clause in &query.filter {
            clauses.push((Occur::Must, constant(self.compile(clause)?, 0.0)));
        }
        let has_required = !clauses.is_empty();
        let should = query
            .should
            .iter()
            .map(|clause| self.compile(clause))
            .collect::<Result<Vec<_>, _>>()?;
        let count = should.len();
        let minimum = match &query.minimum {
            Some(minimum) => minimum_of(minimum, count),
            None => usize::from(!has_required && count > 0),
        };
        if minimum > count {
            return none();
        }
        if !has_required && count == 0 {
            clauses.push((Occur::Must, Box::new(AllQuery)));
        } else if !has_required && minimum == 0 {
            clauses.push((Occur::Must, constant(Box::new(AllQuery), 0.0)));
        }
        clauses.extend(should.into_iter().map(|query| (Occur::Should, query)));
        for clause in &query.must_not {
            clauses.push((Occur::MustNot, self.compile(clause)?));
        }
        Ok(Box::new(BooleanQuery::with_minimum_required_clauses(clauses, minimum)))
    }
}

fn constant(query: Box<dyn TantivyQuery>, score: f32) -> Box<dyn TantivyQuery> {
    Box::new(ConstScoreQuery::new(query, score))
}

fn minimum_words(query: &Match, count: usize) -> usize {
    match &query.minimum {
        Some(minimum) if !query.needs_all => minimum_of(minimum, count).max(1),
        _ if query.needs_all => count,
        _ if query.kind == MatchKind::BoolPrefix => 1,
        _ => 1,
    }
}

fn low_bound<T>(includes: Option<T>, excludes: Option<T>) -> Bound<T> {
    includes.map(Bound::Included).or(excludes.map(Bound::Excluded)).unwrap_or(Bound::Unbounded)
}

fn high_bound<T>(includes: Option<T>, excludes: Option<T>) -> Bound<T> {
    low_bound(includes, excludes)
}

fn drop_last(mut text: String, really: bool) -> String {
    if really {
        text.pop();
    }
    text
}

fn first_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text)
}

/// A pattern of `*`, `?` and backslashes as a regular expression.
fn glob(pattern: &str) -> Result<regex::Regex, EsError> {
    let mut out = String::from("(?s)^");
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '\\' => out.push_str(&regex::escape(&characters.next().unwrap_or('\\').to_string())),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    regex::RegexBuilder::new(&out).size_limit(REGEX_BYTES_MAX).build().map_err(|_| {
        EsError::illegal_argument(format!(
            "wildcard pattern of {} characters is too complex",
            pattern.chars().count()
        ))
    })
}

/// Whether `words` stand in `text` one after the other, `slop` other words between them at most;
/// the last may be a prefix.
fn contains_phrase(text: &[String], words: &[String], last_is_prefix: bool, slop: usize) -> bool {
    let matches = |at: usize, i: usize| {
        text.get(at).is_some_and(|found| {
            found == &words[i]
                || (last_is_prefix && i + 1 == words.len() && found.starts_with(words[i].as_str()))
        })
    };
    (0..text.len()).any(|start| {
        if !matches(start, 0) {
            return false;
        }
        let (mut at, mut left) = (start, slop);
        for i in 1..words.len() {
            at += 1;
            while !matches(at, i) {
                if left == 0 || at >= text.len() {
                    return false;
                }
                left -= 1;
                at += 1;
            }
        }
        true
    })
}

/// Whether `b` is within `distance` edits of `a`, swaps of neighbours counted as one.
fn within_distance(a: &str, b: &str, distance: u8) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let limit = usize::from(distance);
    if a.len().abs_diff(b.len()) > limit {
        return false;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            next[j] = change.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()] <= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_swaps_as_one() {
        assert!(within_distance("quick", "quikc", 1));
        assert!(within_distance("kitten", "sitting", 3));
        assert!(!within_distance("kitten", "sitting", 2));
        assert!(within_distance("", "a", 1));
    }

    #[test]
    fn phrases_allow_slop() {
        let words = |text: &str| analysis::words(text);
        assert!(contains_phrase(&words("the quick brown fox"), &words("quick brown"), false, 0));
        assert!(!contains_phrase(&words("the quick brown fox"), &words("quick fox"), false, 0));
        assert!(contains_phrase(&words("the quick brown fox"), &words("quick fox"), false, 1));
        assert!(contains_phrase(&words("images logo"), &words("images lo"), true, 0));
    }
}
