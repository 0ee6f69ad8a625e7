//! Which events of a generation are on their way, and how far it is acknowledged.

use std::collections::VecDeque;

use crate::identity::Guard;

/// Events between "handed to the producer" and "acknowledged", in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Number of the first entry; numbers are never used twice.
    first: u64,
    entries: VecDeque<Entry>,
    acked: u64,
    /// Guards at ends of blocks beyond `acked`, ascending.
    guards: VecDeque<Guard>,
}

/// An event that was sent; 16 bytes, for there may be a million of them.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where it ends in the file.
    end: u64,
    /// When it was read, in milliseconds since 1970 without the upper bits: differences are right up to
    /// 24 days.
    read_ms: u32,
    is_acked: bool,
}

/// How far a generation is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) position: u64,
    /// The newest guard at or before it.
    pub(crate) guard: Option<Guard>,
}

impl InFlight {
    /// Everything before `position` is acknowledged; the next event gets `number`.
    pub(crate) fn starting_at(position: u64, number: u64) -> Self {
        Self { acked: position, first: number, ..Self::default() }
    }

    /// The number of the next event.
    pub(crate) fn next_number(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Whether the event of this number is in flight.
    pub(crate) fn holds(&self, number: u64) -> bool {
        (self.first..self.next_number()).contains(&number)
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number for the event that ends at `end` and was read at `now_ms`.
    pub(crate) fn push(&mut self, end: u64, now_ms: u64) -> u64 {
        self.entries.push_back(Entry { end, read_ms: now_ms as u32, is_acked: false });
        self.next_number() - 1
    }

    /// Nothing before `end` needs a record of its own.
    pub(crate) fn cover(&mut self, end: u64) {
        match self.entries.back_mut() {
            Some(last) => last.end = last.end.max(end),
            None => self.acked = self.acked.max(end),
        }
    }

    pub(crate) fn guard(&mut self, guard: Guard) {
        // One per block read; a file that only gets acknowledgements late has few blocks in flight.
        self.guards.push_back(guard);
    }

    /// Takes note of an acknowledgement that came at `now_ms`; answers after how many milliseconds. Numbers
    /// from before a [`InFlight::rewind`] are known no more.
    pub(crate) fn ack(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        let entry = self.entries.get_mut(number.checked_sub(self.first)? as usize)?;
        entry.is_acked = true;
        // A clock that was set back makes it negative.
        let took_ms = (now_ms as u32).wrapping_sub(entry.read_ms) as i32;
        while let Some(Entry { end, is_acked: true, .. }) = self.entries.front().copied() {
            self.entries.pop_front();
            self.first += 1;
            self.acked = end;
        }
        Some(took_ms.max(0) as u64)
    }

    /// The newest state worth writing down.
    pub(crate) fn progress(&mut self) -> Progress {
        let mut guard = None;
        while self.guards.front().is_some_and(|guard| guard.end <= self.acked) {
            guard = self.guards.pop_front();
        }
        Progress { position: self.acked, guard }
    }

    /// Forgets what is in flight: it will be read and sent again from the acknowledged position.
    pub(crate) fn rewind(&mut self) -> u64 {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.guards.clear();
        self.acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_rests_at_the_first_hole() {
        let mut in_flight = InFlight::starting_at(100, 7);
        let numbers: Vec<_> = [110, 120, 130].map(|end| in_flight.push(end, end)).into();
        in_flight.cover(140);
        assert_eq!(in_flight.ack(numbers[1], 150), Some(30));
        assert_eq!(in_flight.acked(), 100);
        assert_eq!(in_flight.ack(numbers[0], 150), Some(40));
        assert_eq!(in_flight.acked(), 120);
        assert_eq!(in_flight.ack(numbers[2], 100), Some(0), "the clock was set back");
        assert_eq!(in_flight.acked(), 140);
    }

    #[test]
    fn answers_to_what_was_forgotten_move_nothing() {
        let mut in_flight = InFlight::starting_at(0, 0);
        let old = in_flight.push(10, u64::from(u32::MAX));
        assert_eq!(in_flight.rewind(), 0);
        let new = in_flight.push(10, u64::from(u32::MAX));
        assert_eq!(in_flight.ack(old, 0), None);
        assert_eq!(in_flight.acked(), 0);
        assert_eq!(in_flight.ack(new, (1 << 32) + 4), Some(5), "over the bits that are left out");
        assert_eq!(in_flight.acked(), 10);
    }
}
