//! The order of hits: keys from columns, the best of each segment, and their merge.
//!
//! Within a segment every key is a number that is smaller for a better hit (strings by their place
//! in the segment's dictionary), so the heap compares numbers only. The few that survive are turned
//! into values that compare across segments.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde_json::Value;
use tantivy::columnar::{Column, ColumnType, DynamicColumn, MonotonicallyMappableToU64, StrColumn};
use tantivy::{DocId, SegmentReader};

use jiff::tz::TimeZone;

use crate::dates;
use crate::error::EsError;
use crate::index::document::{SEQ_NO, column_name};
use crate::index::parse::{ip_key, ip_of_key};
use crate::mapping::{Kind, Mapping, Place};
use crate::search::dsl::text_of;
use crate::search::request::SortSpec;

/// A key that compares across segments.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    Number(f64),
    Integer(i64),
    Text(String),
    Missing,
}

/// Where the keys of one sort come from in one segment.
enum Source {
    Score,
    Number {
        column: Column<u64>,
        kind: ColumnType,
    },
    /// Sequence numbers, after those of the indices before this one.
    Doc {
        column: Column<u64>,
        before: u64,
    },
    Text {
        column: StrColumn,
    },
    Missing,
}

/// One sort in one segment.
#[expect(missing_debug_implementations, reason = "holds columns or an index, which have none")]
pub struct Extractor {
    source: Source,
    is_descending: bool,
    missing: u64,
    after: Option<u64>,
}

/// How the value of a sort is shown and read.
#[derive(Debug, Clone)]
pub struct Shape {
    kind: Kind,
    place: Place,
    path: String,
    format: Option<String>,
    is_score: bool,
    doc: Option<DocOrder>,
}

/// What documents are told apart by where nothing else is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DocOrder {
    /// `_seq_no`, which every index counts for itself.
    SeqNo,
    /// `_doc` and `_shard_doc`: the place of the index in the search, then its sequence number. No two
    /// documents have the same, so that a page may end between any two.
    ShardDoc,
}

/// Bits of a `_shard_doc` that are the sequence number. With these few a search over 8192 indices
/// stays within the whole numbers that a double holds, as which some clients read it.
const SEQ_NO_BITS: u32 = 40;

impl Shape {
    /// How `spec` sorts an index with this mapping; `None` for a field it does not have.
    ///
    /// # Errors
    /// Text, and a field that is not mapped and was not excused.
    pub fn of(spec: &SortSpec, mapping: &Mapping, index: &str) -> Result<Option<Self>, EsError> {
        let plain = |is_score, doc| {
            Some(Self {
                kind: Kind::Integer,
                place: Place::Number,
                path: String::new(),
                format: None,
                is_score,
                doc,
            })
        };
        match spec.field.as_str() {
            "_score" => return Ok(plain(true, None)),
            "_seq_no" => return Ok(plain(false, Some(DocOrder::SeqNo))),
            "_doc" | "_shard_doc" => return Ok(plain(false, Some(DocOrder::ShardDoc))),
            _ => {}
        }
        match mapping.resolve(&spec.field) {
            Some(field) if !field.is_aggregatable() => Err(no_fielddata(&spec.field, index)),
            Some(field) if field.place == Place::Message || field.place == Place::Nowhere => {
                Ok(None)
            }
            Some(field) => {
                let format = spec.format.clone().or_else(|| {
                    (field.format != dates::DEFAULT_FORMAT).then(|| field.format.to_owned())
                });
                Ok(Some(Self {
                    kind: field.kind,
                    place: field.place,
                    path: field.path.to_owned(),
                    format: if field.kind == Kind::Date { format } else { None },
                    is_score: false,
                    doc: None,
                }))
            }
            None if spec.has_unmapped_type => Ok(None),
            None => Err(EsError::new(
                400,
                "query_shard_exception",
                format!("No mapping found for [{}] in order to sort on", spec.field),
            )
            .with("index", index)
            .all_shards_failed(index, None)),
        }
    }

