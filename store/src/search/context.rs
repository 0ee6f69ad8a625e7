//! Searches that go on: scrolls and points in time. Each holds the segments it began with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::random_id;
use crate::error::EsError;
use crate::search::View;
use crate::search::request::Request;

/// Open at a time; each keeps files from being deleted.
const CONTEXTS_MAX: usize = 500;
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub struct Context {
    pub views: Vec<View>,
    /// The search that a scroll repeats.
    pub request: Option<Request>,
    /// The sort keys of the last hit shown.
    pub after: Option<Vec<Value>>,
    keep: Duration,
    until: Instant,
}

/// The indices of a context, its search, and the keys of the last hit shown.
type Resumed = (Vec<View>, Option<Request>, Option<Vec<Value>>);

#[derive(Debug, Default)]
pub struct Contexts(Mutex<HashMap<String, Context>>);

impl Contexts {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Context>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// Too many are open.
    pub fn open(
        &self,
        views: Vec<View>,
        request: Option<Request>,
        after: Option<Vec<Value>>,
        keep: Duration,
    ) -> Result<String, EsError> {
        let keep = keep.min(KEEP_MAX);
        let mut contexts = self.lock();
        if contexts.len() >= CONTEXTS_MAX {
            return Err(EsError::new(
                429,
                "es_rejected_execution_exception",
                format!(
                    "Trying to create too many scroll contexts. Must be less than or equal to: [{CONTEXTS_MAX}]."
                ),
            ));
        }
        // Longer than 40 characters, as clients and tests expect of an opaque id.
        let id = format!("{}{}{}", random_id(), random_id(), random_id());
        contexts.insert(
            id.clone(),
            Context { views, request, after, keep, until: Instant::now() + keep },
        );
        Ok(id)
    }

    /// The indices of a context, and its request and place; its life is prolonged.
    pub fn get(&self, id: &str, keep: Option<Duration>) -> Result<Resumed, EsError> {
        let mut contexts = self.lock();
        let context = contexts.get_mut(id).ok_or_else(|| {
            EsError::new(
                404,
                "search_context_missing_exception",
                format!("No search context found for id [{id}]"),
            )
        })?;
        context.keep = keep.unwrap_or(context.keep).min(KEEP_MAX);
        context.until = Instant::now() + context.keep;
        Ok((context.views.clone(), context.request.clone(), context.after.clone()))
    }

    pub fn advance(&self, id: &str, after: Option<Vec<Value>>) {
        if let Some(context) = self.lock().get_mut(id) {
            context.after = after;
        }
    }

    pub fn close(&self, id: &str) -> bool {
        self.lock().remove(id).is_some()
    }

    pub fn close_all(&self) -> usize {
        let mut contexts = self.lock();
        let count = contexts.len();
        contexts.clear();
        count
    }

    /// Closes those nobody came back to.
    pub fn expire(&self) {
        let now = Instant::now();
        self.lock().retain(|_, context| context.until > now);
    }
}
