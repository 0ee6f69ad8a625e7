//! Aggregations: collected over columns segment by segment, merged by key, shown as Elasticsearch does.
//!
//! In a segment every bucket has a number; a level maps (bucket of its parent, key) to a number and
//! hands (document, number) pairs to the levels below it. Strings are their ordinals until the
//! segment is done.

pub mod request;
mod result;
mod states;

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Instant;

use jiff::tz::TimeZone;
use serde_json::Value;
use tantivy::columnar::{Column, ColumnType, MonotonicallyMappableToU64, StrColumn};
use tantivy::query::EnableScoring;
use tantivy::{BitSet, DocId, DocSet, SegmentReader, TERMINATED};

use crate::dates;
use crate::engine::Engine;
use crate::error::EsError;
use crate::index::document::column_name;
use crate::index::parse::ip_of_key;
use crate::mapping::{Kind as FieldKind, Place, Resolved};
use crate::search::View;
use crate::search::compile::Compiler;
use crate::search::dsl::{Query, text_of};
use crate::search::sort::{
    self, Candidate, SegmentTop, Shape, no_fielddata, number_column, text_column,
};

use request::{Agg, Aggs, DateHistogram, Interval, Kind, MetricOp, SourceInterval};
use states::{Digest, Distinct, Stats};

/// A bucket's key, comparable across segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Missing,
    Integer(i64),
    /// Bits in the order of the numbers.
    Float(u64),
    Text(Box<str>),
    /// Place in the request, of ranges and filters.
    Place(u32),
    Tuple(Vec<Key>),
}

impl Key {
    /// Bytes it holds outside of itself.
    fn held_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tuple(keys) => keys.iter().map(|key| size_of::<Self>() + key.held_bytes()).sum(),
            _ => 0,
        }
    }
}

/// What kind of field an aggregation reads; the same for all indices, or the first that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldForm {
    Number,
    Float,
    Boolean,
    Date,
    Ip,
    Text,
    Unknown,
}

/// One aggregation over all segments.
#[derive(Debug)]
struct Level {
    agg: Arc<Agg>,
    form: FieldForm,
    /// The bucket of the parent each belongs to, its key, how many documents.
    buckets: Vec<(u32, Key, u64)>,
    lookup: HashMap<(u32, Key), u32>,
    /// What the keys hold outside of themselves.
    key_bytes: usize,
    stats: Vec<Stats>,
    digests: Vec<Digest>,
    distincts: Vec<Distinct>,
    tops: Vec<(u64, Vec<Candidate>)>,
    subs: Vec<Level>,
    format: Option<String>,
}

impl Level {
    fn new(agg: &Agg, views: &[View]) -> Result<Self, EsError> {
        let (mut form, mut format) = (FieldForm::Unknown, None);
        if let Some(field) = field_of(&agg.kind) {
            for view in views {
                let Some(resolved) = view.mapping.resolve(field) else { continue };
                let counts = matches!(&agg.kind, Kind::Metric(metric) if metric.op == MetricOp::ValueCount)
                    || matches!(agg.kind, Kind::Missing { .. });
                if resolved.kind == FieldKind::Text && !counts {
                    return Err(no_fielddata(field, &view.index.name));
                }
                form = form_of(resolved.kind);
                if resolved.kind == FieldKind::Date && resolved.format != dates::DEFAULT_FORMAT {
                    format = Some(resolved.format.to_owned());
                }
                break;
            }
        }
        let subs = agg
            .subs
            .0
            .iter()
            .filter(|sub| !matches!(sub.kind, Kind::Pipeline(_)))
            .map(|sub| Self::new(sub, views))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            agg: Arc::new(agg.clone()),
            form,
            buckets: Vec::new(),
            lookup: HashMap::new(),
            key_bytes: 0,
            stats: Vec::new(),
            digests: Vec::new(),
            distincts: Vec::new(),
            tops: Vec::new(),
            subs,
            format,
        })
    }
}

fn form_of(kind: FieldKind) -> FieldForm {
    match kind {
        FieldKind::Integer => FieldForm::Number,
        FieldKind::Float => FieldForm::Float,
        FieldKind::Boolean => FieldForm::Boolean,
        FieldKind::Date => FieldForm::Date,
        FieldKind::Ip => FieldForm::Ip,
        FieldKind::Keyword | FieldKind::Text => FieldForm::Text,
        FieldKind::Opaque => FieldForm::Unknown,
    }
}

fn field_of(kind: &Kind) -> Option<&str> {
    Some(match kind {
        Kind::Terms(terms) => &terms.field,
        Kind::DateHistogram(histogram) => &histogram.field,
        Kind::RareTerms { field, .. }
        | Kind::AutoDateHistogram { field, .. }
        | Kind::Histogram { field, .. }
        | Kind::Range { field, .. }
        | Kind::Missing { field } => field,
        Kind::Metric(metric) => &metric.field,
        _ => return None,
    })
}

