//! What a metric remembers of the values it saw: sums, quantiles, distinct values.

use std::collections::HashSet;

/// Count, sum, extremes and sum of squares.
#[derive(Debug, Clone)]
pub(super) struct Stats {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub squares: f64,
}

impl Default for Stats {
    fn default() -> Self {
        Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, squares: 0.0 }
    }
}

impl Stats {
    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.squares += value * value;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.squares += other.squares;
    }
}

/// Values up to which quantiles are exact.
const EXACT_MAX: usize = 8192;
/// Centroids kept beyond that.
const CENTROIDS: usize = 512;

/// Quantiles: exact for few values, a merging t-digest for many.
#[derive(Debug, Clone, Default)]
pub(super) struct Digest {
    values: Vec<f64>,
    /// Mean and weight, ascending.
    centroids: Vec<(f64, f64)>,
    min: f64,
    max: f64,
    count: u64,
}

impl Digest {
    pub(super) fn add(&mut self, value: f64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        }
        self.count += 1;
        (self.min, self.max) = (self.min.min(value), self.max.max(value));
        self.values.push(value);
        if self.values.len() > EXACT_MAX {
            self.compress();
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        self.count += other.count;
        self.values.extend_from_slice(&other.values);
        self.centroids.extend_from_slice(&other.centroids);
        if self.values.len() > EXACT_MAX || !self.centroids.is_empty() {
            self.compress();
        }
    }

    /// Bytes it holds.
    pub(super) fn size(&self) -> usize {
        self.values.capacity() * 8 + self.centroids.capacity() * 16
    }

    fn compress(&mut self) {
        let mut all: Vec<(f64, f64)> = self
            .centroids
            .drain(..)
            .chain(self.values.drain(..).map(|value| (value, 1.0)))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        // Centroids near the ends stay small, so that the extreme quantiles stay sharp.
        let place = |q: f64| {
            CENTROIDS as f64 / std::f64::consts::PI
                * ((2.0 * q - 1.0).clamp(-1.0, 1.0).asin() + std::f64::consts::FRAC_PI_2)
        };
        let mut merged: Vec<(f64, f64)> = Vec::with_capacity(CENTROIDS);
        let (mut before, mut current) = (0.0, (0.0, 0.0));
        for (mean, weight) in all {
            let joined = current.1 + weight;
            if current.1 == 0.0 || place((before + joined) / total) - place(before / total) <= 1.0 {
                current = (current.0 + (mean - current.0) * weight / joined, joined);
            } else {
                before += current.1;
                merged.push(current);
                current = (mean, weight);
            }
        }
        merged.push(current);
        self.centroids = merged;
    }

    /// Values or centroids in order, with their weights.
    fn sorted(&self) -> Vec<(f64, f64)> {
        let mut all: Vec<(f64, f64)> = self
            .centroids
            .iter()
            .copied()
            .chain(self.values.iter().map(|value| (*value, 1.0)))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }

    /// The values below which these percentages lie; `None` without values.
    pub(super) fn quantiles(&self, percents: &[f64]) -> Vec<Option<f64>> {
        let all = self.sorted();
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        percents
            .iter()
            .map(|percent| {
                let (first, last) = (all.first()?, all.last()?);
                let wanted = (percent / 100.0).clamp(0.0, 1.0) * (total - 1.0);
                // Each centroid stands at the middle of its weight.
                let mut at = 0.0;
                let mut previous: Option<(f64, f64)> = None;
                for (mean, weight) in &all {
                    let middle = at + (weight - 1.0) / 2.0;
                    if wanted <= middle {
                        return Some(match previous {
                            Some((place, value)) => {
                                value + (mean - value) * (wanted - place) / (middle - place)
                            }
                            None if *weight > 1.0 => {
                                self.min + (first.0 - self.min) * wanted / middle
                            }
                            None => *mean,
                        });
                    }
                    previous = Some((middle, *mean));
                    at += weight;
                }
                Some(if last.1 > 1.0 { self.max } else { last.0 })
            })
            .collect()
    }

