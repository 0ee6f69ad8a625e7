//! A query answered from the dictionary of terms: every term of a field (or of a path of a JSON
//! field) that satisfies a test, and the documents that hold one of them.
//!
//! Serves prefixes, wildcards, regular expressions, fuzzy words, ranges of strings and addresses,
//! and words of short texts, which are kept whole: their words are looked for in the distinct values.

use std::sync::Arc;
use std::time::Instant;

use tantivy::query::{
    BitSetDocSet, ConstScorer, EmptyScorer, EnableScoring, Explanation, Query, Scorer, Weight,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError};

/// Whether a term is meant.
pub type Test = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Terms of `field` whose bytes start with `path`, within the bounds, that pass the test.
#[derive(Clone)]
pub struct DictionaryQuery {
    pub field: Field,
    /// Bytes that come before the text of each term: the path within a JSON field, or nothing.
    pub path: Vec<u8>,
    /// The least text that may match.
    pub from: Vec<u8>,
    /// The first text that cannot match any more; `None` where only the path ends the terms.
    pub until: Option<Vec<u8>>,
    pub test: Test,
    pub deadline: Instant,
}

impl std::fmt::Debug for DictionaryQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DictionaryQuery").field("field", &self.field).finish_non_exhaustive()
    }
}

impl DictionaryQuery {
    /// Terms that start with `prefix` and pass `test`.
    pub fn with_prefix(
        field: Field,
        path: Vec<u8>,
        prefix: &str,
        deadline: Instant,
        test: Test,
    ) -> Self {
        Self {
            field,
            path,
            from: prefix.as_bytes().to_vec(),
            until: after_prefix(prefix.as_bytes()),
            test,
            deadline,
        }
    }
}

/// The first bytes beyond everything that starts with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

impl Query for DictionaryQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

/// Terms looked at between two looks at the clock.
const TERMS_PER_CHECK: usize = 4096;

impl Weight for DictionaryQuery {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let inverted = reader.inverted_index(self.field)?;
        let join = |text: &[u8]| [self.path.as_slice(), text].concat();
        let mut range = inverted.terms().range().ge(join(&self.from));
        if let Some(end) = self.until.as_deref().map(join).or_else(|| after_prefix(&self.path)) {
            range = range.lt(end);
        }
        let mut stream = range.into_stream()?;
        let mut documents: Option<BitSet> = None;
        let mut count = 0;
        while stream.advance() {
            count += 1;
            if count % TERMS_PER_CHECK == 0 && Instant::now() > self.deadline {
                break;
            }
            let Ok(text) = std::str::from_utf8(&stream.key()[self.path.len()..]) else { continue };
            if !(self.test)(text) {
                continue;
            }
            let documents =
                documents.get_or_insert_with(|| BitSet::with_max_value(reader.max_doc()));
            let mut postings =
                inverted.read_postings_from_terminfo(stream.value(), IndexRecordOption::Basic)?;
            let mut doc = postings.doc();
            while doc != TERMINATED {
                documents.insert(doc);
                doc = postings.advance();
            }
        }
        Ok(match documents {
            Some(documents) => Box::new(ConstScorer::new(BitSetDocSet::from(documents), boost)),
            None => Box::new(EmptyScorer),
        })
    }

    fn explain(&self, _: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        Err(TantivyError::InvalidArgument(format!("no explanation of document {doc}")))
    }
}