/// All aggregations of a search.
#[derive(Debug)]
pub struct Collector {
    levels: Vec<Level>,
    aggs: Aggs,
    bytes_max: usize,
    buckets_max: usize,
    now_ms: i64,
    deadline: Instant,
}

impl Collector {
    pub fn new(
        aggs: &Aggs,
        engine: &Engine,
        views: &[View],
        now_ms: i64,
        deadline: Instant,
    ) -> Result<Self, EsError> {
        let levels = aggs
            .0
            .iter()
            .filter(|agg| !matches!(agg.kind, Kind::Pipeline(_)))
            .map(|agg| Level::new(agg, views))
            .collect::<Result<_, _>>()?;
        let config = &engine.config;
        Ok(Self {
            levels,
            aggs: aggs.clone(),
            bytes_max: config.aggregation_bytes_max,
            buckets_max: config.buckets_max,
            now_ms,
            deadline,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// What collects from one segment.
    pub fn segment(
        &self,
        index: usize,
        view: &View,
        segment: &SegmentReader,
    ) -> Result<SegmentCollector, EsError> {
        let opener = Opener {
            view,
            index,
            segment,
            now_ms: self.now_ms,
            deadline: self.deadline,
            bytes_max: self.bytes_max,
            set_bytes: Cell::new(0),
        };
        Ok(SegmentCollector {
            nodes: self.levels.iter().map(|level| opener.node(level)).collect::<Result<_, _>>()?,
            parents: Vec::new(),
            blocks: 0,
            bytes_max: self.bytes_max,
        })
    }

    /// Takes over what was collected from a segment.
    pub fn merge(
        &mut self,
        index: usize,
        segment: u32,
        collected: SegmentCollector,
    ) -> Result<(), EsError> {
        for (level, node) in self.levels.iter_mut().zip(collected.nodes) {
            level.merge(node, &[0], index, segment)?;
        }
        let bytes: usize = self.levels.iter().map(Level::size).sum();
        check_bytes(bytes, self.bytes_max)
    }

    /// The `aggregations` of the answer.
    pub fn finish(self, views: &[View]) -> Result<Value, EsError> {
        if self.aggs.0.is_empty() {
            return Ok(Value::Null);
        }
        result::Builder { views, buckets_max: self.buckets_max, now_ms: self.now_ms }
            .build(&self.aggs, &self.levels)
    }
}

fn check_bytes(bytes: usize, bytes_max: usize) -> Result<(), EsError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    crate::metrics::REJECTED.with_label_values(&["aggregation"]).inc();
    Err(EsError::new(
        429,
        "circuit_breaking_exception",
        format!("[request] Data too large, data for [aggregations] would be [{bytes}], which is larger than the limit of [{bytes_max}]"),
    )
    .with("bytes_wanted", bytes)
    .with("bytes_limit", bytes_max)
    .with("durability", "TRANSIENT"))
}

/// A hash of small numbers, which need no protection from an attacker's choice: what is lost at
/// worst is the time of his own search, which ends at its deadline.
#[derive(Debug, Default, Clone, Copy)]
pub struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        states::mix(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = states::hash_bytes(bytes) ^ self.0.rotate_left(7);
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = self.0.rotate_left(32) ^ u64::from(value);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self.0.rotate_left(23) ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// Where the keys of a level's buckets come from.
#[expect(clippy::large_enum_variant, reason = "one per aggregation and segment")]
enum Keys {
    /// The field is not here.
    None,
    Ordinals(StrColumn),
    Numbers(Column<u64>, ColumnType),
    /// The last bucket found is kept: lines of a log come in the order of time.
    Dates {
        column: Column<u64>,
        interval: Interval,
        zone: TimeZone,
        offset_ms: i64,
        hard: Option<(i64, i64)>,
        last: (i64, i64),
    },
    Steps {
        column: Column<u64>,
        kind: ColumnType,
        interval: f64,
        offset: f64,
    },
    Ranges {
        column: Column<u64>,
        kind: ColumnType,
        ranges: Vec<(f64, f64)>,
    },
    /// A document is in each bucket whose set has it; in the last one if in no other.
    Filters {
        sets: Vec<BitSet>,
        other: bool,
    },
    Missing(Vec<tantivy::columnar::ColumnIndex>),
    Composite(Vec<Part>),
    Values {
        column: Option<(Column<u64>, ColumnType)>,
        missing: Option<f64>,
    },
    /// Distinct values, as ordinals where there is a dictionary.
    Distinct {
        ordinals: Option<StrColumn>,
        numbers: Option<Column<u64>>,
    },
    /// Only how many values there are.
    Count(Vec<tantivy::columnar::ColumnIndex>),
    Tops {
        tops: Vec<SegmentTop>,
        make: TopMaker,
    },
}

struct Part {
    keys: Keys,
    takes_missing: bool,
}

struct TopMaker {
    specs: Vec<crate::search::request::SortSpec>,
    shapes: Vec<Option<Shape>>,
    segment: SegmentReader,
    index: usize,
    size: usize,
}

struct Node {
    keys: Keys,
    /// Parent and raw key of each bucket.
    buckets: Vec<(u32, u64)>,
    counts: Vec<u64>,
    lookup: FastMap<(u32, u64), u32>,
    /// Buckets of parent 0 by key, where keys are small.
    dense: Vec<u32>,
    tuples: HashMap<Vec<u64>, u64>,
    tuple_keys: Vec<Vec<u64>>,
    stats: Vec<Stats>,
    digests: Vec<Digest>,
    wants_digest: bool,
    distinct: FastMap<(u32, u64), ()>,
    hits: Vec<u64>,
    missing_key: Option<Key>,
    subs: Vec<Node>,
    out_docs: Vec<DocId>,
    out_buckets: Vec<u32>,
}

/// Collects from one segment.
#[expect(missing_debug_implementations, reason = "holds columns, which have none")]
pub struct SegmentCollector {
    nodes: Vec<Node>,
    parents: Vec<u32>,
    blocks: usize,
    bytes_max: usize,
}

impl SegmentCollector {
    pub fn collect(&mut self, docs: &[DocId]) -> Result<(), EsError> {
        if self.nodes.is_empty() || docs.is_empty() {
            return Ok(());
        }
        self.parents.clear();
        self.parents.resize(docs.len(), 0);
        for node in &mut self.nodes {
            node.collect(docs, &self.parents)?;
        }
        self.blocks += 1;
        if self.blocks.is_multiple_of(64) {
            check_bytes(self.nodes.iter().map(Node::size).sum(), self.bytes_max)?;
        }
        Ok(())
    }
}

/// Keys up to which a level without buckets above it looks buckets up in an array.
const DENSE_MAX: usize = 1 << 20;
const NO_BUCKET: u32 = u32::MAX;
/// The raw key of documents without a value where they have a bucket of their own.
const MISSING_RAW: u64 = u64::MAX;

impl Node {
    fn new(keys: Keys, subs: Vec<Node>) -> Self {
        let dense = match &keys {
            Keys::Ordinals(column) if column.dictionary().num_terms() < DENSE_MAX => {
                vec![NO_BUCKET; column.dictionary().num_terms()]
            }
            _ => Vec::new(),
        };
        Self {
            keys,
            buckets: Vec::new(),
            counts: Vec::new(),
            lookup: FastMap::default(),
            dense,
            tuples: HashMap::new(),
            tuple_keys: Vec::new(),
            stats: Vec::new(),
            digests: Vec::new(),
            wants_digest: false,
            distinct: FastMap::default(),
            hits: Vec::new(),
            missing_key: None,
            subs,
            out_docs: Vec::new(),
            out_buckets: Vec::new(),
        }
    }

    fn size(&self) -> usize {
        let of_keys = match &self.keys {
            Keys::Tops { tops, .. } => tops.iter().map(SegmentTop::size).sum(),
            Keys::Filters { sets, .. } => {
                sets.iter().map(|set| set.max_value() as usize / 8).sum::<usize>()
            }
            Keys::Composite(parts) => self.tuple_keys.len() * (96 + 16 * parts.len()),
            _ => 0,
        };
        of_keys
            + self.buckets.len() * 64
            + self.dense.len() * size_of::<u32>()
            + self.distinct.len() * 16
            + self.stats.len() * size_of::<Stats>()
            + self.digests.iter().map(Digest::size).sum::<usize>()
            + self.subs.iter().map(Self::size).sum::<usize>()
    }

    #[inline]
    fn bucket(&mut self, parent: u32, key: u64) -> u32 {
        if parent == 0
            && let Some(slot) = self.dense.get_mut(key as usize)
        {
            if *slot == NO_BUCKET {
                *slot = self.buckets.len() as u32;
                self.buckets.push((0, key));
                self.counts.push(0);
            }
            return *slot;
        }
        let next = self.buckets.len() as u32;
        let bucket = *self.lookup.entry((parent, key)).or_insert(next);
        if bucket == next {
            self.buckets.push((parent, key));
            self.counts.push(0);
        }
        bucket
    }

    #[inline]
    fn put(&mut self, doc: DocId, parent: u32, key: u64) {
        let bucket = self.bucket(parent, key);
        self.counts[bucket as usize] += 1;
        if !self.subs.is_empty() {
            self.out_docs.push(doc);
            self.out_buckets.push(bucket);
        }
    }

    fn collect(&mut self, docs: &[DocId], parents: &[u32]) -> Result<(), EsError> {
        self.out_docs.clear();
        self.out_buckets.clear();
        // Taken out while it is read, so that buckets can be added meanwhile.
        let mut keys = std::mem::replace(&mut self.keys, Keys::None);
        let done = self.collect_keys(&mut keys, docs, parents);
        self.keys = keys;
        done?;
        if !self.out_docs.is_empty() {
            let (docs, buckets) =
                (std::mem::take(&mut self.out_docs), std::mem::take(&mut self.out_buckets));
            for sub in &mut self.subs {
                sub.collect(&docs, &buckets)?;
            }
            (self.out_docs, self.out_buckets) = (docs, buckets);
        }
        Ok(())
    }

    fn collect_keys(
        &mut self,
        keys: &mut Keys,
        docs: &[DocId],
        parents: &[u32],
    ) -> Result<(), EsError> {
        let pairs = || docs.iter().copied().zip(parents.iter().copied());
        match keys {
            Keys::None => {
                if self.missing_key.is_some() {
                    pairs().for_each(|(doc, parent)| self.put(doc, parent, MISSING_RAW));
                }
            }
            Keys::Ordinals(column) => {
                for (doc, parent) in pairs() {
                    let mut last = None;
                    for ord in column.term_ords(doc) {
                        // A value that a document has twice counts once.
                        if last != Some(ord) {
                            self.put(doc, parent, ord);
                        }
                        last = Some(ord);
                    }
                    if last.is_none() && self.missing_key.is_some() {
                        self.put(doc, parent, MISSING_RAW);
                    }
                }
            }
            Keys::Numbers(column, _) => {
                for (doc, parent) in pairs() {
                    let mut last = None;
                    for number in column.values_for_doc(doc) {
                        if last != Some(number) {
                            self.put(doc, parent, number);
                        }
                        last = Some(number);
                    }
                    if last.is_none() && self.missing_key.is_some() {
                        self.put(doc, parent, MISSING_RAW);
                    }
                }
            }
            Keys::Dates { column, interval, zone, offset_ms, hard, last } => {
                for (doc, parent) in pairs() {
                    let mut before = None;
                    for raw in column.values_for_doc(doc) {
                        let ms = i64::from_u64(raw);
                        if hard.is_some_and(|(low, high)| ms < low || ms > high) {
                            continue;
                        }
                        if ms < last.0 || ms >= last.1 {
                            let start = interval.floor(ms, zone, *offset_ms);
                            *last = (start, interval.next(start, zone, *offset_ms).max(start + 1));
                        }
                        if before != Some(last.0) {
                            self.put(doc, parent, last.0.to_u64());
                        }
                        before = Some(last.0);
                    }
                }
            }
            Keys::Steps { column, kind, interval, offset } => {
                for (doc, parent) in pairs() {
                    let mut before = None;
                    for raw in column.values_for_doc(doc) {
                        let step = ((as_float(raw, *kind) - *offset) / *interval).floor();
                        if before != Some(step) {
                            self.put(doc, parent, (step * *interval + *offset).to_u64());
                        }
                        before = Some(step);
                    }
                }
            }
            Keys::Ranges { column, kind, ranges } => {
                for (doc, parent) in pairs() {
                    for (i, (from, to)) in ranges.iter().enumerate() {
                        if column
                            .values_for_doc(doc)
                            .any(|raw| (*from..*to).contains(&as_float(raw, *kind)))
                        {
                            self.put(doc, parent, i as u64);
                        }
                    }
                }
            }
            Keys::Filters { sets, other } => {
                for (doc, parent) in pairs() {
                    let mut is_in = false;
                    for (i, set) in sets.iter().enumerate() {
                        if set.contains(doc) {
                            is_in = true;
                            self.put(doc, parent, i as u64);
                        }
                    }
                    if *other && !is_in {
                        self.put(doc, parent, sets.len() as u64);
                    }
                }
            }
            Keys::Missing(columns) => {
                for (doc, parent) in pairs() {
                    if !columns.iter().any(|column| column.has_value(doc)) {
                        self.put(doc, parent, 0);
                    }
                }
            }
            Keys::Composite(parts) => {
                for (doc, parent) in pairs() {
                    let mut tuples: Vec<Vec<u64>> = vec![Vec::with_capacity(parts.len())];
                    for part in parts.iter() {
                        let values = part.values(doc);
                        if values.is_empty() {
                            tuples.clear();
                            break;
                        }
                        tuples = tuples
                            .into_iter()
                            .flat_map(|tuple| {
                                values
                                    .iter()
                                    .map(move |value| [tuple.as_slice(), &[*value]].concat())
                            })
                            .take(1000)
                            .collect();
                    }
                    for tuple in tuples {
                        let next = self.tuple_keys.len() as u64;
                        let key = match self.tuples.get(&tuple) {
                            Some(key) => *key,
                            None => {
                                self.tuples.insert(tuple.clone(), next);
                                self.tuple_keys.push(tuple);
                                next
                            }
                        };
                        self.put(doc, parent, key);
                    }
                }
            }
            Keys::Values { column, missing } => {
                for (doc, parent) in pairs() {
                    let at = parent as usize;
                    if self.stats.len() <= at {
                        self.stats.resize(at + 1, Stats::default());
                        if self.wants_digest {
                            self.digests.resize(at + 1, Digest::default());
                        }
                    }
                    let mut has_value = false;
                    if let Some((column, kind)) = column {
                        for raw in column.values_for_doc(doc) {
                            let value = as_float(raw, *kind);
                            has_value = true;
                            self.stats[at].add(value);
                            if self.wants_digest {
                                self.digests[at].add(value);
                            }
                        }
                    }
                    if !has_value && let Some(value) = *missing {
                        self.stats[at].add(value);
                        if self.wants_digest {
                            self.digests[at].add(value);
                        }
                    }
                }
            }
            Keys::Distinct { ordinals, numbers } => {
                for (doc, parent) in pairs() {
                    if let Some(column) = ordinals {
                        column.term_ords(doc).for_each(|ord| {
                            self.distinct.insert((parent, ord), ());
                        });
                    } else if let Some(column) = numbers {
                        column.values_for_doc(doc).for_each(|number| {
                            self.distinct.insert((parent, number), ());
                        });
                    }
                }
            }
            Keys::Count(columns) => {
                for (doc, parent) in pairs() {
                    let at = parent as usize;
                    if self.stats.len() <= at {
                        self.stats.resize(at + 1, Stats::default());
                    }
                    let count: u32 =
                        columns.iter().map(|column| column.value_row_ids(doc).len() as u32).sum();
                    self.stats[at].count += u64::from(count);
                }
            }
            Keys::Tops { tops, make } => {
                for (doc, parent) in pairs() {
                    let at = parent as usize;
                    while tops.len() <= at {
                        tops.push(SegmentTop::new(
                            &make.specs,
                            &make.shapes,
                            None,
                            &make.segment,
                            make.index,
                            make.size,
                        )?);
                        self.hits.push(0);
                    }
                    self.hits[at] += 1;
                    tops[at].push(doc, 1.0);
                }
            }
        }
        Ok(())
    }
}

impl Part {
    fn values(&self, doc: DocId) -> Vec<u64> {
        let mut values: Vec<u64> = match &self.keys {
            Keys::Ordinals(column) => column.term_ords(doc).collect(),
            Keys::Numbers(column, _) => column.values_for_doc(doc).collect(),
            Keys::Dates { column, interval, zone, offset_ms, .. } => column
                .values_for_doc(doc)
                .map(|raw| interval.floor(i64::from_u64(raw), zone, *offset_ms).to_u64())
                .collect(),
            Keys::Steps { column, kind, interval, offset } => column
                .values_for_doc(doc)
                .map(|raw| {
                    (((as_float(raw, *kind) - offset) / interval).floor() * interval + offset)
                        .to_u64()
                })
                .collect(),
            _ => Vec::new(),
        };
        values.dedup();
        if values.is_empty() && self.takes_missing {
            values.push(MISSING_RAW);
        }
        values
    }
}

fn as_float(raw: u64, kind: ColumnType) -> f64 {
    match kind {
        ColumnType::F64 => f64::from_u64(raw),
        ColumnType::U64 => raw as f64,
        _ => i64::from_u64(raw) as f64,
    }
}

/// Opens the columns of one segment.
struct Opener<'a> {
    view: &'a View,
    /// The place of the index in the search.
    index: usize,
    segment: &'a SegmentReader,
    now_ms: i64,
    deadline: Instant,
    bytes_max: usize,
    /// Of the sets of documents that filters made so far.
    set_bytes: Cell<usize>,
}

impl Opener<'_> {
    fn node(&self, level: &Level) -> Result<Node, EsError> {
        let agg = &level.agg;
        let keys = match &agg.kind {
            Kind::Terms(terms) => self.plain(&terms.field)?,
            Kind::RareTerms { field, .. } => self.plain(field)?,
            Kind::DateHistogram(histogram) => self.dates(histogram)?,
            Kind::AutoDateHistogram { field, zone, .. } => match self.number(field)? {
                // Collected by the second; the interval is chosen when all is known.
                Some((column, _)) => Keys::Dates {
                    column,
                    interval: Interval::Fixed(1000),
                    zone: zone.clone(),
                    offset_ms: 0,
                    hard: None,
                    last: (0, 0),
                },
                None => Keys::None,
            },
            Kind::Histogram { field, interval, offset, .. } => match self.number(field)? {
                Some((column, kind)) => {
                    Keys::Steps { column, kind, interval: *interval, offset: *offset }
                }
                None => Keys::None,
            },
            Kind::Range { field, ranges, is_date, format, .. } => match self.number(field)? {
                Some((column, kind)) => {
                    let bound = |value: &Option<Value>, missing: f64| -> Result<f64, EsError> {
                        let Some(value) = value else { return Ok(missing) };
                        result::range_bound(value, *is_date, format.as_deref(), self.now_ms)
                    };
                    let ranges = ranges
                        .iter()
                        .map(|range| {
                            Ok((
                                bound(&range.from, f64::NEG_INFINITY)?,
                                bound(&range.to, f64::INFINITY)?,
                            ))
                        })
                        .collect::<Result<_, EsError>>()?;
                    Keys::Ranges { column, kind, ranges }
                }
                None => Keys::None,
            },
            Kind::Filter(query) => Keys::Filters { sets: vec![self.set(query)?], other: false },
            Kind::Filters { filters, other, .. } => Keys::Filters {
                sets: filters.iter().map(|(_, query)| self.set(query)).collect::<Result<_, _>>()?,
                other: other.is_some(),
            },
            Kind::Missing { field } => Keys::Missing(self.presence(field)?),
            Kind::Composite { sources, .. } => {
                let mut parts = Vec::new();
                for source in sources {
                    let keys = match &source.interval {
                        None => self.plain(&source.field)?,
                        Some(SourceInterval::Date(interval, zone)) => {
                            match self.number(&source.field)? {
                                Some((column, _)) => Keys::Dates {
                                    column,
                                    interval: *interval,
                                    zone: zone.clone(),
                                    offset_ms: 0,
                                    hard: None,
                                    last: (0, 0),
                                },
                                None => Keys::None,
                            }
                        }
                        Some(SourceInterval::Number(interval)) => {
                            match self.number(&source.field)? {
                                Some((column, kind)) => {
                                    Keys::Steps { column, kind, interval: *interval, offset: 0.0 }
                                }
                                None => Keys::None,
                            }
                        }
                    };
                    parts.push(Part { keys, takes_missing: source.takes_missing });
                }
                Keys::Composite(parts)
            }
            Kind::Metric(metric) => match metric.op {
                MetricOp::Cardinality => match self.plain(&metric.field)? {
                    Keys::Ordinals(column) => {
                        Keys::Distinct { ordinals: Some(column), numbers: None }
                    }
                    Keys::Numbers(column, _) => {
                        Keys::Distinct { ordinals: None, numbers: Some(column) }
                    }
                    _ => Keys::None,
                },
                MetricOp::ValueCount => Keys::Count(self.presence(&metric.field)?),
                _ => Keys::Values { column: self.number(&metric.field)?, missing: metric.missing },
            },
            Kind::TopHits(request) => {
                let by_score = crate::search::request::parse_sort(&Value::from("_score"))?;
                let specs = if request.sort.is_empty() { by_score } else { request.sort.clone() };
                let shapes = specs
                    .iter()
                    .map(|spec| Shape::of(spec, &self.view.mapping, &self.view.index.name))
                    .collect::<Result<_, _>>()?;
                let make = TopMaker {
                    specs,
                    shapes,
                    segment: self.segment.clone(),
                    index: self.index,
                    size: request.from + request.size,
                };
                Keys::Tops { tops: Vec::new(), make }
            }
            Kind::Pipeline(_) => Keys::None,
        };
        let subs = level.subs.iter().map(|sub| self.node(sub)).collect::<Result<_, _>>()?;
        let mut node = Node::new(keys, subs);
        match &agg.kind {
            Kind::Metric(metric) => {
                node.wants_digest = matches!(
                    metric.op,
                    MetricOp::Percentiles { .. } | MetricOp::PercentileRanks { .. }
                )
            }
            Kind::Terms(terms) => {
                node.missing_key =
                    terms.missing.as_ref().map(|missing| result::missing_key(missing, level.form));
                // Terms without documents are wanted too.
                if terms.min_doc_count == 0
                    && let Keys::Ordinals(column) = &node.keys
                {
                    let count = column.dictionary().num_terms().min(10_000) as u64;
                    (0..count).for_each(|ord| {
                        node.bucket(0, ord);
                    });
                }
            }
            _ => {}
        }
        Ok(node)
    }

    fn resolve(&self, field: &str) -> Option<Resolved<'_>> {
        self.view.mapping.resolve(field)
    }