    /// A key as the answer shows it.
    pub fn show(&self, key: &Key) -> Value {
        match key {
            Key::Missing => Value::Null,
            Key::Text(text) if self.kind == Kind::Ip => {
                ip_of_key(text).map_or(Value::Null, |address| address.to_string().into())
            }
            Key::Text(text) => text.clone().into(),
            Key::Integer(ms) if self.kind == Kind::Date => match &self.format {
                Some(format) => dates::format(*ms, format, &TimeZone::UTC).into(),
                None => (*ms).into(),
            },
            Key::Integer(number) => (*number).into(),
            Key::Number(number) if self.is_score => {
                serde_json::Number::from_f64(f64::from(*number as f32))
                    .map_or(Value::Null, Value::Number)
            }
            Key::Number(number) => {
                serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number)
            }
        }
    }

    /// A `search_after` value as a key.
    fn read(&self, value: &Value) -> Result<Key, EsError> {
        let unreadable = || {
            EsError::illegal_argument(format!(
                "Failed to parse search_after value [{value}] for field [{}]",
                self.path
            ))
        };
        if value.is_null() {
            return Ok(Key::Missing);
        }
        Ok(match self.kind {
            _ if self.is_score => Key::Number(value.as_f64().ok_or_else(unreadable)?),
            Kind::Date => {
                let text = text_of(value);
                let format = self.format.as_deref().unwrap_or(dates::DEFAULT_FORMAT);
                let parsed = text.parse::<i64>().ok().filter(|_| value.is_number());
                Key::Integer(
                    match parsed
                        .or_else(|| dates::parse(&text, format, &TimeZone::UTC).map(|(ms, _)| ms))
                    {
                        Some(ms) => ms,
                        None => text.parse().map_err(|_| unreadable())?,
                    },
                )
            }
            Kind::Integer | Kind::Boolean => Key::Integer(
                value.as_i64().or_else(|| text_of(value).parse().ok()).ok_or_else(unreadable)?,
            ),
            Kind::Float => Key::Number(
                value.as_f64().or_else(|| text_of(value).parse().ok()).ok_or_else(unreadable)?,
            ),
            Kind::Ip => Key::Text(ip_key(text_of(value).parse().map_err(|_| unreadable())?)),
            _ => Key::Text(text_of(value)),
        })
    }
}

/// The refusal to sort or aggregate text.
pub fn no_fielddata(field: &str, index: &str) -> EsError {
    EsError::illegal_argument(format!(
        "Fielddata is disabled on [{field}] in [{index}]. Text fields are not optimised for operations that require per-document field data like aggregations and sorting, so these operations are disabled by default. Please use a keyword field instead. Alternatively, set fielddata=true on [{field}] in order to load field data by uninverting the inverted index. Note that this can use significant memory."
    ))
    .on_shards(index)
}

/// Opens the first column of a name, as numbers.
pub fn number_column(
    segment: &SegmentReader,
    name: &str,
) -> Result<Option<(Column<u64>, ColumnType)>, EsError> {
    for handle in segment.fast_fields().dynamic_column_handles(name)? {
        let kind = handle.column_type();
        if matches!(kind, ColumnType::I64 | ColumnType::U64 | ColumnType::F64)
            && let Some(column) = handle.open_u64_lenient()?
        {
            return Ok(Some((column, kind)));
        }
    }
    Ok(None)
}

/// Opens a column of strings.
pub fn text_column(segment: &SegmentReader, name: &str) -> Result<Option<StrColumn>, EsError> {
    for handle in segment.fast_fields().dynamic_column_handles(name)? {
        if handle.column_type() == ColumnType::Str
            && let DynamicColumn::Str(column) = handle.open()?
        {
            return Ok(Some(column));
        }
    }
    Ok(None)
}

/// A number of a column as a key.
pub fn key_of(number: u64, kind: ColumnType) -> Key {
    match kind {
        ColumnType::F64 => Key::Number(f64::from_u64(number)),
        ColumnType::U64 => Key::Integer(number as i64),
        _ => Key::Integer(i64::from_u64(number)),
    }
}