    /// The percentage of values at or below `x`, interpolated as Elasticsearch's digest does.
    pub(super) fn rank(&self, x: f64) -> Option<f64> {
        let all = self.sorted();
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        let (first, last) = (all.first()?.0, all.last()?.0);
        if x < self.min {
            return Some(0.0);
        }
        if x >= self.max {
            return Some(100.0);
        }
        if all.len() == 1 || first == last {
            return Some(50.0);
        }
        let mut seen = 0.0;
        let mut left = (all[1].0 - all[0].0) / 2.0;
        for i in 0..all.len() {
            let (mean, weight) = all[i];
            let right = if i + 1 < all.len() { (all[i + 1].0 - mean) / 2.0 } else { left };
            if x < mean + right {
                let within =
                    if left + right > 0.0 { (x - (mean - left)) / (left + right) } else { 0.5 };
                return Some(((seen + weight * within) / total * 100.0).clamp(0.0, 100.0));
            }
            seen += weight;
            left = right;
        }
        Some(100.0)
    }
}

/// Distinct values up to which the count is exact.
const DISTINCT_EXACT_MAX: usize = 65_536;
const REGISTER_BITS: u32 = 14;

/// Counts distinct values by their hashes.
#[derive(Debug, Clone, Default)]
pub(super) struct Distinct {
    exact: HashSet<u64>,
    /// HyperLogLog registers, once there are too many to keep.
    registers: Vec<u8>,
}

impl Distinct {
    pub(super) fn add(&mut self, hash: u64) {
        if self.registers.is_empty() {
            self.exact.insert(hash);
            if self.exact.len() > DISTINCT_EXACT_MAX {
                self.registers = vec![0; 1 << REGISTER_BITS];
                for hash in std::mem::take(&mut self.exact) {
                    self.register(hash);
                }
            }
        } else {
            self.register(hash);
        }
    }

    fn register(&mut self, hash: u64) {
        let register = (hash >> (64 - REGISTER_BITS)) as usize;
        let rank = (hash << REGISTER_BITS).leading_zeros().min(64 - REGISTER_BITS) as u8 + 1;
        self.registers[register] = self.registers[register].max(rank);
    }

    pub(super) fn size(&self) -> usize {
        self.exact.capacity() * 9 + self.registers.len()
    }

    pub(super) fn count(&self) -> u64 {
        if self.registers.is_empty() {
            return self.exact.len() as u64;
        }
        let m = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|rank| 0.5f64.powi(i32::from(*rank))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let zeros = self.registers.iter().filter(|rank| **rank == 0).count();
        if estimate <= 2.5 * m && zeros > 0 {
            (m * (m / zeros as f64).ln()).round() as u64
        } else {
            estimate.round() as u64
        }
    }
}

/// Spreads the bits of a number over all of a hash.
pub(super) fn mix(value: u64) -> u64 {
    let mut hash = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// A hash of bytes with all bits spread.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(values: impl IntoIterator<Item = f64>) -> Digest {
        let mut digest = Digest::default();
        values.into_iter().for_each(|value| digest.add(value));
        digest
    }

    #[test]
    fn few_values_give_the_quantiles_of_elasticsearch() {
        let durations = [0.01, 0.02, 0.11, 0.005, 0.004, 0.2, 1.5, 30.0, 0.09, 0.001, 0.001, 0.3];
        let digest = digest(durations);
        let shown: Vec<f64> = digest
            .quantiles(&[50.0, 95.0, 99.0])
            .into_iter()
            .flatten()
            .map(|v| (v * 1e6).round() / 1e6)
            .collect();
        assert_eq!(shown, [0.055, 14.325, 26.865]);
        let rank = |x| (digest.rank(x).unwrap() * 1e6).round() / 1e6;
        assert_eq!((rank(0.1), rank(1.0)), (58.333333, 83.38945));
    }

    #[test]
    fn many_values_stay_close_to_the_truth() {
        let mut merged = Digest::default();
        for part in 0..10 {
            merged.merge(&digest((0..100_000).filter(|i| i % 10 == part).map(f64::from)));
        }
        for percent in [1.0, 25.0, 50.0, 95.0, 99.9] {
            let found = merged.quantiles(&[percent])[0].unwrap();
            let truth = percent * 1000.0;
            assert!((found - truth).abs() < 300.0, "{percent}%: {found} for {truth}");
        }
    }

    #[test]
    fn distinct_counts_are_exact_then_close() {
        let mut distinct = Distinct::default();
        (0..50_000u64).chain(0..50_000).for_each(|i| distinct.add(mix(i)));
        assert_eq!(distinct.count(), 50_000);
        (0..1_000_000u64).for_each(|i| distinct.add(mix(i)));
        assert!((960_000..1_040_000).contains(&distinct.count()), "{}", distinct.count());
    }
}
