//! Events → the lines of bulk requests, in the worker that filtered them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    names: Arc<IndexNames>,
    /// Buffers of the batch's indices; nearly always one.
    open: Vec<Open>,
    rendered: String,
    /// The id as it is written between the quotes.
    id: Vec<u8>,
    id_text: String,
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

/// The indices that were written to within the hour, over all workers of an output: a field full of
/// chance in `index` must not make thousands of them.
#[derive(Debug)]
pub struct IndexNames {
    count_max: usize,
    seen: Mutex<(Instant, HashSet<Arc<str>>)>,
}

const NAMES_WINDOW: Duration = Duration::from_secs(3600);

impl IndexNames {
    pub fn new(count_max: usize, now: Instant) -> Self {
        Self { count_max, seen: Mutex::new((now, HashSet::new())) }
    }

    /// Whether documents may go to this index.
    fn admits(&self, now: Instant, name: &Arc<str>) -> bool {
        let mut seen = self.seen.lock().expect("no holder of this lock panics");
        let (since, names) = &mut *seen;
        if now.saturating_duration_since(*since) >= NAMES_WINDOW {
            *since = now;
            names.clear();
        }
        names.contains(name) || (names.len() < self.count_max && names.insert(name.clone()))
    }
}

/// Why an event has no place to go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("index name {0} holds a field that the event does not have")]
    Unresolved(String),
    #[error("index name {0} cannot be made valid")]
    Invalid(String),
    #[error("index {index} would be one more than {count_max} within the hour")]
    TooMany { index: String, count_max: usize },
    /// All such events would share one id, and each replace the one before.
    #[error("document_id {0} holds a field that the event does not have")]
    UnresolvedId(String),
}

