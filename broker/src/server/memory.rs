//! A bound on what all connections together keep in memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bytes, lent in kibibytes.
#[derive(Debug)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    total_kib: u32,
    /// One at a time may go on beyond the total, so that requests which have each got a part never
    /// wait for one another in a ring.
    beyond: Arc<Semaphore>,
}

/// What is lent; given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    held: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let total_kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX >> 4).max(1);
        Self {
            free: Arc::new(Semaphore::new(total_kib as usize)),
            total_kib,
            beyond: Arc::new(Semaphore::new(1)),
        }
    }

    /// More than all there is counts as all.
    fn kib(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.total_kib)
    }

    /// Waits until so much is free, and takes it. Whoever waits here must hold no other share.
    pub(crate) async fn take(&self, bytes: usize) -> Share {
        let held = self.free.clone().acquire_many_owned(self.kib(bytes)).await.ok();
        Share { held, beyond: None }
    }

    /// Adds to a share, beyond the total if it must be.
    pub(crate) async fn grow(&self, share: &mut Share, bytes: usize) {
        if share.beyond.is_some() {
            return;
        }
        tokio::select! {
            biased;
            more = self.free.clone().acquire_many_owned(self.kib(bytes)) => {
                match (&mut share.held, more) {
                    (Some(held), Ok(more)) => held.merge(more),
                    (held, more) => *held = more.ok(),
                }
            }
            beyond = self.beyond.clone().acquire_owned() => share.beyond = beyond.ok(),
        }
    }
}

impl Share {
    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            let surplus = held.num_permits().saturating_sub(bytes.div_ceil(1 << 10));
            drop(held.split(surplus));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shares_that_each_have_a_part_never_wait_in_a_ring() {
        let memory = Memory::new(2 << 10);
        let (mut one, mut other) = (memory.take(1 << 10).await, memory.take(1 << 10).await);
        memory.grow(&mut one, 5 << 10).await;
        // The second waits for the first to end, which it can.
        let mut waiting = Box::pin(memory.grow(&mut other, 1 << 10));
        assert!(futures_poll(&mut waiting).is_none());
        drop(one);
        waiting.await;
        assert_eq!(other.held.as_ref().map(|held| held.num_permits()), Some(2));
        other.shrink(0);
        memory.take(usize::MAX).await;
    }

    /// Polls once.
    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