    fn plain(&self, field: &str) -> Result<Keys, EsError> {
        if matches!(field, "_index" | "_id") {
            return Err(EsError::illegal_argument(format!(
                "aggregations on [{field}] are not supported by this store"
            )));
        }
        let Some(resolved) = self.resolve(field) else { return Ok(Keys::None) };
        if resolved.place == Place::Keyword {
            if resolved.kind == FieldKind::Text {
                return Err(no_fielddata(field, &self.view.index.name));
            }
            return Ok(text_column(self.segment, &column_name(Place::Keyword, resolved.path))?
                .map_or(Keys::None, Keys::Ordinals));
        }
        Ok(self.number(field)?.map_or(Keys::None, |(column, kind)| Keys::Numbers(column, kind)))
    }

    fn number(&self, field: &str) -> Result<Option<(Column<u64>, ColumnType)>, EsError> {
        let Some(resolved) = self.resolve(field) else { return Ok(None) };
        match resolved.place {
            Place::Timestamp | Place::Number => {
                number_column(self.segment, &column_name(resolved.place, resolved.path))
            }
            Place::Keyword => Err(EsError::illegal_argument(format!(
                "Field [{field}] of type [{}] is not supported for aggregation of numbers",
                resolved.type_name
            ))),
            _ => Ok(None),
        }
    }

