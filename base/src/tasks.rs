//! Named tasks with one way to stop them.
//!
//! A box starts its tasks here; [`Tasks::shutdown`] cancels and awaits them all, so that nothing it
//! started outlives it.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of one box. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    running: TaskTracker,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks that stop with these, or earlier by themselves; they are awaited apart.
    pub fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), running: TaskTracker::new() }
    }

    /// Starts a task; its log lines carry `name`.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.running.spawn(future.instrument(tracing::info_span!("task", name)))
    }

    /// Starts work that blocks, on a thread of the blocking pool. It must watch [`Tasks::is_stopping`].
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.running.spawn_blocking(work)
    }

    /// The token that [`Tasks::shutdown`] cancels.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Resolves once the tasks were asked to stop.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks all tasks to stop and waits until they have.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// Resolves with the first reason that is told; never where nobody is left to tell one.
pub async fn failure(told: &watch::Receiver<Option<String>>) -> String {
    let mut told = told.clone();
    let reason = told.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn shutdown_awaits_every_task() {
        let tasks = Tasks::new();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let (token, done) = (tasks.token(), done.clone());
            tasks.spawn("worker", async move {
                token.cancelled().await;
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        tasks.shutdown().await;
        assert_eq!(done.load(Ordering::SeqCst), 10);
    }

    #[tokio::test]
    async fn child_stops_with_its_parent_but_not_the_other_way_round() {
        let parent = Tasks::new();
        let (first, second) = (parent.child(), parent.child());
        first.shutdown().await;
        assert!(!parent.is_stopping() && !second.is_stopping());
        parent.shutdown().await;
        assert!(second.is_stopping());
    }
}
