//! Searches: from a request and a list of indices to hits, counts and aggregations.

pub mod compile;
pub mod context;
pub mod dictionary;
pub mod dsl;
pub mod fetch;
pub mod highlight;
pub mod query_string;
pub mod request;
pub mod sort;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tantivy::query::{EnableScoring, Scorer};
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, DocSet, Searcher, SegmentReader, TERMINATED};

use crate::aggs;
use crate::dates;
use crate::engine::Engine;
use crate::error::EsError;
use crate::index::Index;
use crate::index::document::TIMESTAMP;
use crate::mapping::Mapping;
use crate::metrics;

use compile::Compiler;
use request::{Request, SortSpec, Track};
use sort::{Candidate, SegmentTop, Shape};

/// An index as a search sees it: frozen, with the mapping it then had.
#[derive(Clone)]
pub struct View {
    pub index: Arc<Index>,
    pub searcher: Searcher,
    pub mapping: Arc<Mapping>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("index", &self.index.name).finish_non_exhaustive()
    }
}

impl View {
    pub fn open(index: &Arc<Index>) -> Result<Self, EsError> {
        Ok(Self { index: index.clone(), searcher: index.searcher()?, mapping: index.mapping.get() })
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    pub total: u64,
    /// In order, after `from`.
    pub hits: Vec<Hit>,
    pub max_score: Option<f32>,
    /// `Null` without aggregations.
    pub aggregations: Value,
    pub is_timed_out: bool,
    pub took: Duration,
    pub shards: usize,
    /// The keys of the last hit, for the next page of a scroll.
    pub last: Option<Vec<Value>>,
}

#[derive(Debug)]
pub struct Hit {
    pub candidate: Candidate,
    /// As shown; empty unless the request sorts.
    pub sort: Vec<Value>,
}

/// Documents handed to aggregations at a time.
const BLOCK: usize = 512;
/// Blocks between two looks at the clock.
const BLOCKS_PER_CHECK: usize = 16;

/// Runs a search over `views`.
///
/// # Errors
/// What the request asks for cannot be had of one of the indices.
pub fn execute(engine: &Engine, views: &[View], request: &Request) -> Result<Found, EsError> {
    let started = Instant::now();
    let timeout = request
        .timeout_ms
        .map_or(engine.config.search_timeout, Duration::from_millis)
        .min(engine.config.search_timeout);
    let deadline = started + timeout;
    let now_ms = dates::now_ms();
    let by_score = vec![SortSpec {
        field: "_score".into(),
        is_descending: true,
        missing_first: false,
        format: None,
        has_unmapped_type: false,
    }];
    let specs: &[SortSpec] = if request.sort.is_empty() { &by_score } else { &request.sort };
    let is_scored = request.is_by_score() || request.tracks_scores || request.min_score.is_some();
    let limit =
        request.from.saturating_add(request.size).min(request::WINDOW_MAX.max(request.size));
    let mut run = Run {
        request,
        specs,
        is_scored: is_scored && (limit > 0 || request.min_score.is_some()),
        limit,
        deadline,
        total: 0,
        max_score: None,
        candidates: Vec::new(),
        is_timed_out: false,
    };
    let mut collector = aggs::Collector::new(&request.aggs, engine, views, now_ms, deadline)?;
    let mut shapes_of = Vec::with_capacity(views.len());
    for view in views {
        let name = &view.index.name;
        shapes_of.push(
            specs
                .iter()
                .map(|spec| Shape::of(spec, &view.mapping, name))
                .collect::<Result<Vec<_>, _>>()?,
        );
    }
    let after = match &request.search_after {
        Some(values) => {
            // An index that lacks a field cannot tell how its values read.
            let shapes: Vec<Option<Shape>> = (0..specs.len())
                .map(|i| shapes_of.iter().find_map(|shapes| shapes[i].clone()))
                .collect();
            Some(sort::read_after(values, &shapes)?)
        }
        None => None,
    };
    for (i, view) in views.iter().enumerate() {
        if run.is_timed_out {
            break;
        }
        let compiler = Compiler::new(&view.index, &view.mapping, now_ms, deadline);
        let query = compiler.compile(&request.query)?;
        let scoring = if run.is_scored {
            EnableScoring::enabled_from_searcher(&view.searcher)
        } else {
            EnableScoring::disabled_from_searcher(&view.searcher)
        };
        let weight = query.weight(scoring)?;
        let post_filter = match &request.post_filter {
            Some(filter) => Some(
                compiler
                    .compile(filter)?
                    .weight(EnableScoring::disabled_from_searcher(&view.searcher))?,
            ),
            None => None,
        };
        for (ord, segment) in view.searcher.segment_readers().iter().enumerate() {
            // Also before the first: of many searches with one deadline the last ones find none left.
            if run.is_late() {
                break;
            }
            let only_counts = limit == 0
                && collector.is_empty()
                && post_filter.is_none()
                && request.min_score.is_none();
            if only_counts {
                if request.track != Track::None {
                    run.total += match request.query {
                        dsl::Query::All => u64::from(segment.num_docs()),
                        _ => u64::from(weight.count(segment)?),
                    };
                }
                run.is_timed_out |= Instant::now() > deadline;
                continue;
            }
            // The count of everything is known; then a segment that cannot have a better hit is left out.
            let is_all = matches!(request.query, dsl::Query::All)
                && post_filter.is_none()
                && request.min_score.is_none();
            if is_all && collector.is_empty() && run.cannot_have_better(segment)? {
                run.total += u64::from(segment.num_docs());
                continue;
            }
            let top = if limit > 0 {
                Some(SegmentTop::new(specs, &shapes_of[i], after.as_deref(), segment, i, limit)?)
            } else {
                None
            };
            let scorer = weight.scorer(segment, 1.0)?;
            let filter =
                post_filter.as_ref().map(|weight| weight.scorer(segment, 1.0)).transpose()?;
            let mut segment_aggs = collector.segment(i, view, segment)?;
            let top = run.scan(segment, scorer, filter, top, &mut segment_aggs)?;
            collector.merge(i, ord as u32, segment_aggs)?;
            if let Some(top) = top {
                run.candidates.extend(top.into_candidates(i, ord as u32)?);
                run.shrink();
            }
        }
    }
    run.candidates.sort_by(|a, b| sort::compare(specs, a, b));
    run.candidates.truncate(limit);
    let is_shown = !request.sort.is_empty();
    let hits: Vec<Hit> = run
        .candidates
        .drain(..)
        .skip(request.from)
        .map(|candidate| {
            let shapes = &shapes_of[candidate.index];
            let show = |(key, shape): (&sort::Key, &Option<Shape>)| {
                shape.as_ref().map_or(Value::Null, |shape| shape.show(key))
            };
            let sort = if is_shown {
                candidate.keys.iter().zip(shapes).map(show).collect()
            } else {
                Vec::new()
            };
            Hit { candidate, sort }
        })
        .collect();
    let last = hits.last().map(|hit| {
        let shapes = &shapes_of[hit.candidate.index];
        hit.candidate
            .keys
            .iter()
            .zip(shapes)
            .map(|(key, shape)| shape.as_ref().map_or(Value::Null, |shape| shape.show(key)))
            .collect()
    });
    let aggregations = collector.finish(views)?;
    if run.is_timed_out {
        metrics::SEARCHES_TIMED_OUT.inc();
    }
    metrics::SEARCH_SECONDS.observe(started.elapsed().as_secs_f64());
    Ok(Found {
        total: run.total,
        hits,
        max_score: run.max_score,
        aggregations,
        is_timed_out: run.is_timed_out,
        took: started.elapsed(),
        shards: views.len(),
        last,
    })
}

struct Run<'a> {
    request: &'a Request,
    specs: &'a [SortSpec],
    is_scored: bool,
    limit: usize,
    deadline: Instant,
    total: u64,
    max_score: Option<f32>,
    candidates: Vec<Candidate>,
    is_timed_out: bool,
}