    fn dates(&self, histogram: &DateHistogram) -> Result<Keys, EsError> {
        let Some((column, _)) = self.number(&histogram.field)? else { return Ok(Keys::None) };
        let hard = match &histogram.hard_bounds {
            Some((low, high)) => {
                let bound = |value: &Value, missing| {
                    if value.is_null() {
                        Ok(missing)
                    } else {
                        result::date_bound(
                            value,
                            histogram.format.as_deref(),
                            &histogram.zone,
                            self.now_ms,
                        )
                    }
                };
                Some((bound(low, i64::MIN)?, bound(high, i64::MAX)?))
            }
            None => None,
        };
        Ok(Keys::Dates {
            column,
            interval: histogram.interval,
            zone: histogram.zone.clone(),
            offset_ms: histogram.offset_ms,
            hard,
            last: (0, 0),
        })
    }

    /// Columns that tell whether a document has a value of the field.
    fn presence(&self, field: &str) -> Result<Vec<tantivy::columnar::ColumnIndex>, EsError> {
        let Some(resolved) = self.resolve(field) else { return Ok(Vec::new()) };
        let mut columns = Vec::new();
        if resolved.place == Place::Keyword
            && let Some(column) =
                text_column(self.segment, &column_name(Place::Keyword, resolved.path))?
        {
            columns.push(column.ords().index.clone());
        }
        let name = match resolved.place {
            Place::Keyword => format!("n.{}", resolved.path),
            place => column_name(place, resolved.path),
        };
        if resolved.place != Place::Nowhere
            && let Some((column, _)) = number_column(self.segment, &name)?
        {
            columns.push(column.index.clone());
        }
        Ok(columns)
    }