fn number_of(key: &Key, kind: ColumnType) -> Option<u64> {
    Some(match (key, kind) {
        (Key::Integer(number), ColumnType::F64) => (*number as f64).to_u64(),
        (Key::Number(number), ColumnType::F64) => number.to_u64(),
        (Key::Integer(number), ColumnType::U64) => (*number).max(0) as u64,
        (Key::Number(number), ColumnType::U64) => *number as u64,
        (Key::Integer(number), _) => number.to_u64(),
        (Key::Number(number), _) => (*number as i64).to_u64(),
        _ => return None,
    })
}

impl Extractor {
    fn new(
        spec: &SortSpec,
        shape: Option<&Shape>,
        segment: &SegmentReader,
        index: usize,
        after: Option<&Key>,
    ) -> Result<Self, EsError> {
        let mut extractor = Self {
            source: Source::Missing,
            is_descending: spec.is_descending,
            missing: if spec.missing_first { 0 } else { u64::MAX },
            after: None,
        };
        let Some(shape) = shape else {
            extractor.after = after.map(|_| extractor.missing);
            return Ok(extractor);
        };
        if shape.is_score {
            extractor.source = Source::Score;
            if let Some(Key::Number(score)) = after {
                extractor.after = Some(extractor.ordered(score_key(*score as f32)));
            }
            return Ok(extractor);
        }
        if shape.doc == Some(DocOrder::ShardDoc) {
            let before = (index as u64) << SEQ_NO_BITS;
            extractor.after = match after {
                Some(Key::Integer(after)) => {
                    Some(extractor.ordered(doc_key((*after).max(0) as u64)))
                }
                Some(_) => Some(extractor.missing),
                None => None,
            };
            extractor.source = Source::Doc { column: segment.fast_fields().u64(SEQ_NO)?, before };
            return Ok(extractor);
        }
        if shape.doc.is_some() || shape.place != Place::Keyword {
            let name = if shape.doc.is_some() {
                SEQ_NO.to_owned()
            } else {
                column_name(shape.place, &shape.path)
            };
            if let Some((column, kind)) = number_column(segment, &name)? {
                extractor.after = match after {
                    Some(Key::Missing) => Some(extractor.missing),
                    Some(key) => {
                        number_of(key, kind).map(|number| extractor.ordered(inner(number, kind)))
                    }
                    None => None,
                };
                extractor.source = Source::Number { column, kind };
            } else {
                extractor.after = extractor.after_without_column(after);
            }
            return Ok(extractor);
        }
        if let Some(column) = text_column(segment, &column_name(shape.place, &shape.path))? {
            // Ordinals are doubled, so that a text between two of them has a place too.
            extractor.after = match after {
                Some(Key::Text(text)) => {
                    let place = match column.dictionary().term_ord(text)? {
                        Some(ord) => 2 * ord + 2,
                        None => {
                            let (_, upper) = column.dictionary().term_bounds_to_ord(
                                std::ops::Bound::Unbounded,
                                std::ops::Bound::Excluded(text.as_bytes()),
                            )?;
                            match upper {
                                std::ops::Bound::Excluded(ord) => 2 * ord + 1,
                                std::ops::Bound::Included(ord) => 2 * ord + 3,
                                std::ops::Bound::Unbounded => u64::MAX - 1,
                            }
                        }
                    };
                    Some(extractor.ordered(place.min(u64::MAX - 1)))
                }
                Some(_) => Some(extractor.missing),
                None => None,
            };
            extractor.source = Source::Text { column };
        } else {
            extractor.after = extractor.after_without_column(after);
        }
        Ok(extractor)
    }

    /// Every document here lacks the field: they come before or after `after` as the missing do.
    fn after_without_column(&self, after: Option<&Key>) -> Option<u64> {
        after.map(|key| match (key, self.missing) {
            (Key::Missing, missing) => missing,
            (_, 0) => 1,
            (_, _) => u64::MAX - 1,
        })
    }

    fn ordered(&self, number: u64) -> u64 {
        if self.is_descending { !number } else { number }
    }