impl Run<'_> {
    /// Keeps the best of what was gathered so far.
    fn shrink(&mut self) {
        if self.candidates.len() > self.limit * 2 {
            let specs = self.specs;
            self.candidates.sort_by(|a, b| sort::compare(specs, a, b));
            self.candidates.truncate(self.limit);
        }
    }

    /// Whether the hits in hand are all better than any document of a segment, by its range of time.
    fn cannot_have_better(&mut self, segment: &SegmentReader) -> Result<bool, EsError> {
        let Some(spec) =
            self.specs.first().filter(|spec| spec.field == "@timestamp" && !spec.missing_first)
        else {
            return Ok(false);
        };
        if self.candidates.len() < self.limit || self.limit == 0 {
            return Ok(self.limit == 0);
        }
        let specs = self.specs;
        self.candidates.sort_by(|a, b| sort::compare(specs, a, b));
        self.candidates.truncate(self.limit);
        let Some(sort::Key::Integer(worst)) =
            self.candidates.last().and_then(|worst| worst.keys.first())
        else {
            return Ok(false);
        };
        let Some(column) = segment.fast_fields().column_opt::<i64>(TIMESTAMP)? else {
            return Ok(false);
        };
        Ok(if spec.is_descending {
            column.max_value() < *worst
        } else {
            column.min_value() > *worst
        })
    }

    fn scan(
        &mut self,
        segment: &SegmentReader,
        mut scorer: Box<dyn Scorer>,
        mut filter: Option<Box<dyn Scorer>>,
        mut top: Option<SegmentTop>,
        aggs: &mut aggs::SegmentCollector,
    ) -> Result<Option<SegmentTop>, EsError> {
        let alive = segment.alive_bitset();
        let mut block: Vec<DocId> = Vec::with_capacity(BLOCK);
        let mut blocks = 0;
        if self.is_scored {
            let mut doc = scorer.doc();
            while doc != TERMINATED {
                let score = scorer.score();
                let is_in = alive.is_none_or(|alive| alive.is_alive(doc))
                    && self.request.min_score.is_none_or(|least| score >= least);
                if is_in {
                    block.push(doc);
                    if passes(&mut filter, doc) {
                        self.total += 1;
                        self.max_score = Some(self.max_score.map_or(score, |max| max.max(score)));
                        if let Some(top) = &mut top {
                            top.push(doc, score);
                        }
                    }
                }
                if block.len() == BLOCK {
                    aggs.collect(&block)?;
                    block.clear();
                    if self.is_late() {
                        break;
                    }
                }
                doc = scorer.advance();
            }
            aggs.collect(&block)?;
            return Ok(top);
        }
        let mut buffer = [0; COLLECT_BLOCK_BUFFER_LEN];
        loop {
            let count = scorer.fill_buffer(&mut buffer);
            match alive {
                Some(alive) => {
                    block.extend(buffer[..count].iter().copied().filter(|doc| alive.is_alive(*doc)))
                }
                None => block.extend_from_slice(&buffer[..count]),
            }
            let is_end = count < buffer.len();
            if block.len() + COLLECT_BLOCK_BUFFER_LEN > BLOCK || is_end {
                aggs.collect(&block)?;
                match (&mut top, &mut filter) {
                    (None, None) => self.total += block.len() as u64,
                    (Some(top), None) => {
                        self.total += block.len() as u64;
                        block.iter().for_each(|doc| top.push(*doc, 0.0));
                    }
                    (top, filter) => {
                        for doc in &block {
                            if passes(filter, *doc) {
                                self.total += 1;
                                if let Some(top) = top {
                                    top.push(*doc, 0.0);
                                }
                            }
                        }
                    }
                }
                block.clear();
                blocks += 1;
                if blocks % BLOCKS_PER_CHECK == 0 && self.is_late() {
                    break;
                }
            }
            if is_end {
                break;
            }
        }
        Ok(top)
    }

    fn is_late(&mut self) -> bool {
        self.is_timed_out |= Instant::now() > self.deadline;
        self.is_timed_out
    }
}

fn passes(filter: &mut Option<Box<dyn Scorer>>, doc: DocId) -> bool {
    match filter {
        None => true,
        Some(filter) => {
            if filter.doc() < doc {
                filter.seek(doc);
            }
            filter.doc() == doc
        }
    }
}