    fn set(&self, query: &Query) -> Result<BitSet, EsError> {
        let compiler =
            Compiler::new(&self.view.index, &self.view.mapping, self.now_ms, self.deadline);
        let weight = compiler
            .compile(query)?
            .weight(EnableScoring::disabled_from_searcher(&self.view.searcher))?;
        let mut scorer = weight.scorer(self.segment, 1.0)?;
        // Before it is made: there may be many filters over a large segment.
        let bytes = self.set_bytes.get() + self.segment.max_doc() as usize / 8;
        check_bytes(bytes, self.bytes_max)?;
        self.set_bytes.set(bytes);
        let mut set = BitSet::with_max_value(self.segment.max_doc());
        let mut doc = scorer.doc();
        while doc != TERMINATED {
            set.insert(doc);
            doc = scorer.advance();
        }
        Ok(set)
    }
}

impl Level {
    fn size(&self) -> usize {
        self.buckets.len() * 160
            // Once in the list and once in the look-up.
            + 2 * self.key_bytes
            + self.tops.iter().flat_map(|(_, top)| top).map(Candidate::size).sum::<usize>()
            + self.tops.len() * size_of::<(u64, Vec<Candidate>)>()
            + self.stats.len() * size_of::<Stats>()
            + self.digests.iter().map(Digest::size).sum::<usize>()
            + self.distincts.iter().map(Distinct::size).sum::<usize>()
            + self.subs.iter().map(Self::size).sum::<usize>()
    }

