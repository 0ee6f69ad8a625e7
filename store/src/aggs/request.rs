//! Aggregations as a request words them.

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::dates::{self, Unit};
use crate::error::EsError;
use crate::search::dsl::{self, Query, text_of};
use crate::search::request::{self as search, Request};

#[derive(Debug, Clone, Default)]
pub struct Aggs(pub Vec<Agg>);

#[derive(Debug, Clone)]
pub struct Agg {
    pub name: String,
    pub kind: Kind,
    pub subs: Aggs,
    pub meta: Option<Value>,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Terms(Terms),
    RareTerms {
        field: String,
        max: u64,
    },
    DateHistogram(DateHistogram),
    AutoDateHistogram {
        field: String,
        buckets: usize,
        format: Option<String>,
        zone: TimeZone,
    },
    Histogram {
        field: String,
        interval: f64,
        offset: f64,
        min_doc_count: u64,
        bounds: Option<(f64, f64)>,
        is_keyed: bool,
    },
    Range {
        field: String,
        ranges: Vec<RangeBucket>,
        is_date: bool,
        format: Option<String>,
        is_keyed: bool,
    },
    Filter(Query),
    Filters {
        filters: Vec<(String, Query)>,
        other: Option<String>,
        is_keyed: bool,
    },
    Missing {
        field: String,
    },
    Composite {
        size: usize,
        sources: Vec<Source>,
        after: Option<Map<String, Value>>,
    },
    Metric(Metric),
    TopHits(Box<Request>),
    Pipeline(Pipeline),
}

#[derive(Debug, Clone)]
pub struct Terms {
    pub field: String,
    pub size: usize,
    pub min_doc_count: u64,
    /// A path or `_count` or `_key`, and whether it descends.
    pub order: Vec<(String, bool)>,
    pub include: Option<Values>,
    pub exclude: Option<Values>,
    pub missing: Option<Value>,
    pub format: Option<String>,
}

/// Which values are taken.
#[derive(Debug, Clone)]
pub enum Values {
    Pattern(regex::Regex),
    List(Vec<String>),
}

impl Values {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Pattern(regex) => regex.is_match(text),
            Self::List(list) => list.iter().any(|value| value == text),
        }
    }
}

#[derive(Debug, Clone)]
pub struct DateHistogram {
    pub field: String,
    pub interval: Interval,
    pub zone: TimeZone,
    pub offset_ms: i64,
    pub format: Option<String>,
    pub min_doc_count: u64,
    /// Least and greatest instant for which empty buckets are shown too.
    pub bounds: Option<(Value, Value)>,
    /// Documents outside are left out.
    pub hard_bounds: Option<(Value, Value)>,
    pub is_keyed: bool,
    pub descends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    Fixed(i64),
    Calendar(Unit),
}

impl Interval {
    /// Start of the bucket that `ms` falls into.
    pub fn floor(self, ms: i64, zone: &TimeZone, offset_ms: i64) -> i64 {
        let ms = dates::clamped(ms.saturating_sub(offset_ms));
        offset_ms.saturating_add(match self {
            Self::Calendar(unit) => unit.floor(ms, zone),
            Self::Fixed(step) if *zone == TimeZone::UTC => ms.div_euclid(step) * step,
            Self::Fixed(step) => {
                dates::to_utc(dates::to_local(ms, zone).div_euclid(step) * step, zone)
            }
        })
    }

