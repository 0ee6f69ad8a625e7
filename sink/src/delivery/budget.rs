//! Bytes held in memory, counted where they are held.
//!
//! A [`Credit`] lives as long as the bytes it stands for, so none can leak: what was taken is given
//! back when the last holder lets go. Who reads more waits while the budget is spent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A limit in bytes. It may be overdrawn by what is already under way, never waited for by who
/// would have to give something back first.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit,
            lock: Mutex::new(()),
            freed: Condvar::new(),
        })
    }

    pub fn take(self: &Arc<Self>, bytes: usize) -> Credit {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Credit { budget: self.clone(), bytes }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn is_spent(&self) -> bool {
        self.used() >= self.limit
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there is room again for some time to come. Below the limit by a quarter, so that
    /// partitions are not paused and resumed for every single record.
    pub fn has_room(&self) -> bool {
        self.used() < self.limit - self.limit / 4
    }

    /// Blocks until there is room, at most `patience`.
    pub fn wait(&self, patience: Duration) -> bool {
        let guard = self.lock.lock().expect("no holder of this lock panics");
        let (_guard, _timeout) = self
            .freed
            .wait_timeout_while(guard, patience, |()| !self.has_room())
            .expect("no holder of this lock panics");
        self.has_room()
    }
}

/// A share of a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Credit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        let before = self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        // Only the credit that crosses the mark wakes: otherwise each would take the lock.
        let mark = self.budget.limit - self.budget.limit / 4;
        if before >= mark && before - self.bytes < mark {
            drop(self.budget.lock.lock());
            self.budget.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_come_back_when_dropped() {
        let budget = Budget::new(100);
        let credits: Vec<Credit> = (0..4).map(|_| budget.take(30)).collect();
        assert_eq!(budget.used(), 120);
        assert!(budget.is_spent() && !budget.has_room());
        assert!(!budget.wait(Duration::ZERO));
        drop(credits);
        assert_eq!(budget.used(), 0);
        assert!(budget.wait(Duration::ZERO));
    }

    #[test]
    fn waiting_ends_when_room_is_made() {
        let budget = Budget::new(100);
        let credit = budget.take(100);
        let waiter = {
            let budget = budget.clone();
            std::thread::spawn(move || budget.wait(Duration::from_secs(60)))
        };
        drop(credit);
        assert!(waiter.join().unwrap());
    }
}