    #[inline]
    fn key(&self, doc: DocId, score: f32) -> u64 {
        match &self.source {
            Source::Score => self.ordered(score_key(score)),
            Source::Number { column, kind } => self
                .best(column.values_for_doc(doc))
                .map_or(self.missing, |number| self.ordered(inner(number, *kind))),
            Source::Doc { column, before } => column.first(doc).map_or(self.missing, |seq_no| {
                self.ordered(doc_key(before.saturating_add(seq_no)))
            }),
            Source::Text { column } => self
                .best(column.term_ords(doc))
                .map_or(self.missing, |ord| self.ordered(2 * ord + 2)),
            Source::Missing => self.missing,
        }
    }

    /// Of several values the least counts, the greatest where the order is descending.
    #[inline]
    fn best(&self, mut values: impl Iterator<Item = u64>) -> Option<u64> {
        let first = values.next()?;
        Some(if self.is_descending {
            values.fold(first, u64::max)
        } else {
            values.fold(first, u64::min)
        })
    }

    fn resolve(&self, key: u64) -> Result<Key, EsError> {
        let raw = self.ordered(key);
        Ok(match &self.source {
            Source::Score => Key::Number(f64::from(score_of(raw))),
            _ if key == self.missing => Key::Missing,
            Source::Number { kind: ColumnType::U64, .. } => key_of(raw - 1, ColumnType::U64),
            Source::Number { kind, .. } => key_of(raw, *kind),
            Source::Doc { .. } => Key::Integer((raw - 1) as i64),
            Source::Text { column } => {
                let mut text = String::new();
                column.ord_to_str((raw - 2) / 2, &mut text)?;
                Key::Text(text)
            }
            Source::Missing => Key::Missing,
        })
    }
}

/// A number moved away from the two ends, which stand for what is missing.
#[inline]
fn inner(number: u64, kind: ColumnType) -> u64 {
    match kind {
        ColumnType::U64 => number.saturating_add(1).min(u64::MAX - 1),
        _ => number.clamp(1, u64::MAX - 1),
    }
}

/// A `_shard_doc` as a key.
#[inline]
fn doc_key(number: u64) -> u64 {
    inner(number, ColumnType::U64)
}

/// Scores are never negative, so their bits are in their order.
fn score_key(score: f32) -> u64 {
    u64::from(score.max(0.0).to_bits())
}

fn score_of(key: u64) -> f32 {
    f32::from_bits(key as u32)
}

/// The best hits of one segment.
#[expect(missing_debug_implementations, reason = "holds columns or an index, which have none")]
pub struct SegmentTop {
    extractors: Vec<Extractor>,
    heap: BinaryHeap<Entry>,
    limit: usize,
    seq_no: Column<u64>,
    scratch: Vec<u64>,
    after: Option<Vec<u64>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    keys: Vec<u64>,
    /// Among equal keys the older document comes first.
    seq_no: u64,
    doc: DocId,
    score: u32,
}

/// A hit that compares across segments.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub keys: Vec<Key>,
    pub seq_no: u64,
    pub doc: DocId,
    pub score: f32,
    /// Places in the lists of indices and of segments.
    pub index: usize,
    pub segment: u32,
}

