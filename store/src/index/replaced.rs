//! The query that deletes what was replaced: documents of given ids, older than what replaced them.
//!
//! The sequence number decides, not the order in which tantivy hears of deletes and segments: a
//! delete is also seen by segments that are added after it but before the next commit.

use tantivy::query::{
    BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight,
};
use tantivy::schema::IndexRecordOption;
use tantivy::{BitSet, DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError, Term};

use crate::index::document::SEQ_NO;

/// Ids, each with the sequence number below which its documents go.
#[derive(Debug, Clone)]
pub(super) struct Replaced(pub Vec<(Term, u64)>);

impl Query for Replaced {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Replaced {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let seq_no = reader.fast_fields().u64(SEQ_NO)?;
        let mut docs = BitSet::with_max_value(reader.max_doc());
        for (term, before) in &self.0 {
            let inverted = reader.inverted_index(term.field())?;
            let Some(info) = inverted.get_term_info(term)? else { continue };
            let mut postings =
                inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if seq_no.first(doc).is_some_and(|seq_no| seq_no < *before) {
                    docs.insert(doc);
                }
                doc = postings.advance();
            }
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(docs), boost)))
    }

    fn explain(&self, _: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        Err(TantivyError::InvalidArgument(format!("no explanation of document {doc}")))
    }
}