    fn bucket(&mut self, parent: u32, key: Key) -> u32 {
        let next = self.buckets.len() as u32;
        let bucket = *self.lookup.entry((parent, key.clone())).or_insert(next);
        if bucket == next {
            self.key_bytes += key.held_bytes();
            self.buckets.push((parent, key, 0));
        }
        bucket
    }

    /// Takes over a segment's node; `parents` says which bucket here each of its parents is.
    fn merge(
        &mut self,
        mut node: Node,
        parents: &[u32],
        index: usize,
        segment: u32,
    ) -> Result<(), EsError> {
        let parent_of = |parent: u32| parents.get(parent as usize).copied().unwrap_or(0);
        for (parent, stats) in node.stats.iter().enumerate() {
            let at = parent_of(parent as u32) as usize;
            if self.stats.len() <= at {
                self.stats.resize(at + 1, Stats::default());
            }
            self.stats[at].merge(stats);
        }
        for (parent, digest) in node.digests.iter().enumerate() {
            let at = parent_of(parent as u32) as usize;
            if self.digests.len() <= at {
                self.digests.resize(at + 1, Digest::default());
            }
            self.digests[at].merge(digest);
        }
        self.merge_distinct(&mut node, parents)?;
        if matches!(node.keys, Keys::Tops { .. })
            && let Keys::Tops { tops, make } = std::mem::replace(&mut node.keys, Keys::None)
        {
            for (parent, top) in tops.into_iter().enumerate() {
                let at = parent_of(parent as u32) as usize;
                if self.tops.len() <= at {
                    self.tops.resize(at + 1, (0, Vec::new()));
                }
                self.tops[at].0 += node.hits[parent];
                self.tops[at].1.extend(top.into_candidates(index, segment)?);
                self.tops[at].1.sort_by(|a, b| sort::compare(&make.specs, a, b));
                self.tops[at].1.truncate(make.size);
            }
            return Ok(());
        }
        if node.buckets.is_empty() {
            return Ok(());
        }
        let keys = node.bucket_keys(self.form)?;
        let mut here = Vec::with_capacity(keys.len());
        for (i, key) in keys.into_iter().enumerate() {
            let (parent, _) = node.buckets[i];
            let bucket = self.bucket(parent_of(parent), key);
            self.buckets[bucket as usize].2 += node.counts[i];
            here.push(bucket);
        }
        for (sub, node) in self.subs.iter_mut().zip(node.subs) {
            sub.merge(node, &here, index, segment)?;
        }
        Ok(())
    }