/// Elasticsearch's limit, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl Documents {
    pub fn new(output: Arc<Elasticsearch>, budget: Arc<Budget>, names: Arc<IndexNames>) -> Self {
        Self {
            output,
            budget,
            names,
            open: Vec::new(),
            rendered: String::new(),
            id: Vec::new(),
            id_text: String::new(),
            expected_bytes: 0,
        }
    }

    /// Adds an event. `nth` tells apart the events of one record.
    ///
    /// # Errors
    /// There is no index to put it into, or no id for it; the event was not added.
    pub fn add(
        &mut self,
        event: &Event,
        view: RecordView<'_>,
        record: u32,
        nth: usize,
    ) -> Result<(), (PlaceError, String)> {
        self.id.clear();
        match &self.output.document_id {
            None => {
                view.write_id(&mut self.id);
                if nth > 0 {
                    self.id.extend_from_slice(format!("-{nth}").as_bytes());
                }
            }
            Some(template) => {
                self.id_text.clear();
                if !template.render(event, &mut self.id_text) {
                    self.rendered.clear();
                    self.output.index.render(event, &mut self.rendered);
                    let error = PlaceError::UnresolvedId(self.id_text.clone());
                    return Err((error, self.rendered.clone()));
                }
                serde_json::to_writer(&mut self.id, &self.id_text)
                    .expect("writing to memory does not fail");
                // The quotes are written by the action's pieces.
                self.id.pop();
                self.id.remove(0);
            }
        }
        self.rendered.clear();
        self.output.index.render(event, &mut self.rendered);
        let at = match self.open.iter().position(|open| open.rendered == self.rendered) {
            Some(at) => at,
            None => {
                let refused = |error| (error, self.rendered.clone());
                let index: Arc<str> = clean_name(&self.rendered).map_err(refused)?.into();
                // Once for each batch and index, so the clock costs nothing.
                if !self.names.admits(Instant::now(), &index) {
                    let (index, count_max) = (index.to_string(), self.names.count_max);
                    return Err(refused(PlaceError::TooMany { index, count_max }));
                }
                self.open_index(index);
                self.open.len() - 1
            }
        };
        let open = &mut self.open[at];
        open.body.extend_from_slice(&open.action);
        open.body.extend_from_slice(&self.id);
        open.body.extend_from_slice(b"\"}}\n");
        event.write_source(&mut open.body);
        open.body.push(b'\n');
        open.documents.push(Placed { end: open.body.len() as u32, record });
        Ok(())
    }

    /// Takes back what was added of a record, the last one; a document that was left half written
    /// too.
    pub fn forget(&mut self, record: u32) {
        for open in &mut self.open {
            while open.documents.last().is_some_and(|document| document.record == record) {
                open.documents.pop();
            }
            let end = open.documents.last().map_or(0, |document| document.end as usize);
            open.body.truncate(end);
        }
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
            .filter(|open| !open.documents.is_empty())
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
pub fn clean_name(name: &str) -> Result<String, PlaceError> {
    if name.contains("%{") {
        return Err(PlaceError::Unresolved(name.into()));
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
    if is_valid { Ok(cleaned.into()) } else { Err(PlaceError::Invalid(name.into())) }
}

#[cfg(test)]
mod tests {
    use elkfk_base::Mistakes;

    use super::*;
    use crate::delivery::acks::{Epoch, TopicPartition};
    use crate::event::Timestamp;
    use crate::pipeline::Pipeline;

    fn documents(options: &str, count_max: usize) -> Documents {
        let text = format!("output {{ elasticsearch {{ {options} }} }}");
        let pipeline = Pipeline::parse("a.conf", &text, &|_| None).unwrap();
        let output = Elasticsearch::read(&pipeline.outputs()[0], &mut Mistakes::default()).unwrap();
        let names = IndexNames::new(count_max, Instant::now());
        Documents::new(output.into(), Budget::new(1 << 20), names.into())
    }

    fn batch(records: usize) -> Arc<Batch> {
        let partition = TopicPartition { topic: "logs".into(), partition: 0 };
        let mut batch = Batch::new(partition, Epoch(1), Arc::default());
        for offset in 0..records {
            batch.push(offset as i64, None, None, Some(b"{}"), []);
        }
        Arc::new(batch)
    }

    fn event(json: &str) -> Event {
        Event::from_json(json.as_bytes(), Timestamp::from_millis(0)).unwrap()
    }

    #[test]
    fn event_without_the_field_of_its_id_has_no_place() {
        let mut documents = documents(r#"index => "a" document_id => "%{[id]}""#, 10);
        let batch = batch(2);
        let (error, index) = documents.add(&event(r#"{"x":1}"#), batch.get(0), 0, 0).unwrap_err();
        assert_eq!(error, PlaceError::UnresolvedId("%{[id]}".into()));
        assert_eq!(index, "a");
        documents.add(&event(r#"{"id":"say \"%{x}\""}"#), batch.get(1), 1, 0).unwrap();
        let chunks = documents.finish(&batch);
        let body = String::from_utf8_lossy(&chunks[0].body);
        assert!(body.starts_with(r#"{"index":{"_index":"a","_id":"say \"%{x}\""}}"#), "{body}");
    }

    #[test]
    fn what_a_record_added_can_be_taken_back() {
        let mut documents = documents(r#"index => "%{i}""#, 10);
        let batch = batch(3);
        documents.add(&event(r#"{"i":"a","n":0}"#), batch.get(0), 0, 0).unwrap();
        documents.add(&event(r#"{"i":"a","n":1}"#), batch.get(1), 1, 0).unwrap();
        documents.add(&event(r#"{"i":"b","n":1}"#), batch.get(1), 1, 1).unwrap();
        documents.open[0].body.extend_from_slice(b"half a docu");
        documents.forget(1);
        documents.add(&event(r#"{"i":"a","n":2}"#), batch.get(2), 2, 0).unwrap();
        let chunks = documents.finish(&batch);
        assert_eq!(chunks.len(), 1, "an index without documents has no chunk");
        let records: Vec<u32> = chunks[0].documents.iter().map(|d| d.record).collect();
        assert_eq!(records, [0, 2]);
        let body = String::from_utf8_lossy(&chunks[0].body);
        assert_eq!(body.lines().count(), 4, "{body}");
        assert!(!body.contains("half"), "{body}");
    }

    #[test]
    fn indices_beyond_the_hours_measure_are_refused() {
        let mut documents = documents(r#"index => "%{i}""#, 2);
        let batch = batch(4);
        let mut add = |i: &str| documents.add(&event(i), batch.get(0), 0, 0).is_ok();
        assert!(add(r#"{"i":"a"}"#) && add(r#"{"i":"b"}"#) && add(r#"{"i":"a"}"#));
        assert!(!add(r#"{"i":"c"}"#));
        let later = Instant::now() + NAMES_WINDOW;
        assert!(documents.names.admits(later, &"c".into()), "the next hour has its own");
    }

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
        assert!(matches!(clean_name("a-%{b}"), Err(PlaceError::Unresolved(_))));
        for name in ["", "..", "-", &"x".repeat(256)] {
            assert!(matches!(clean_name(name), Err(PlaceError::Invalid(_))), "{name}");
        }
    }
}
