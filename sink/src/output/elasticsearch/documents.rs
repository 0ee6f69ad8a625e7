//! Events → the lines of bulk requests, in the worker that filtered them.

use std::sync::Arc;

use bytes::Bytes;

use super::options::Elasticsearch;
use crate::delivery::budget::Budget;
use crate::delivery::chunk::{Batch, Chunk, Placed, RecordView};
use crate::event::Event;

/// Collects the documents that one batch has for one output.
#[derive(Debug)]
pub struct Documents {
    output: Arc<Elasticsearch>,
    budget: Arc<Budget>,
    /// Buffers of the batch's indices; nearly always one.
    open: Vec<Open>,
    rendered: String,
    id: Vec<u8>,
    /// Size of the largest body of the last batch: the next will be about as large.
    expected_bytes: usize,
}

#[derive(Debug)]
struct Open {
    /// As the template gave it, before cleaning: compared for each event.
    rendered: String,
    index: Arc<str>,
    /// `{"create":{"_index":"…","_id":"`
    action: Vec<u8>,
    body: Vec<u8>,
    documents: Vec<Placed>,
}

/// Why an event has no index to go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexNameError {
    #[error("index name {0} holds a field that the event does not have")]
    Unresolved(String),
    #[error("index name {0} cannot be made valid")]
    Invalid(String),
}

/// Elasticsearch's limit, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl Documents {
    pub fn new(output: Arc<Elasticsearch>, budget: Arc<Budget>) -> Self {
        Self {
            output,
            budget,
            open: Vec::new(),
            rendered: String::new(),
            id: Vec::new(),
            expected_bytes: 0,
        }
    }

    /// Adds an event. `nth` tells apart the events of one record.
    ///
    /// # Errors
    /// There is no index to put it into; the event was not added.
    pub fn add(
        &mut self,
        event: &Event,
        view: RecordView<'_>,
        record: u32,
        nth: usize,
    ) -> Result<(), (IndexNameError, String)> {
        self.rendered.clear();
        self.output.index.render(event, &mut self.rendered);
        let at = match self.open.iter().position(|open| open.rendered == self.rendered) {
            Some(at) => at,
            None => {
                let index =
                    clean_name(&self.rendered).map_err(|error| (error, self.rendered.clone()))?;
                self.open_index(index.into());
                self.open.len() - 1
            }
        };
        let open = &mut self.open[at];
        open.body.extend_from_slice(&open.action);
        match &self.output.document_id {
            None => {
                view.write_id(&mut open.body);
                if nth > 0 {
                    open.body.extend_from_slice(format!("-{nth}").as_bytes());
                }
            }
            Some(template) => {
                let id = template.to_text(event);
                self.id.clear();
                serde_json::to_writer(&mut self.id, &id).expect("writing to memory does not fail");
                // The quotes are written by the action's pieces.
                open.body.extend_from_slice(&self.id[1..self.id.len() - 1]);
            }
        }
        open.body.extend_from_slice(b"\"}}\n");
        event.write_source(&mut open.body);
        open.body.push(b'\n');
        open.documents.push(Placed { end: open.body.len() as u32, record });
        Ok(())
    }

    /// Documents added so far, as JSON, the newest `count` of each index.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.open.iter().flat_map(move |open| {
            let from = open.documents.len().saturating_sub(count);
            (from..open.documents.len()).filter_map(move |n| {
                let start = if n == 0 { 0 } else { open.documents[n - 1].end as usize };
                let lines = &open.body[start..open.documents[n].end as usize];
                let source = memchr::memchr(b'\n', lines)? + 1;
                lines.get(source..lines.len() - 1)
            })
        })
    }

    /// Hands out what was collected and begins anew.
    pub fn finish(&mut self, batch: &Arc<Batch>) -> Vec<Arc<Chunk>> {
        let largest = self.open.iter().map(|open| open.body.len()).max();
        self.expected_bytes = largest.unwrap_or(0);
        self.open
            .drain(..)
            .map(|open| {
                let bytes = open.body.len() + open.documents.len() * size_of::<Placed>();
                Arc::new(Chunk {
                    index: open.index,
                    body: Bytes::from(open.body),
                    documents: open.documents,
                    batch: batch.clone(),
                    credit: Some(self.budget.take(bytes)),
                })
            })
            .collect()
    }

    fn open_index(&mut self, index: Arc<str>) {
        let action = self.output.action.name();
        self.open.push(Open {
            rendered: self.rendered.clone(),
            action: format!("{{\"{action}\":{{\"_index\":\"{index}\",\"_id\":\"").into_bytes(),
            index,
            body: Vec::with_capacity(self.expected_bytes + self.expected_bytes / 8),
            documents: Vec::new(),
        });
    }
}

/// Makes a name that Elasticsearch accepts: lower case, `_` for what may not stand in it.
pub fn clean_name(name: &str) -> Result<String, IndexNameError> {
    if name.contains("%{") {
        return Err(IndexNameError::Unresolved(name.into()));
    }
    let cleaned: String = name
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| match c {
            '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ' ' | ',' | '#' | ':' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    let cleaned = cleaned.trim_start_matches(['-', '_', '+']);
    let is_valid = !matches!(cleaned, "" | "." | "..") && cleaned.len() <= NAME_BYTES_MAX;
    if is_valid { Ok(cleaned.into()) } else { Err(IndexNameError::Invalid(name.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_valid_where_they_can_be() {
        for (name, cleaned) in [
            ("logs-2026.11.23", "logs-2026.11.23"),
            ("Logs Übel/X", "logs_übel_x"),
            ("_-a", "a"),
            ("a\"b\n", "a_b_"),
        ] {
            assert_eq!(clean_name(name).as_deref(), Ok(cleaned));
        }
        assert!(matches!(clean_name("a-%{b}"), Err(IndexNameError::Unresolved(_))));
        for name in ["", "..", "-", &"x".repeat(256)] {
            assert!(matches!(clean_name(name), Err(IndexNameError::Invalid(_))), "{name}");
        }
    }
}