    fn merge_distinct(&mut self, node: &mut Node, parents: &[u32]) -> Result<(), EsError> {
        let Keys::Distinct { ordinals, .. } = &node.keys else { return Ok(()) };
        let mut seen: Vec<(u32, u64)> = std::mem::take(&mut node.distinct).into_keys().collect();
        let hashes: FastMap<u64, u64> = match ordinals {
            Some(column) => {
                let mut ords: Vec<u64> = seen.iter().map(|(_, ord)| *ord).collect();
                ords.sort_unstable();
                ords.dedup();
                let mut hashes = Vec::with_capacity(ords.len());
                column
                    .dictionary()
                    .sorted_ords_to_term_cb(&ords, |term| hashes.push(states::hash_bytes(term)))?;
                ords.into_iter().zip(hashes).collect()
            }
            None => FastMap::default(),
        };
        for (parent, raw) in seen.drain(..) {
            let at = parents.get(parent as usize).copied().unwrap_or(0) as usize;
            if self.distincts.len() <= at {
                self.distincts.resize(at + 1, Distinct::default());
            }
            self.distincts[at].add(hashes.get(&raw).copied().unwrap_or_else(|| states::mix(raw)));
        }
        Ok(())
    }
}

impl Node {
    /// The keys of its buckets as values that compare across segments.
    fn bucket_keys(&self, form: FieldForm) -> Result<Vec<Key>, EsError> {
        let raws: Vec<u64> = self.buckets.iter().map(|(_, raw)| *raw).collect();
        if let Keys::Composite(parts) = &self.keys {
            let columns = (0..parts.len())
                .map(|i| {
                    let raws: Vec<u64> = self.tuple_keys.iter().map(|tuple| tuple[i]).collect();
                    keys_of(&parts[i].keys, &raws, FieldForm::Unknown, None)
                })
                .collect::<Result<Vec<_>, _>>()?;
            return Ok(raws
                .iter()
                .map(|raw| {
                    Key::Tuple(columns.iter().map(|keys| keys[*raw as usize].clone()).collect())
                })
                .collect());
        }
        keys_of(&self.keys, &raws, form, self.missing_key.as_ref())
    }
}