    /// Start of the bucket after the one that starts at `ms`.
    pub fn next(self, ms: i64, zone: &TimeZone, offset_ms: i64) -> i64 {
        match self {
            Self::Fixed(step) => ms.saturating_add(step),
            Self::Calendar(unit) => {
                offset_ms.saturating_add(unit.add(ms.saturating_sub(offset_ms), 1, zone))
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct RangeBucket {
    pub key: Option<String>,
    pub from: Option<Value>,
    pub to: Option<Value>,
}

#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub field: String,
    pub interval: Option<SourceInterval>,
    pub descends: bool,
    pub takes_missing: bool,
    pub format: Option<String>,
}

#[derive(Debug, Clone)]
pub enum SourceInterval {
    Date(Interval, TimeZone),
    Number(f64),
}

#[derive(Debug, Clone)]
pub struct Metric {
    pub field: String,
    pub op: MetricOp,
    pub missing: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MetricOp {
    Avg,
    Min,
    Max,
    Sum,
    ValueCount,
    Stats,
    ExtendedStats { sigma: f64 },
    Percentiles { percents: Vec<f64>, is_keyed: bool },
    PercentileRanks { values: Vec<f64>, is_keyed: bool },
    Cardinality,
}

#[derive(Debug, Clone)]
pub struct Pipeline {
    pub op: String,
    pub path: String,
    pub from: usize,
    pub size: Option<usize>,
    pub sort: Vec<(String, bool)>,
}

/// Deepest nesting of aggregations.
const DEPTH_MAX: usize = 10;
const SIZE_MAX: usize = 65_536;

/// Reads the `aggs` of a request whose text is `source`.
pub fn parse_aggs(value: &Value, source: &str) -> Result<Aggs, EsError> {
    parse_level(value, source, 0)
}

fn parse_level(value: &Value, source: &str, depth: usize) -> Result<Aggs, EsError> {
    if depth > DEPTH_MAX {
        return Err(EsError::illegal_argument(format!(
            "aggregations nested deeper than {DEPTH_MAX}"
        )));
    }
    let mut aggs = Vec::new();
    for (name, body) in value.as_object().into_iter().flatten() {
        let (mut kind, mut subs, mut meta) = (None, Aggs::default(), None);
        for (key, value) in body.as_object().into_iter().flatten() {
            match key.as_str() {
                "aggs" | "aggregations" => subs = parse_level(value, source, depth + 1)?,
                "meta" => meta = Some(value.clone()),
                key => kind = Some(parse_kind(key, name, value, source)?),
            }
        }
        let kind = kind.ok_or_else(|| {
            parsing(source, name, format!("Missing definition for aggregation [{name}]"))
        })?;
        aggs.push(Agg { name: name.clone(), kind, subs, meta });
    }
    Ok(Aggs(aggs))
}

fn parsing(source: &str, key: &str, reason: String) -> EsError {
    let (line, column) = dsl::locate(source, key);
    EsError::new(400, "parsing_exception", reason).with("line", line).with("col", column)
}

fn parse_kind(key: &str, name: &str, body: &Value, source: &str) -> Result<Kind, EsError> {
    let text = |key: &str| body.get(key).map(text_of);
    let number =
        |key: &str| body.get(key).and_then(|v| v.as_f64().or_else(|| text_of(v).parse().ok()));
    let is_keyed = |default: bool| body.get("keyed").and_then(Value::as_bool).unwrap_or(default);
    let field = || -> Result<String, EsError> {
        if body.get("script").is_some() {
            return Err(parsing(
                source,
                "script",
                format!("[{key}] aggregation [{name}]: scripts are not supported by this store"),
            ));
        }
        text("field").ok_or_else(|| EsError::illegal_argument(format!("Required one of fields [field, script], but none were specified. (aggregation [{name}])")))
    };
    let zone = || -> Result<TimeZone, EsError> {
        match text("time_zone") {
            Some(zone) => dates::parse_zone(&zone)
                .ok_or_else(|| EsError::illegal_argument(format!("Unknown time-zone ID: {zone}"))),
            None => Ok(TimeZone::UTC),
        }
    };
    let size = |default: usize| -> Result<usize, EsError> {
        match number("size") {
            Some(size) if size >= 1.0 => Ok((size as usize).min(SIZE_MAX)),
            Some(_) => Err(EsError::illegal_argument(format!(
                "[size] must be greater than 0. Found [{}] in [{name}]",
                text("size").unwrap_or_default()
            ))),
            None => Ok(default),
        }
    };
    let metric = |op: MetricOp| -> Result<Kind, EsError> {
        Ok(Kind::Metric(Metric { field: field()?, op, missing: number("missing") }))
    };
    let list = |key: &str| -> Option<Vec<f64>> {
        body.get(key)
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_f64).collect())
    };
    Ok(match key {
        "terms" => Kind::Terms(Terms {
            field: field()?,
            size: size(10)?,
            min_doc_count: number("min_doc_count").map_or(1, |n| n as u64),
            order: parse_order(body.get("order")),
            include: parse_values(body.get("include"))?,
            exclude: parse_values(body.get("exclude"))?,
            missing: body.get("missing").cloned(),
            format: text("format"),
        }),
        "rare_terms" => Kind::RareTerms {
            field: field()?,
            max: number("max_doc_count").map_or(1, |n| n as u64),
        },
        "date_histogram" => {
            let calendar = text("calendar_interval")
                .and_then(|text| Unit::of_calendar(&text).map(Interval::Calendar));
            let fixed = text("fixed_interval")
                .and_then(|text| dates::fixed_interval_ms(&text).map(Interval::Fixed));
            // The old key takes either form.
            let old = text("interval").and_then(|text| {
                Unit::of_calendar(&text)
                    .map(Interval::Calendar)
                    .or_else(|| dates::fixed_interval_ms(&text).map(Interval::Fixed))
            });
            let interval = calendar.or(fixed).or(old).ok_or_else(|| match (text("calendar_interval"), text("fixed_interval")) {
                (Some(given), _) => EsError::illegal_argument(format!("The supplied interval [{given}] could not be parsed as a calendar interval.")),
                (_, Some(given)) => EsError::illegal_argument(format!("failed to parse setting [DateHistogramAggregationBuilder.fixedInterval] with value [{given}] as a time value: unit is missing or unrecognized")),
                _ => EsError::illegal_argument("Invalid interval specified, must be non-null and non-empty"),
            })?;
            let bounds = |key: &str| {
                body.get(key).map(|b| {
                    (
                        b.get("min").cloned().unwrap_or(Value::Null),
                        b.get("max").cloned().unwrap_or(Value::Null),
                    )
                })
            };
            let offset = text("offset").map_or(0, |text| {
                let (sign, text) = text
                    .strip_prefix('-')
                    .map_or((1, text.trim_start_matches('+')), |rest| (-1, rest));
                sign * dates::fixed_interval_ms(text).unwrap_or(0)
            });
            Kind::DateHistogram(DateHistogram {
                field: field()?,
                interval,
                zone: zone()?,
                offset_ms: offset,
                format: text("format"),
                min_doc_count: number("min_doc_count").map_or(0, |n| n as u64),
                bounds: bounds("extended_bounds"),
                hard_bounds: bounds("hard_bounds"),
                is_keyed: is_keyed(false),
                descends: parse_order(body.get("order"))
                    .first()
                    .is_some_and(|(path, descends)| path == "_key" && *descends),
            })
        }
        "auto_date_histogram" => Kind::AutoDateHistogram {
            field: field()?,
            buckets: number("buckets").map_or(10, |n| (n as usize).clamp(1, 10_000)),
            format: text("format"),
            zone: zone()?,
        },
        "histogram" => {
            let interval = number("interval").filter(|interval| *interval > 0.0);
            let bounds = body
                .get("extended_bounds")
                .and_then(|b| Some((b.get("min")?.as_f64()?, b.get("max")?.as_f64()?)));
            Kind::Histogram {
                field: field()?,
                interval: interval.ok_or_else(|| {
                    EsError::illegal_argument(
                        "[interval] must be >0 for histogram aggregation [".to_owned() + name + "]",
                    )
                })?,
                offset: number("offset").unwrap_or(0.0),
                min_doc_count: number("min_doc_count").map_or(0, |n| n as u64),
                bounds,
                is_keyed: is_keyed(false),
            }
        }
        "range" | "date_range" | "ip_range" => {
            if key == "ip_range" {
                return Err(parsing(
                    source,
                    key,
                    "[ip_range] is not supported by this store".into(),
                ));
            }
            let ranges = body.get("ranges").and_then(Value::as_array).cloned().unwrap_or_default();
            Kind::Range {
                field: field()?,
                ranges: ranges
                    .iter()
                    .map(|range| RangeBucket {
                        key: range.get("key").map(text_of),
                        from: range.get("from").filter(|v| !v.is_null()).cloned(),
                        to: range.get("to").filter(|v| !v.is_null()).cloned(),
                    })
                    .collect(),
                is_date: key == "date_range",
                format: text("format"),
                is_keyed: is_keyed(false),
            }
        }
        "filter" => Kind::Filter(dsl::parse(body, source)?),
        "filters" => {
            let (filters, keyed) = match body.get("filters") {
                Some(Value::Object(map)) => (
                    map.iter()
                        .map(|(k, v)| Ok((k.clone(), dsl::parse(v, source)?)))
                        .collect::<Result<Vec<_>, EsError>>()?,
                    true,
                ),
                Some(Value::Array(list)) => (
                    list.iter()
                        .enumerate()
                        .map(|(i, v)| Ok((i.to_string(), dsl::parse(v, source)?)))
                        .collect::<Result<Vec<_>, EsError>>()?,
                    false,
                ),
                _ => (Vec::new(), true),
            };
            let other =
                match (text("other_bucket_key"), body.get("other_bucket").and_then(Value::as_bool))
                {
                    (Some(key), _) => Some(key),
                    (None, Some(true)) => Some("_other_".into()),
                    _ => None,
                };
            Kind::Filters { filters, other, is_keyed: keyed }
        }
        "missing" => Kind::Missing { field: field()? },
        "composite" => {
            let mut sources = Vec::new();
            for source_ in body.get("sources").and_then(Value::as_array).into_iter().flatten() {
                for (name, by) in source_.as_object().into_iter().flatten() {
                    let Some((kind, options)) = by.as_object().and_then(|by| by.iter().next())
                    else {
                        continue;
                    };
                    let text = |key: &str| options.get(key).map(text_of);
                    let zone = text("time_zone")
                        .and_then(|zone| dates::parse_zone(&zone))
                        .unwrap_or(TimeZone::UTC);
                    let interval = match kind.as_str() {
                        "terms" => None,
                        "date_histogram" => {
                            let calendar = text("calendar_interval")
                                .and_then(|text| Unit::of_calendar(&text).map(Interval::Calendar));
                            let fixed = text("fixed_interval").and_then(|text| {
                                dates::fixed_interval_ms(&text).map(Interval::Fixed)
                            });
                            let interval = calendar.or(fixed).ok_or_else(|| {
                                EsError::illegal_argument(
                                    "Invalid interval specified, must be non-null and non-empty",
                                )
                            })?;
                            Some(SourceInterval::Date(interval, zone))
                        }
                        "histogram" => Some(SourceInterval::Number(
                            options
                                .get("interval")
                                .and_then(Value::as_f64)
                                .filter(|i| *i > 0.0)
                                .unwrap_or(1.0),
                        )),
                        other => {
                            return Err(parsing(
                                source,
                                other,
                                format!("invalid source type: {other}"),
                            ));
                        }
                    };
                    sources.push(Source {
                        name: name.clone(),
                        field: text("field").unwrap_or_default(),
                        interval,
                        descends: text("order").as_deref() == Some("desc"),
                        takes_missing: options.get("missing_bucket").and_then(Value::as_bool)
                            == Some(true),
                        format: text("format"),
                    });
                }
            }
            if sources.is_empty() {
                return Err(EsError::illegal_argument("Required [sources]"));
            }
            Kind::Composite {
                size: size(10)?,
                sources,
                after: body.get("after").and_then(Value::as_object).cloned(),
            }
        }
        "avg" => metric(MetricOp::Avg)?,
        "min" => metric(MetricOp::Min)?,
        "max" => metric(MetricOp::Max)?,
        "sum" => metric(MetricOp::Sum)?,
        "value_count" => metric(MetricOp::ValueCount)?,
        "stats" => metric(MetricOp::Stats)?,
        "extended_stats" => {
            metric(MetricOp::ExtendedStats { sigma: number("sigma").unwrap_or(2.0) })?
        }
        "percentiles" => metric(MetricOp::Percentiles {
            percents: list("percents")
                .unwrap_or_else(|| vec![1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0]),
            is_keyed: is_keyed(true),
        })?,
        "percentile_ranks" => metric(MetricOp::PercentileRanks {
            values: list("values").unwrap_or_default(),
            is_keyed: is_keyed(true),
        })?,
        "cardinality" => metric(MetricOp::Cardinality)?,
        "top_hits" => {
            let mut request = search::parse(body, source)?;
            request.size = number("size").map_or(3, |size| (size as usize).min(100));
            Kind::TopHits(Box::new(request))
        }
        "cumulative_sum" | "derivative" | "max_bucket" | "min_bucket" | "avg_bucket"
        | "sum_bucket" | "stats_bucket" | "bucket_sort" => Kind::Pipeline(Pipeline {
            op: key.to_owned(),
            path: text("buckets_path").unwrap_or_default(),
            from: number("from").map_or(0, |n| n as usize),
            size: number("size").map(|n| n as usize),
            sort: parse_order(body.get("sort")),
        }),
        "significant_terms"
        | "significant_text"
        | "nested"
        | "reverse_nested"
        | "global"
        | "sampler"
        | "children"
        | "geo_bounds"
        | "geo_centroid"
        | "geohash_grid"
        | "geotile_grid"
        | "matrix_stats"
        | "scripted_metric"
        | "weighted_avg"
        | "boxplot"
        | "median_absolute_deviation"
        | "string_stats"
        | "top_metrics"
        | "rate"
        | "multi_terms"
        | "adjacency_matrix"
        | "bucket_script"
        | "bucket_selector"
        | "moving_fn"
        | "serial_diff"
        | "percentiles_bucket"
        | "extended_stats_bucket"
        | "normalize"
        | "time_series"
        | "variable_width_histogram"
        | "categorize_text"
        | "diversified_sampler"
        | "random_sampler" => {
            return Err(parsing(
                source,
                key,
                format!("[{key}] aggregation is not supported by this store"),
            ));
        }
        unknown => {
            let (line, column) = dsl::locate(source, unknown);
            return Err(parsing(source, unknown, format!("Unknown aggregation type [{unknown}]"))
                .caused_by(EsError::new(
                    400,
                    "named_object_not_found_exception",
                    format!("[{line}:{column}] unknown field [{unknown}]"),
                )));
        }
    })
}

fn parse_order(value: Option<&Value>) -> Vec<(String, bool)> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter()
        .flat_map(|item| -> Vec<(String, bool)> {
            match item {
                Value::Object(map) => map
                    .iter()
                    .map(|(path, order)| {
                        let order = order
                            .as_str()
                            .or_else(|| order.get("order").and_then(Value::as_str))
                            .unwrap_or("asc");
                        (path.clone(), order.eq_ignore_ascii_case("desc"))
                    })
                    .collect(),
                Value::String(path) => vec![(path.clone(), false)],
                _ => Vec::new(),
            }
        })
        .collect()
}

fn parse_values(value: Option<&Value>) -> Result<Option<Values>, EsError> {
    Ok(match value {
        None | Some(Value::Object(_)) => None,
        Some(Value::Array(list)) => Some(Values::List(list.iter().map(text_of).collect())),
        Some(pattern) => {
            let pattern = text_of(pattern);
            let regex = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(1 << 20)
                .build()
                .map_err(|_| {
                    EsError::illegal_argument(format!(
                        "failed to parse regular expression [{pattern}]"
                    ))
                })?;
            Some(Values::Pattern(regex))
        }
    })
}
