//! What waits for one index: in which order, from when on, and how much of it a request takes.

use super::*;

impl Lane {
    pub(super) fn new(options: &BulkOptions, now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            oldest: now,
            apart: VecDeque::new(),
            put_off: BTreeMap::new(),
            last_put_off: 0,
            concurrency: Concurrency::new(options.concurrency_max),
            overload: Breaker::new(options.retry),
            blocked: Breaker::new(options.blocked),
            blocked_since: None,
        }
    }

    pub(super) fn wait(&mut self, now: Instant, slice: Slice) {
        if self.waiting.is_empty() {
            self.oldest = now;
        }
        self.waiting_bytes += slice.body_bytes();
        self.waiting.push_back(slice);
    }

    pub(super) fn wait_in_front(&mut self, now: Instant, slice: Slice) {
        if self.waiting.is_empty() {
            self.oldest = now;
        }
        self.waiting_bytes += slice.body_bytes();
        self.waiting.push_front(slice);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.apart.is_empty()
            && self.put_off.is_empty()
            && self.concurrency.in_flight() == 0
    }

    pub(super) fn has_put_off_due(&self, now: Instant) -> bool {
        self.put_off.first_key_value().is_some_and(|((due, _), _)| *due <= now)
    }

    pub(super) fn is_due(&self, now: Instant, target_bytes: usize, options: &BulkOptions) -> bool {
        let has_work = !self.apart.is_empty()
            || self.has_put_off_due(now)
            || (!self.waiting.is_empty()
                && (self.concurrency.in_flight() == 0
                    || self.waiting_bytes >= target_bytes
                    || now.saturating_duration_since(self.oldest) >= options.linger));
        has_work
            && self.concurrency.has_room()
            && self.overload.allows(now)
            && self.blocked.allows(now)
    }

    pub(super) fn next_wake(&self, options: &BulkOptions) -> Option<Instant> {
        let waiting = match (self.apart.is_empty(), self.waiting.is_empty()) {
            (false, _) => Some(self.oldest),
            (true, false) => Some(self.oldest + options.linger),
            (true, true) => None,
        };
        let put_off = self.put_off.first_key_value().map(|((due, _), _)| *due);
        let due = match (waiting, put_off) {
            (Some(waiting), Some(put_off)) => waiting.min(put_off),
            (one, other) => one.or(other)?,
        };
        // While a probe is under way, or the lane is full, its answer is what wakes.
        if !self.concurrency.has_room() {
            return None;
        }
        let breakers = [&self.overload, &self.blocked];
        if breakers.iter().any(|breaker| !breaker.is_closed() && breaker.due().is_none()) {
            return None;
        }
        let open = breakers.iter().filter_map(|breaker| breaker.due()).max();
        Some(open.map_or(due, |open| open.max(due)))
    }

    /// Documents for one request: half of a refused one, or those put off that are due, then those
    /// that wait.
    pub(super) fn take(&mut self, now: Instant, target_bytes: usize) -> Taken {
        if let Some(slices) = self.apart.pop_front() {
            return Taken { slices, is_apart: true };
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < target_bytes
            && let Some(entry) = self.put_off.first_entry()
            && entry.key().0 <= now
        {
            let slice = entry.remove();
            if !taken.is_empty() && bytes + slice.body_bytes() > target_bytes {
                self.wait_in_front(now, slice);
                break;
            }
            let (part, rest) = slice.split(target_bytes);
            bytes += part.body_bytes();
            taken.push(part);
            if let Some(rest) = rest {
                self.wait_in_front(now, rest);
            }
        }
        while let Some(slice) = self.waiting.pop_front() {
            let room = target_bytes.saturating_sub(bytes);
            if !taken.is_empty() && slice.body_bytes() > room {
                self.waiting.push_front(slice);
                break;
            }
            self.waiting_bytes -= slice.body_bytes();
            let (part, rest) = slice.split(target_bytes);
            bytes += part.body_bytes();
            taken.push(part);
            if let Some(rest) = rest {
                self.waiting_bytes += rest.body_bytes();
                self.waiting.push_front(rest);
            }
        }
        self.oldest = now;
        Taken { slices: taken, is_apart: false }
    }

    /// Everything that is not under way.
    pub(super) fn take_all(&mut self) -> Vec<Slice> {
        self.waiting_bytes = 0;
        let apart = self.apart.drain(..).flatten();
        let put_off = std::mem::take(&mut self.put_off).into_values();
        apart.chain(put_off).chain(self.waiting.drain(..)).collect()
    }
}
