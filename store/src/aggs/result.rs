//! Aggregations as the answer shows them: ordered, cut, filled up, and pipelines over them.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashMap;

use jiff::tz::TimeZone;
use serde_json::{Map, Number, Value, json};
use tantivy::columnar::MonotonicallyMappableToU64;

use crate::aggs::request::{
    Agg, Aggs, DateHistogram, Kind, Metric, MetricOp, Pipeline, RangeBucket, Source,
    SourceInterval, Terms,
};
use crate::aggs::states::Stats;
use crate::aggs::{FieldForm, Key, Level, form_of, key_text, value_text};
use crate::dates::{self, Unit};
use crate::error::EsError;
use crate::index::parse::{ip_key, ip_of_key};
use crate::search::View;
use crate::search::dsl::text_of;
use crate::search::fetch;
use crate::search::request::Request;

/// A bound of a date range or of bounds, rounded by date math.
pub(super) fn date_bound(
    value: &Value,
    format: Option<&str>,
    zone: &TimeZone,
    now_ms: i64,
) -> Result<i64, EsError> {
    if let Some(ms) = value.as_i64() {
        return Ok(ms);
    }
    let text = text_of(value);
    let format = format.unwrap_or(dates::DEFAULT_FORMAT);
    dates::parse_math(&text, format, zone, now_ms, false)
        .or_else(|| dates::parse_math(&text, dates::DEFAULT_FORMAT, zone, now_ms, false))
        .ok_or_else(|| {
            EsError::new(
                400,
                "parse_exception",
                format!("failed to parse date field [{text}] with format [{format}]"),
            )
        })
}

/// A bound of a range.
pub(super) fn range_bound(
    value: &Value,
    is_date: bool,
    format: Option<&str>,
    now_ms: i64,
) -> Result<f64, EsError> {
    if is_date {
        return date_bound(value, format, &TimeZone::UTC, now_ms).map(|ms| ms as f64);
    }
    value.as_f64().or_else(|| text_of(value).parse().ok()).ok_or_else(|| {
        EsError::new(400, "parsing_exception", format!("range bound [{value}] is not a number"))
    })
}

/// The key of documents without a value.
pub(super) fn missing_key(value: &Value, form: FieldForm) -> Key {
    key_of_value(value, form).unwrap_or_else(|| Key::Text(text_of(value).into()))
}

fn key_of_value(value: &Value, form: FieldForm) -> Option<Key> {
    if value.is_null() {
        return Some(Key::Missing);
    }
    let text = value_text(value);
    Some(match form {
        FieldForm::Text | FieldForm::Unknown if value.is_string() => Key::Text(text.into()),
        FieldForm::Ip => Key::Text(ip_key(text.parse().ok()?).into()),
        FieldForm::Float => Key::Float(text.parse::<f64>().ok()?.to_u64()),
        FieldForm::Boolean => Key::Integer(i64::from(text == "true" || text == "1")),
        FieldForm::Date => Key::Integer(date_bound(value, None, &TimeZone::UTC, 0).ok()?),
        FieldForm::Number | FieldForm::Unknown => Key::Integer(text.parse().ok()?),
        FieldForm::Text => Key::Text(text.into()),
    })
}

pub(super) struct Builder<'a> {
    pub views: &'a [View],
    pub buckets_max: usize,
    pub now_ms: i64,
}

/// A level with its buckets sorted by parent.
struct Indexed<'a> {
    level: &'a Level,
    by_parent: HashMap<u32, Vec<u32>>,
    subs: Vec<Indexed<'a>>,
}

impl<'a> Indexed<'a> {
    fn new(level: &'a Level) -> Self {
        let mut by_parent: HashMap<u32, Vec<u32>> = HashMap::new();
        for (i, (parent, _, _)) in level.buckets.iter().enumerate() {
            by_parent.entry(*parent).or_default().push(i as u32);
        }
        Self { level, by_parent, subs: level.subs.iter().map(Indexed::new).collect() }
    }

    fn buckets(&self, parent: Option<u32>) -> &[u32] {
        parent.and_then(|parent| self.by_parent.get(&parent)).map_or(&[], Vec::as_slice)
    }

    fn key(&self, bucket: u32) -> &Key {
        &self.level.buckets[bucket as usize].1
    }

    fn count(&self, bucket: u32) -> u64 {
        self.level.buckets[bucket as usize].2
    }
}

type Budget<'b> = &'b Cell<usize>;

