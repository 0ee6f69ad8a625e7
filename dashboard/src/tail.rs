//! Follow: lines that match a query, as they become searchable.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::search::{self, Ask};
use crate::stream::{EVENTS_WAITING_MAX, event};
use crate::{Shared, now_ms};

const EVERY: Duration = Duration::from_millis(500);
/// Lines a second that a person can look at; more are skipped and said to be.
const LINES_MAX: usize = 200;
/// Lines may become searchable this much out of the order of their times.
const OVERLAP_MS: i64 = 60_000;
/// Ids remembered so that the overlap shows no line twice.
const IDS_MAX: usize = 20_000;

/// What has been shown, so that each line is shown once.
#[derive(Debug, Default)]
struct Shown {
    ids: HashSet<String>,
    order: VecDeque<String>,
    newest_ms: Option<i64>,
}

impl Shown {
    /// Keeps of `lines`, newest first, those not shown yet.
    fn take(&mut self, lines: Vec<Value>) -> Vec<Value> {
        let fresh: Vec<_> = lines.into_iter().filter(|line| self.is_new(line)).collect();
        while self.order.len() > IDS_MAX {
            if let Some(id) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
        fresh
    }

    fn is_new(&mut self, line: &Value) -> bool {
        if let Some(ms) = line["sort"][0].as_i64() {
            self.newest_ms = Some(self.newest_ms.map_or(ms, |newest| newest.max(ms)));
        }
        let id = line["id"].as_str().unwrap_or_default();
        let is_new = self.ids.insert(id.to_owned());
        if is_new {
            self.order.push_back(id.to_owned());
        }
        is_new
    }
}

/// Looks for new lines twice a second while the page listens.
pub(crate) fn follow(shared: Arc<Shared>, ask: Ask) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let tasks = shared.tasks.clone();
    tasks.spawn("follow lines", async move {
        let path = format!(
            "/{}/_search?ignore_unavailable=true&allow_no_indices=true",
            shared.config.index_pattern
        );
        let mut shown = Shown::default();
        let mut is_first = true;
        loop {
            let from_ms = shown.newest_ms.map(|newest| newest.min(now_ms()) - OVERLAP_MS);
            let ask = Ask {
                size: LINES_MAX,
                from_ms,
                to_ms: None,
                after: None,
                query: ask.query.clone(),
            };
            let message = match shared.elastic.post(&path, &ask.newest()).await {
                Ok(answer) => {
                    let fresh = shown.take(search::lines(&answer));
                    // What was there before is already on the page.
                    let is_wanted = !fresh.is_empty() && !is_first;
                    is_first = false;
                    is_wanted.then(|| event("lines", &Value::Array(fresh).to_string()))
                }
                Err(error) => Some(event("trouble", &format!("follow: {error}"))),
            };
            if let Some(message) = message
                && sender.send(message).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = shared.tasks.stopping() => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_line_is_shown_once_and_memory_is_bounded() {
        let mut shown = Shown::default();
        let line = |n: usize| json!({"id": n.to_string(), "sort": [n]});
        assert_eq!(shown.take(vec![line(2), line(1)]).len(), 2);
        assert_eq!(shown.take(vec![line(3), line(2)]), [line(3)]);
        assert_eq!(shown.newest_ms, Some(3));
        shown.take((10..10 + 2 * IDS_MAX).map(line).collect());
        assert_eq!((shown.ids.len(), shown.order.len()), (IDS_MAX, IDS_MAX));
    }
}