fn keys_of(
    keys: &Keys,
    raws: &[u64],
    form: FieldForm,
    missing: Option<&Key>,
) -> Result<Vec<Key>, EsError> {
    let missing = missing.cloned().unwrap_or(Key::Missing);
    let each = |convert: &dyn Fn(u64) -> Key| {
        raws.iter()
            .map(|raw| if *raw == MISSING_RAW { missing.clone() } else { convert(*raw) })
            .collect()
    };
    Ok(match keys {
        Keys::Ordinals(column) => {
            let mut ords: Vec<u64> =
                raws.iter().copied().filter(|raw| *raw != MISSING_RAW).collect();
            ords.sort_unstable();
            ords.dedup();
            let mut texts: Vec<Box<str>> = Vec::with_capacity(ords.len());
            column.dictionary().sorted_ords_to_term_cb(&ords, |term| {
                texts.push(String::from_utf8_lossy(term).into())
            })?;
            each(&|raw| {
                let place = ords.binary_search(&raw).unwrap_or(0);
                Key::Text(texts.get(place).cloned().unwrap_or_default())
            })
        }
        Keys::Numbers(_, ColumnType::F64) => each(&Key::Float),
        Keys::Numbers(_, ColumnType::U64) => each(&|raw| Key::Integer(raw as i64)),
        Keys::Numbers(..) if form == FieldForm::Float => {
            each(&|raw| Key::Float((i64::from_u64(raw) as f64).to_u64()))
        }
        Keys::Numbers(..) | Keys::Dates { .. } => each(&|raw| Key::Integer(i64::from_u64(raw))),
        Keys::Steps { .. } => each(&Key::Float),
        Keys::None => each(&|_| Key::Missing),
        _ => raws.iter().map(|raw| Key::Place(*raw as u32)).collect(),
    })
}

/// The text of a key, for `include` and `exclude`.
fn key_text(key: &Key, form: FieldForm) -> String {
    match key {
        Key::Text(text) if form == FieldForm::Ip => {
            ip_of_key(text).map_or_else(|| text.to_string(), |address| address.to_string())
        }
        Key::Text(text) => text.to_string(),
        Key::Integer(number) => number.to_string(),
        Key::Float(bits) => f64::from_u64(*bits).to_string(),
        _ => String::new(),
    }
}

/// A value of `missing` or `after` as text.
fn value_text(value: &Value) -> String {
    text_of(value)
}
