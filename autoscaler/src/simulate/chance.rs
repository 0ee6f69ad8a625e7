//! All chance from one seed, the same on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance {
    state: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// From 0 to below 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn within(&mut self, least: f64, most: f64) -> f64 {
        least + self.share() * (most - least)
    }

    /// Half-open.
    pub(crate) fn count(&mut self, range: std::ops::Range<u32>) -> u32 {
        range.start + (self.bits() % u64::from((range.end - range.start).max(1))) as u32
    }

    pub(crate) fn is(&mut self, probability: f64) -> bool {
        self.share() < probability
    }
}

/// Spreads the bits of a number; also the hash of a key.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