impl SegmentTop {
    pub fn new(
        specs: &[SortSpec],
        shapes: &[Option<Shape>],
        after: Option<&[Key]>,
        segment: &SegmentReader,
        index: usize,
        limit: usize,
    ) -> Result<Self, EsError> {
        let extractors = specs
            .iter()
            .zip(shapes)
            .enumerate()
            .map(|(i, (spec, shape))| {
                Extractor::new(spec, shape.as_ref(), segment, index, after.map(|after| &after[i]))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let after = after
            .map(|_| extractors.iter().map(|extractor| extractor.after.unwrap_or(0)).collect());
        let seq_no = segment.fast_fields().u64(SEQ_NO)?;
        Ok(Self { extractors, heap: BinaryHeap::new(), limit, seq_no, scratch: Vec::new(), after })
    }

    /// Whether the heap is full and no document whose first key is at least `key` can enter it.
    pub fn is_closed_to(&self, key: u64) -> bool {
        self.heap.len() == self.limit
            && self
                .heap
                .peek()
                .is_some_and(|worst| worst.keys.first().is_some_and(|worst| *worst < key))
    }

    #[inline]
    pub fn push(&mut self, doc: DocId, score: f32) {
        let Some(first) = self.extractors.first() else { return };
        let key = first.key(doc, score);
        // Most documents are worse than the worst of the best already.
        if self.is_closed_to(key) {
            return;
        }
        self.scratch.clear();
        self.scratch.push(key);
        for extractor in &self.extractors[1..] {
            self.scratch.push(extractor.key(doc, score));
        }
        if self.after.as_ref().is_some_and(|after| self.scratch <= *after) {
            return;
        }
        let seq_no = self.seq_no.first(doc).unwrap_or(0);
        if self.heap.len() == self.limit {
            let Some(worst) = self.heap.peek() else { return };
            if (&self.scratch, seq_no) >= (&worst.keys, worst.seq_no) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Entry { keys: self.scratch.clone(), seq_no, doc, score: score.to_bits() });
    }

    /// Bytes it holds.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.extractors.len() * size_of::<Extractor>()
            + self.heap.capacity() * size_of::<Entry>()
            + self.heap.len() * self.extractors.len() * size_of::<u64>()
    }

    pub fn into_candidates(self, index: usize, segment: u32) -> Result<Vec<Candidate>, EsError> {
        let extractors = self.extractors;
        self.heap
            .into_sorted_vec()
            .into_iter()
            .map(|entry| {
                let keys = extractors
                    .iter()
                    .zip(&entry.keys)
                    .map(|(extractor, key)| extractor.resolve(*key))
                    .collect::<Result<_, _>>()?;
                Ok(Candidate {
                    keys,
                    seq_no: entry.seq_no,
                    doc: entry.doc,
                    score: f32::from_bits(entry.score),
                    index,
                    segment,
                })
            })
            .collect()
    }
}

impl Candidate {
    /// Bytes it holds.
    pub fn size(&self) -> usize {
        let text = |key: &Key| if let Key::Text(text) = key { text.capacity() } else { 0 };
        size_of::<Self>() + self.keys.iter().map(|key| size_of::<Key>() + text(key)).sum::<usize>()
    }
}

fn compare_keys(a: &Key, b: &Key) -> Ordering {
    match (a, b) {
        (Key::Integer(a), Key::Integer(b)) => a.cmp(b),
        (Key::Number(a), Key::Number(b)) => a.total_cmp(b),
        (Key::Integer(a), Key::Number(b)) => (*a as f64).total_cmp(b),
        (Key::Number(a), Key::Integer(b)) => a.total_cmp(&(*b as f64)),
        (Key::Text(a), Key::Text(b)) => a.cmp(b),
        (Key::Text(_), _) => Ordering::Greater,
        (_, Key::Text(_)) => Ordering::Less,
        (Key::Missing, _) | (_, Key::Missing) => Ordering::Equal,
    }
}

/// The order of two hits.
pub fn compare(specs: &[SortSpec], a: &Candidate, b: &Candidate) -> Ordering {
    for (spec, (a, b)) in specs.iter().zip(a.keys.iter().zip(&b.keys)) {
        let order = match (a, b) {
            (Key::Missing, Key::Missing) => Ordering::Equal,
            (Key::Missing, _) if spec.missing_first => Ordering::Less,
            (Key::Missing, _) => Ordering::Greater,
            (_, Key::Missing) if spec.missing_first => Ordering::Greater,
            (_, Key::Missing) => Ordering::Less,
            (a, b) if spec.is_descending => compare_keys(b, a),
            (a, b) => compare_keys(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    (a.index, a.seq_no).cmp(&(b.index, b.seq_no))
}

/// The `search_after` values as keys, by the first index that has the field.
pub fn read_after(values: &[Value], shapes: &[Option<Shape>]) -> Result<Vec<Key>, EsError> {
    values
        .iter()
        .zip(shapes)
        .map(|(value, shape)| match shape {
            Some(shape) => shape.read(value),
            None if value.is_null() => Ok(Key::Missing),
            None => Ok(Key::Text(text_of(value))),
        })
        .collect()
}