impl Builder<'_> {
    pub(super) fn build(&self, aggs: &Aggs, levels: &[Level]) -> Result<Value, EsError> {
        let indexed: Vec<Indexed<'_>> = levels.iter().map(Indexed::new).collect();
        let budget = Cell::new(0);
        Ok(Value::Object(self.object(aggs, &indexed, Some(0), &budget)?))
    }

    /// The answers of sibling aggregations within one bucket; `None` for a bucket without documents.
    fn object(
        &self,
        aggs: &Aggs,
        levels: &[Indexed<'_>],
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Map<String, Value>, EsError> {
        let mut object = Map::new();
        let mut at = 0;
        for agg in &aggs.0 {
            if matches!(agg.kind, Kind::Pipeline(_)) {
                continue;
            }
            let mut value = self.one(agg, &levels[at], parent, budget)?;
            at += 1;
            if let (Some(meta), Some(object)) = (&agg.meta, value.as_object_mut()) {
                object.insert("meta".into(), meta.clone());
            }
            object.insert(agg.name.clone(), value);
        }
        for agg in &aggs.0 {
            if let Kind::Pipeline(pipeline) = &agg.kind
                && let Some(value) = sibling_pipeline(pipeline, &object)
            {
                object.insert(agg.name.clone(), value);
            }
        }
        Ok(object)
    }

    fn spend(&self, budget: Budget<'_>, buckets: usize) -> Result<(), EsError> {
        budget.set(budget.get() + buckets);
        if budget.get() > self.buckets_max {
            return Err(EsError::new(
                400,
                "too_many_buckets_exception",
                format!(
                    "Trying to create too many buckets. Must be less than or equal to: [{}] but this number of buckets was exceeded. This limit can be set by changing the [search.max_buckets] cluster level setting.",
                    self.buckets_max
                ),
            )
            .with("max_buckets", self.buckets_max));
        }
        Ok(())
    }

    fn bucket(
        &self,
        agg: &Agg,
        level: &Indexed<'_>,
        key: Map<String, Value>,
        bucket: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Map<String, Value>, EsError> {
        let mut object = key;
        object.insert("doc_count".into(), bucket.map_or(0, |bucket| level.count(bucket)).into());
        object.extend(self.object(&agg.subs, &level.subs, bucket, budget)?);
        Ok(object)
    }

    fn one(
        &self,
        agg: &Agg,
        level: &Indexed<'_>,
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Value, EsError> {
        match &agg.kind {
            Kind::Terms(terms) => self.terms(agg, terms, level, parent, budget),
            Kind::RareTerms { max, .. } => {
                let mut buckets: Vec<u32> = level
                    .buckets(parent)
                    .iter()
                    .copied()
                    .filter(|b| level.count(*b) <= *max)
                    .collect();
                buckets.sort_by(|a, b| {
                    level
                        .count(*a)
                        .cmp(&level.count(*b))
                        .then_with(|| level.key(*a).cmp(level.key(*b)))
                });
                self.spend(budget, buckets.len())?;
                let shown = buckets.into_iter().map(|bucket| {
                    let key = key_fields(
                        level.key(bucket),
                        level.level.form,
                        None,
                        level.level.format.as_deref(),
                        &TimeZone::UTC,
                    );
                    Ok(Value::Object(self.bucket(agg, level, key, Some(bucket), budget)?))
                });
                Ok(json!({"buckets": shown.collect::<Result<Vec<_>, EsError>>()?}))
            }
            Kind::DateHistogram(histogram) => {
                self.date_histogram(agg, histogram, level, parent, budget)
            }
            Kind::AutoDateHistogram { buckets, format, zone, .. } => self.auto_date_histogram(
                agg,
                *buckets,
                format.as_deref(),
                zone,
                level,
                parent,
                budget,
            ),
            Kind::Histogram { interval, offset, min_doc_count, bounds, is_keyed, .. } => {
                let step = |value: f64| ((value - offset) / interval).floor() as i64;
                let mut found: Vec<(i64, Option<u32>)> = level
                    .buckets(parent)
                    .iter()
                    .map(|bucket| {
                        (step(float_of(level.key(*bucket)) + interval / 2.0), Some(*bucket))
                    })
                    .collect();
                if *min_doc_count == 0 {
                    let wanted = bounds.map(|(low, high)| (step(low), step(high)));
                    found = filled(found, wanted, |step| step + 1, self.buckets_max)?;
                }
                found.sort_by_key(|(step, _)| *step);
                found.retain(|(_, bucket)| {
                    bucket.map_or(0, |bucket| level.count(bucket)) >= *min_doc_count
                });
                self.spend(budget, found.len())?;
                let mut shown = Vec::new();
                for (step, bucket) in found {
                    let mut key = Map::new();
                    key.insert("key".into(), float(step as f64 * interval + offset));
                    shown.push(self.bucket(agg, level, key, bucket, budget)?);
                }
                Ok(self.histogram_result(agg, shown, *is_keyed))
            }
            Kind::Range { ranges, is_date, format, is_keyed, .. } => self.ranges(
                agg,
                ranges,
                *is_date,
                format.as_deref(),
                *is_keyed,
                level,
                parent,
                budget,
            ),
            Kind::Filter(_) => {
                let bucket = level
                    .buckets(parent)
                    .iter()
                    .copied()
                    .find(|bucket| *level.key(*bucket) == Key::Place(0));
                Ok(Value::Object(self.bucket(agg, level, Map::new(), bucket, budget)?))
            }
            Kind::Missing { .. } => {
                let bucket = level.buckets(parent).first().copied();
                Ok(Value::Object(self.bucket(agg, level, Map::new(), bucket, budget)?))
            }
            Kind::Filters { filters, other, is_keyed } => {
                let names = filters.iter().map(|(name, _)| name.as_str()).chain(other.as_deref());
                let mut shown = Vec::new();
                for (i, name) in names.enumerate() {
                    let bucket = level
                        .buckets(parent)
                        .iter()
                        .copied()
                        .find(|bucket| *level.key(*bucket) == Key::Place(i as u32));
                    shown.push((
                        name.to_owned(),
                        self.bucket(agg, level, Map::new(), bucket, budget)?,
                    ));
                }
                self.spend(budget, shown.len())?;
                Ok(if *is_keyed {
                    json!({"buckets": shown.into_iter().map(|(name, bucket)| (name, Value::Object(bucket))).collect::<Map<_, _>>()})
                } else {
                    json!({"buckets": shown.into_iter().map(|(_, bucket)| Value::Object(bucket)).collect::<Vec<_>>()})
                })
            }
            Kind::Composite { size, sources, after } => {
                self.composite(agg, *size, sources, after.as_ref(), level, parent, budget)
            }
            Kind::Metric(metric) => Ok(self.metric(metric, level, parent)),
            Kind::TopHits(request) => self.top_hits(request, level, parent),
            Kind::Pipeline(_) => Ok(Value::Null),
        }
    }

    fn terms(
        &self,
        agg: &Agg,
        terms: &Terms,
        level: &Indexed<'_>,
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Value, EsError> {
        let form = level.level.form;
        let is_wanted = |bucket: &u32| {
            if terms.include.is_none() && terms.exclude.is_none() {
                return true;
            }
            let text = key_text(level.key(*bucket), form);
            terms.include.as_ref().is_none_or(|values| values.matches(&text))
                && !terms.exclude.as_ref().is_some_and(|values| values.matches(&text))
        };
        let mut buckets: Vec<u32> =
            level.buckets(parent).iter().copied().filter(is_wanted).collect();
        let total: u64 = buckets.iter().map(|bucket| level.count(*bucket)).sum();
        buckets.retain(|bucket| level.count(*bucket) >= terms.min_doc_count);
        let by_count = [("_count".to_owned(), true)];
        let order: &[(String, bool)] =
            if terms.order.is_empty() { &by_count } else { &terms.order };
        for (path, _) in order {
            let name = path.split(['.', '>', '[']).next().unwrap_or_default();
            if !matches!(name, "_count" | "_key" | "_term")
                && !agg.subs.0.iter().any(|sub| sub.name == name)
            {
                return Err(EsError::new(
                    400,
                    "aggregation_execution_exception",
                    format!(
                        "Invalid aggregation order path [{path}]. The provided aggregation [{name}] either does not exist, or is a pipeline aggregation and cannot be used to sort the buckets."
                    ),
                ));
            }
        }
        let compare = |a: &u32, b: &u32| -> Ordering {
            for (path, descends) in order {
                let order = match path.as_str() {
                    "_count" => level.count(*a).cmp(&level.count(*b)),
                    "_key" | "_term" => level.key(*a).cmp(level.key(*b)),
                    path => {
                        value_at(agg, level, *a, path).total_cmp(&value_at(agg, level, *b, path))
                    }
                };
                let order = if *descends { order.reverse() } else { order };
                if order != Ordering::Equal {
                    return order;
                }
            }
            level.key(*a).cmp(level.key(*b))
        };
        if buckets.len() > terms.size {
            buckets.select_nth_unstable_by(terms.size, compare);
            buckets.truncate(terms.size);
        }
        buckets.sort_by(compare);
        self.spend(budget, buckets.len())?;
        let shown: u64 = buckets.iter().map(|bucket| level.count(*bucket)).sum();
        let buckets = buckets.into_iter().map(|bucket| {
            let key = key_fields(
                level.key(bucket),
                form,
                terms.format.as_deref(),
                level.level.format.as_deref(),
                &TimeZone::UTC,
            );
            self.bucket(agg, level, key, Some(bucket), budget)
        });
        let mut buckets = buckets.collect::<Result<Vec<_>, _>>()?;
        apply_pipelines(agg, &mut buckets);
        let buckets: Vec<Value> = buckets.into_iter().map(Value::Object).collect();
        Ok(
            json!({"doc_count_error_upper_bound": 0, "sum_other_doc_count": total - shown, "buckets": buckets}),
        )
    }

    fn date_histogram(
        &self,
        agg: &Agg,
        histogram: &DateHistogram,
        level: &Indexed<'_>,
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Value, EsError> {
        let (interval, zone, offset) = (histogram.interval, &histogram.zone, histogram.offset_ms);
        let mut found: Vec<(i64, Option<u32>)> = level
            .buckets(parent)
            .iter()
            .map(|bucket| (integer_of(level.key(*bucket)), Some(*bucket)))
            .collect();
        if histogram.min_doc_count == 0 {
            let format = histogram.format.as_deref().or(level.level.format.as_deref());
            let wanted = match &histogram.bounds {
                Some((low, high)) => {
                    let floor = |value: &Value| -> Result<Option<i64>, EsError> {
                        if value.is_null() {
                            return Ok(None);
                        }
                        let ms = date_bound(value, format, zone, self.now_ms)?;
                        Ok(Some(interval.floor(ms, zone, offset)))
                    };
                    match (floor(low)?, floor(high)?) {
                        (Some(low), Some(high)) => Some((low, high)),
                        (Some(low), None) => {
                            Some((low, found.iter().map(|f| f.0).max().unwrap_or(low)))
                        }
                        (None, Some(high)) => {
                            Some((found.iter().map(|f| f.0).min().unwrap_or(high), high))
                        }
                        (None, None) => None,
                    }
                }
                None => None,
            };
            found = filled(found, wanted, |ms| interval.next(ms, zone, offset), self.buckets_max)?;
        }
        found.sort_by_key(|(ms, _)| *ms);
        found.retain(|(_, bucket)| {
            bucket.map_or(0, |bucket| level.count(bucket)) >= histogram.min_doc_count
        });
        if histogram.descends {
            found.reverse();
        }
        self.spend(budget, found.len())?;
        let mut shown = Vec::with_capacity(found.len());
        for (ms, bucket) in found {
            let key = key_fields(
                &Key::Integer(ms),
                FieldForm::Date,
                histogram.format.as_deref(),
                level.level.format.as_deref(),
                zone,
            );
            shown.push(self.bucket(agg, level, key, bucket, budget)?);
        }
        Ok(self.histogram_result(agg, shown, histogram.is_keyed))
    }

    fn histogram_result(
        &self,
        agg: &Agg,
        mut buckets: Vec<Map<String, Value>>,
        is_keyed: bool,
    ) -> Value {
        apply_pipelines(agg, &mut buckets);
        if !is_keyed {
            return json!({"buckets": buckets.into_iter().map(Value::Object).collect::<Vec<_>>()});
        }
        let name = |bucket: &Map<String, Value>| {
            bucket.get("key_as_string").or(bucket.get("key")).map(text_of).unwrap_or_default()
        };
        json!({"buckets": buckets.into_iter().map(|bucket| (name(&bucket), Value::Object(bucket))).collect::<Map<_, _>>()})
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, all of it the aggregation's own options"
    )]
    fn auto_date_histogram(
        &self,
        agg: &Agg,
        target: usize,
        format: Option<&str>,
        zone: &TimeZone,
        level: &Indexed<'_>,
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Value, EsError> {
        // Collected by the second: group the seconds into the least interval that gives few enough buckets.
        const STEPS: &[(Unit, &str, &[i64])] = &[
            (Unit::Second, "s", &[1, 5, 10, 30]),
            (Unit::Minute, "m", &[1, 5, 10, 30]),
            (Unit::Hour, "h", &[1, 3, 12]),
            (Unit::Day, "d", &[1, 7]),
            (Unit::Month, "M", &[1, 3]),
            (Unit::Year, "y", &[1, 5, 10, 20, 50, 100]),
        ];
        let seconds: Vec<(i64, u32)> = level
            .buckets(parent)
            .iter()
            .map(|bucket| (integer_of(level.key(*bucket)), *bucket))
            .collect();
        let (Some(first), Some(last)) =
            (seconds.iter().map(|s| s.0).min(), seconds.iter().map(|s| s.0).max())
        else {
            return Ok(json!({"buckets": [], "interval": "1s"}));
        };
        let mut chosen = (Vec::new(), "100y".to_owned());
        'steps: for (unit, name, multiples) in STEPS {
            for multiple in *multiples {
                let mut starts = vec![unit.floor(first, zone)];
                while starts.len() <= target {
                    let next = unit.add(*starts.last().unwrap_or(&last), *multiple, zone);
                    if next > last {
                        chosen = (starts, format!("{multiple}{name}"));
                        break 'steps;
                    }
                    starts.push(next);
                }
            }
        }
        let (starts, interval) = chosen;
        self.spend(budget, starts.len())?;
        let mut shown = Vec::new();
        for (i, start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(i64::MAX);
            let within: Vec<u32> = seconds
                .iter()
                .filter(|(ms, _)| (*start..end).contains(ms))
                .map(|(_, bucket)| *bucket)
                .collect();
            let mut object = key_fields(
                &Key::Integer(*start),
                FieldForm::Date,
                format,
                level.level.format.as_deref(),
                zone,
            );
            object.insert(
                "doc_count".into(),
                within.iter().map(|bucket| level.count(*bucket)).sum::<u64>().into(),
            );
            if !agg.subs.0.is_empty() {
                if within.len() > 1 {
                    return Err(EsError::illegal_argument(
                        "auto_date_histogram with sub-aggregations is not supported by this store",
                    ));
                }
                object.extend(self.object(
                    &agg.subs,
                    &level.subs,
                    within.first().copied(),
                    budget,
                )?);
            }
            shown.push(Value::Object(object));
        }
        Ok(json!({"buckets": shown, "interval": interval}))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, all of it the aggregation's own options"
    )]
    fn ranges(
        &self,
        agg: &Agg,
        ranges: &[RangeBucket],
        is_date: bool,
        format: Option<&str>,
        is_keyed: bool,
        level: &Indexed<'_>,
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Value, EsError> {
        let mut order: Vec<(f64, f64, usize)> = Vec::new();
        for (i, range) in ranges.iter().enumerate() {
            let bound = |value: &Option<Value>, missing: f64| {
                value
                    .as_ref()
                    .map_or(Ok(missing), |value| range_bound(value, is_date, format, self.now_ms))
            };
            order.push((
                bound(&range.from, f64::NEG_INFINITY)?,
                bound(&range.to, f64::INFINITY)?,
                i,
            ));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.spend(budget, order.len())?;
        let mut shown = Vec::new();
        for (from, to, i) in order {
            let bucket = level
                .buckets(parent)
                .iter()
                .copied()
                .find(|bucket| *level.key(*bucket) == Key::Place(i as u32));
            let text = |bound: f64| {
                if bound.is_infinite() {
                    "*".to_owned()
                } else if is_date {
                    dates::format(bound as i64, format.unwrap_or(""), &TimeZone::UTC)
                } else {
                    float(bound).to_string()
                }
            };
            let name =
                ranges[i].key.clone().unwrap_or_else(|| format!("{}-{}", text(from), text(to)));
            let mut object = Map::new();
            if !is_keyed {
                object.insert("key".into(), name.clone().into());
            }
            for (key, bound) in [("from", from), ("to", to)] {
                if bound.is_finite() {
                    object.insert(key.into(), float(bound));
                    if is_date {
                        object.insert(format!("{key}_as_string"), text(bound).into());
                    }
                }
            }
            shown.push((name, Value::Object(self.bucket(agg, level, object, bucket, budget)?)));
        }
        Ok(if is_keyed {
            json!({"buckets": shown.into_iter().collect::<Map<_, _>>()})
        } else {
            json!({"buckets": shown.into_iter().map(|(_, bucket)| bucket).collect::<Vec<_>>()})
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, all of it the aggregation's own options"
    )]
    fn composite(
        &self,
        agg: &Agg,
        size: usize,
        sources: &[Source],
        after: Option<&Map<String, Value>>,
        level: &Indexed<'_>,
        parent: Option<u32>,
        budget: Budget<'_>,
    ) -> Result<Value, EsError> {
        let forms: Vec<FieldForm> = sources
            .iter()
            .map(|source| match source.interval {
                Some(SourceInterval::Date(..)) => FieldForm::Date,
                Some(SourceInterval::Number(_)) => FieldForm::Float,
                None => self
                    .views
                    .iter()
                    .find_map(|view| view.mapping.resolve(&source.field))
                    .map_or(FieldForm::Unknown, |field| form_of(field.kind)),
            })
            .collect();
        let compare = |a: &Key, b: &Key| -> Ordering {
            let (Key::Tuple(a), Key::Tuple(b)) = (a, b) else { return Ordering::Equal };
            for ((a, b), source) in a.iter().zip(b).zip(sources) {
                let order = if source.descends { b.cmp(a) } else { a.cmp(b) };
                if order != Ordering::Equal {
                    return order;
                }
            }
            Ordering::Equal
        };
        let mut buckets: Vec<u32> = level.buckets(parent).to_vec();
        if let Some(after) = after {
            let keys = sources.iter().zip(&forms).map(|(source, form)| {
                after.get(&source.name).and_then(|value| key_of_value(value, *form)).ok_or_else(
                    || {
                        EsError::illegal_argument(format!(
                            "Missing value for [after.{}]",
                            source.name
                        ))
                    },
                )
            });
            let after = Key::Tuple(keys.collect::<Result<_, _>>()?);
            buckets.retain(|bucket| compare(level.key(*bucket), &after) == Ordering::Greater);
        }
        buckets.sort_by(|a, b| compare(level.key(*a), level.key(*b)));
        buckets.truncate(size);
        self.spend(budget, buckets.len())?;
        let key_json = |bucket: u32| -> Value {
            let Key::Tuple(keys) = level.key(bucket) else { return Value::Null };
            let values = keys.iter().zip(sources).zip(&forms).map(|((key, source), form)| {
                let value = match (key, form, &source.format) {
                    (Key::Integer(ms), FieldForm::Date, Some(format)) => {
                        let zone = match &source.interval {
                            Some(SourceInterval::Date(_, zone)) => zone.clone(),
                            _ => TimeZone::UTC,
                        };
                        dates::format(*ms, format, &zone).into()
                    }
                    (Key::Integer(value), FieldForm::Boolean, _) => (*value != 0).into(),
                    _ => key_json(key, *form),
                };
                (source.name.clone(), value)
            });
            Value::Object(values.collect())
        };
        let after_key = buckets.last().map(|bucket| key_json(*bucket));
        let mut shown = Vec::new();
        for bucket in buckets {
            let mut object = Map::new();
            object.insert("key".into(), key_json(bucket));
            shown.push(Value::Object(self.bucket(agg, level, object, Some(bucket), budget)?));
        }
        let mut result = Map::new();
        if let Some(after_key) = after_key {
            result.insert("after_key".into(), after_key);
        }
        result.insert("buckets".into(), shown.into());
        Ok(Value::Object(result))
    }

    fn metric(&self, metric: &Metric, level: &Indexed<'_>, parent: Option<u32>) -> Value {
        let level = level.level;
        let empty = Stats::default();
        let stats = parent.and_then(|parent| level.stats.get(parent as usize)).unwrap_or(&empty);
        let as_text = |value: f64| -> Option<Value> {
            match level.form {
                FieldForm::Date => Some(
                    dates::format(
                        value as i64,
                        level.format.as_deref().unwrap_or(""),
                        &TimeZone::UTC,
                    )
                    .into(),
                ),
                FieldForm::Boolean => Some((value != 0.0).to_string().into()),
                _ => None,
            }
        };
        let single = |value: Option<f64>| {
            let mut object = Map::new();
            object.insert("value".into(), value.map_or(Value::Null, float));
            if let Some(text) = value.and_then(as_text) {
                object.insert("value_as_string".into(), text);
            }
            Value::Object(object)
        };
        let some = |value: f64| (stats.count > 0).then_some(value);
        let average = stats.sum / stats.count as f64;
        match &metric.op {
            MetricOp::Avg => single(some(average)),
            MetricOp::Min => single(some(stats.min)),
            MetricOp::Max => single(some(stats.max)),
            MetricOp::Sum => single(Some(stats.sum)),
            MetricOp::ValueCount => json!({"value": stats.count}),
            MetricOp::Cardinality => {
                let count = parent
                    .and_then(|parent| level.distincts.get(parent as usize))
                    .map_or(0, |distinct| distinct.count());
                json!({"value": count})
            }
            MetricOp::Stats | MetricOp::ExtendedStats { .. } => {
                let mut object = Map::new();
                let shown = |value: f64| some(value).map_or(Value::Null, float);
                object.insert("count".into(), stats.count.into());
                for (name, value) in [
                    ("min", shown(stats.min)),
                    ("max", shown(stats.max)),
                    ("avg", shown(average)),
                    ("sum", float(stats.sum)),
                ] {
                    object.insert(name.into(), value);
                }
                if level.form == FieldForm::Date && stats.count > 0 {
                    for (name, value) in [
                        ("min", stats.min),
                        ("max", stats.max),
                        ("avg", average),
                        ("sum", stats.sum),
                    ] {
                        object.insert(
                            format!("{name}_as_string"),
                            as_text(value).unwrap_or_default(),
                        );
                    }
                }
                if let MetricOp::ExtendedStats { sigma } = metric.op {
                    let count = stats.count as f64;
                    let spread = (stats.squares - stats.sum * stats.sum / count).max(0.0);
                    let (population, sampling) = (
                        spread / count,
                        if stats.count > 1 { spread / (count - 1.0) } else { f64::NAN },
                    );
                    object.insert("sum_of_squares".into(), shown(stats.squares));
                    object.insert("variance".into(), shown(population));
                    object.insert("variance_population".into(), shown(population));
                    object.insert("variance_sampling".into(), shown(sampling));
                    object.insert("std_deviation".into(), shown(population.sqrt()));
                    object.insert("std_deviation_population".into(), shown(population.sqrt()));
                    object.insert("std_deviation_sampling".into(), shown(sampling.sqrt()));
                    let (p, s) = (population.sqrt() * sigma, sampling.sqrt() * sigma);
                    object.insert(
                        "std_deviation_bounds".into(),
                        json!({
                            "upper": shown(average + p), "lower": shown(average - p),
                            "upper_population": shown(average + p), "lower_population": shown(average - p),
                            "upper_sampling": shown(average + s), "lower_sampling": shown(average - s),
                        }),
                    );
                }
                Value::Object(object)
            }
            MetricOp::Percentiles { percents, is_keyed } => {
                let digest = parent.and_then(|parent| level.digests.get(parent as usize));
                let values = digest.map_or_else(
                    || vec![None; percents.len()],
                    |digest| digest.quantiles(percents),
                );
                keyed_values(percents, &values, *is_keyed, as_text)
            }
            MetricOp::PercentileRanks { values, is_keyed } => {
                let digest = parent.and_then(|parent| level.digests.get(parent as usize));
                let ranks: Vec<Option<f64>> = values
                    .iter()
                    .map(|value| digest.and_then(|digest| digest.rank(*value)))
                    .collect();
                keyed_values(values, &ranks, *is_keyed, |_| None)
            }
        }
    }

    fn top_hits(
        &self,
        request: &Request,
        level: &Indexed<'_>,
        parent: Option<u32>,
    ) -> Result<Value, EsError> {
        let empty = (0, Vec::new());
        let (total, candidates) =
            parent.and_then(|parent| level.level.tops.get(parent as usize)).unwrap_or(&empty);
        let mut hits = Vec::new();
        for candidate in candidates.iter().skip(request.from) {
            let view = &self.views[candidate.index];
            let mut sort = Vec::new();
            for (spec, key) in request.sort.iter().zip(&candidate.keys) {
                let shape = crate::search::sort::Shape::of(spec, &view.mapping, &view.index.name)?;
                sort.push(shape.map_or(Value::Null, |shape| shape.show(key)));
            }
            let text = fetch::render(view, candidate, &sort, request, self.now_ms)?;
            hits.push(serde_json::from_str(&text).unwrap_or(Value::Null));
        }
        let max_score =
            if request.sort.is_empty() && !hits.is_empty() { json!(1.0) } else { Value::Null };
        Ok(
            json!({"hits": {"total": {"value": total, "relation": "eq"}, "max_score": max_score, "hits": hits}}),
        )
    }
}

fn keyed_values(
    keys: &[f64],
    values: &[Option<f64>],
    is_keyed: bool,
    as_text: impl Fn(f64) -> Option<Value>,
) -> Value {
    let shown = |value: &Option<f64>| value.map_or(Value::Null, float);
    if is_keyed {
        let mut object = Map::new();
        for (key, value) in keys.iter().zip(values) {
            let name = float(*key).to_string();
            if let Some(text) = value.and_then(&as_text) {
                object.insert(format!("{name}_as_string"), text);
            }
            object.insert(name, shown(value));
        }
        return json!({"values": object});
    }
    let list = keys
        .iter()
        .zip(values)
        .map(|(key, value)| json!({"key": float(*key), "value": shown(value)}));
    json!({"values": list.collect::<Vec<_>>()})
}

/// A number of JSON that keeps its point; what JSON cannot write is null.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn float_of(key: &Key) -> f64 {
    match key {
        Key::Float(bits) => f64::from_u64(*bits),
        Key::Integer(number) => *number as f64,
        _ => 0.0,
    }
}

fn integer_of(key: &Key) -> i64 {
    match key {
        Key::Integer(number) => *number,
        Key::Float(bits) => f64::from_u64(*bits) as i64,
        _ => 0,
    }
}

fn key_json(key: &Key, form: FieldForm) -> Value {
    match key {
        Key::Text(text) if form == FieldForm::Ip => ip_of_key(text)
            .map_or_else(|| text.to_string().into(), |address| address.to_string().into()),
        Key::Text(text) => text.to_string().into(),
        Key::Integer(number) => (*number).into(),
        Key::Float(bits) => float(f64::from_u64(*bits)),
        Key::Place(place) => (*place).into(),
        Key::Missing | Key::Tuple(_) => Value::Null,
    }
}

/// `key` and, where the field has one, `key_as_string`.
fn key_fields(
    key: &Key,
    form: FieldForm,
    format: Option<&str>,
    own_format: Option<&str>,
    zone: &TimeZone,
) -> Map<String, Value> {
    let mut object = Map::new();
    let text = match (key, form) {
        (Key::Integer(ms), FieldForm::Date) => {
            Some(dates::format(*ms, format.or(own_format).unwrap_or(""), zone))
        }
        (Key::Integer(value), FieldForm::Boolean) => Some((*value != 0).to_string()),
        _ => None,
    };
    if let Some(text) = text {
        object.insert("key_as_string".into(), text.into());
    }
    object.insert("key".into(), key_json(key, form));
    object
}

/// The value of a sub-aggregation of a bucket, for ordering; `NaN`-like lowest where there is none.
fn value_at(agg: &Agg, level: &Indexed<'_>, bucket: u32, path: &str) -> f64 {
    let (name, property) = path
        .split_once(['.', '['])
        .map_or((path, None), |(name, property)| (name, Some(property.trim_end_matches(']'))));
    let subs = agg.subs.0.iter().filter(|sub| !matches!(sub.kind, Kind::Pipeline(_)));
    let Some((sub, inner)) = subs.zip(&level.subs).find(|(sub, _)| sub.name == name) else {
        return f64::NEG_INFINITY;
    };
    let Kind::Metric(metric) = &sub.kind else {
        // A bucket of one kind, such as a filter: its count.
        return inner
            .buckets(Some(bucket))
            .first()
            .map_or(0.0, |bucket| inner.count(*bucket) as f64);
    };
    let Some(stats) = inner.level.stats.get(bucket as usize) else {
        return match metric.op {
            MetricOp::Cardinality => inner
                .level
                .distincts
                .get(bucket as usize)
                .map_or(0.0, |distinct| distinct.count() as f64),
            _ => f64::NEG_INFINITY,
        };
    };
    match (&metric.op, property) {
        (MetricOp::ValueCount, _) | (_, Some("count")) => stats.count as f64,
        (MetricOp::Sum, _) | (_, Some("sum")) => stats.sum,
        _ if stats.count == 0 => f64::NEG_INFINITY,
        (MetricOp::Min, _) | (_, Some("min")) => stats.min,
        (MetricOp::Max, _) | (_, Some("max")) => stats.max,
        (MetricOp::Percentiles { .. }, Some(percent)) => {
            let digest = inner.level.digests.get(bucket as usize);
            digest
                .and_then(|digest| digest.quantiles(&[percent.parse().ok()?])[0])
                .unwrap_or(f64::NEG_INFINITY)
        }
        _ => stats.sum / stats.count as f64,
    }
}

/// Adds the empty steps between the first and the last, and out to the wanted bounds.
fn filled(
    found: Vec<(i64, Option<u32>)>,
    wanted: Option<(i64, i64)>,
    next: impl Fn(i64) -> i64,
    limit: usize,
) -> Result<Vec<(i64, Option<u32>)>, EsError> {
    let first = found.iter().map(|f| f.0).chain(wanted.map(|w| w.0)).min();
    let last = found.iter().map(|f| f.0).chain(wanted.map(|w| w.1)).max();
    let (Some(first), Some(last)) = (first, last) else { return Ok(found) };
    let known: HashMap<i64, Option<u32>> = found.into_iter().collect();
    let (mut all, mut at) = (Vec::new(), first);
    while at <= last {
        all.push((at, known.get(&at).copied().flatten()));
        if all.len() > limit {
            return Err(EsError::new(
                400,
                "too_many_buckets_exception",
                format!("Trying to create too many buckets. Must be less than or equal to: [{limit}] but this number of buckets was exceeded. This limit can be set by changing the [search.max_buckets] cluster level setting."),
            )
            .with("max_buckets", limit));
        }
        let step = next(at);
        if step <= at {
            break;
        }
        at = step;
    }
    Ok(all)
}

/// The value at the end of a path of names within a bucket.
fn bucket_value(bucket: &Value, path: &str) -> Option<f64> {
    if path == "_count" {
        return bucket.get("doc_count")?.as_f64();
    }
    let (name, property) = path.split_once('.').unwrap_or((path, "value"));
    let value = bucket.get(name)?;
    value
        .get(property)
        .or_else(|| value.get("values").and_then(|values| values.get(property)))
        .or_else(|| value.get("doc_count"))
        .and_then(Value::as_f64)
}

/// Pipelines that add to the buckets they stand in: cumulative_sum, derivative, bucket_sort.
fn apply_pipelines(agg: &Agg, buckets: &mut Vec<Map<String, Value>>) {
    for sub in &agg.subs.0 {
        let Kind::Pipeline(pipeline) = &sub.kind else { continue };
        match pipeline.op.as_str() {
            "cumulative_sum" => {
                let mut sum = 0.0;
                for bucket in buckets.iter_mut() {
                    sum +=
                        bucket_value(&Value::Object(bucket.clone()), &pipeline.path).unwrap_or(0.0);
                    bucket.insert(sub.name.clone(), json!({"value": float(sum)}));
                }
            }
            "derivative" => {
                let mut before: Option<f64> = None;
                for bucket in buckets.iter_mut() {
                    let value = bucket_value(&Value::Object(bucket.clone()), &pipeline.path);
                    if let (Some(before), Some(value)) = (before, value) {
                        bucket.insert(sub.name.clone(), json!({"value": float(value - before)}));
                    }
                    before = value.or(before);
                }
            }
            "bucket_sort" => {
                buckets.sort_by(|a, b| {
                    let (a, b) = (Value::Object(a.clone()), Value::Object(b.clone()));
                    for (path, descends) in &pipeline.sort {
                        let of = |bucket: &Value| match path.as_str() {
                            "_key" => bucket.get("key").and_then(Value::as_f64),
                            path => bucket_value(bucket, path),
                        };
                        let order = of(&a)
                            .unwrap_or(f64::NEG_INFINITY)
                            .total_cmp(&of(&b).unwrap_or(f64::NEG_INFINITY));
                        let order = if *descends { order.reverse() } else { order };
                        if order != Ordering::Equal {
                            return order;
                        }
                    }
                    Ordering::Equal
                });
                let from = pipeline.from.min(buckets.len());
                buckets.drain(..from);
                buckets.truncate(pipeline.size.unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }
}

/// Pipelines beside the buckets they read: max_bucket and its like.
fn sibling_pipeline(pipeline: &Pipeline, siblings: &Map<String, Value>) -> Option<Value> {
    let (name, path) = pipeline.path.split_once('>')?;
    let buckets: Vec<Value> = match siblings.get(name)?.get("buckets")? {
        Value::Array(list) => list.clone(),
        Value::Object(map) => map.values().cloned().collect(),
        _ => return None,
    };
    // Buckets without documents are gaps, and gaps are skipped, except by a count.
    let values: Vec<(String, f64)> = buckets
        .iter()
        .filter(|bucket| {
            path == "_count" || bucket.get("doc_count").and_then(Value::as_u64) != Some(0)
        })
        .filter_map(|bucket| {
            let key =
                bucket.get("key_as_string").or(bucket.get("key")).map(text_of).unwrap_or_default();
            Some((key, bucket_value(bucket, path)?))
        })
        .collect();
    let sum: f64 = values.iter().map(|(_, value)| value).sum();
    let best = |is_max: bool| {
        let extreme =
            values.iter().map(|(_, value)| *value).reduce(if is_max { f64::max } else { f64::min });
        let keys: Vec<&str> = values
            .iter()
            .filter(|(_, value)| Some(*value) == extreme)
            .map(|(key, _)| key.as_str())
            .collect();
        json!({"value": extreme.map_or(Value::Null, float), "keys": keys})
    };
    let average = || if values.is_empty() { Value::Null } else { float(sum / values.len() as f64) };
    Some(match pipeline.op.as_str() {
        "max_bucket" => best(true),
        "min_bucket" => best(false),
        "sum_bucket" => json!({"value": float(sum)}),
        "avg_bucket" => json!({"value": average()}),
        "stats_bucket" => json!({
            "count": values.len(), "min": best(false)["value"], "max": best(true)["value"], "avg": average(), "sum": float(sum),
        }),
        _ => return None,
    })
}
