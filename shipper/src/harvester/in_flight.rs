//! Which events of a generation are on their way, and how far it is acknowledged.

use std::collections::VecDeque;

use crate::identity::Guard;

/// Events between "handed to the producer" and "acknowledged", in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Number of the first entry; numbers are never used twice.
    first: u64,
    /// End of each event, and whether it was acknowledged.
    entries: VecDeque<(u64, bool)>,
    acked: u64,
    /// Guards at ends of blocks beyond `acked`, ascending.
    guards: VecDeque<Guard>,
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

    /// Number for the event that ends at `end`.
    pub(crate) fn push(&mut self, end: u64) -> u64 {
        self.entries.push_back((end, false));
        self.next_number() - 1
    }

    /// Nothing before `end` needs a record of its own.
    pub(crate) fn cover(&mut self, end: u64) {
        match self.entries.back_mut() {
            Some((last, _)) => *last = (*last).max(end),
            None => self.acked = self.acked.max(end),
        }
    }

    pub(crate) fn guard(&mut self, guard: Guard) {
        // One per block read; a file that only gets acknowledgements late has few blocks in flight.
        self.guards.push_back(guard);
    }

    /// Takes note of an acknowledgement. Numbers from before a [`InFlight::rewind`] are known no more.
    pub(crate) fn ack(&mut self, number: u64) {
        let Some(at) = number.checked_sub(self.first) else { return };
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        entry.1 = true;
        while let Some((end, true)) = self.entries.front().copied() {
            self.entries.pop_front();
            self.first += 1;
            self.acked = end;
        }
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
        let numbers: Vec<_> = [110, 120, 130].map(|end| in_flight.push(end)).into();
        in_flight.cover(140);
        in_flight.ack(numbers[1]);
        assert_eq!(in_flight.acked(), 100);
        in_flight.ack(numbers[0]);
        assert_eq!(in_flight.acked(), 120);
        in_flight.ack(numbers[2]);
        assert_eq!(in_flight.acked(), 140);
    }

    #[test]
    fn answers_to_what_was_forgotten_move_nothing() {
        let mut in_flight = InFlight::starting_at(0, 0);
        let old = in_flight.push(10);
        assert_eq!(in_flight.rewind(), 0);
        let new = in_flight.push(10);
        in_flight.ack(old);
        assert_eq!(in_flight.acked(), 0);
        in_flight.ack(new);
        assert_eq!(in_flight.acked(), 10);
    }
}
