//! The ladder's safety checks by name, so that a test can break each and see that it is missed.

/// A check without which the ladder would do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    Mode,
    Hold,
    TimeLag,
    DrainTarget,
    Blocked,
    Stalled,
    Rebalance,
    NoGainPause,
    ConsumerCooldown,
    PartitionCooldown,
    PartitionsAfterConsumers,
    Undisturbed,
    ConsumersUpToPartitions,
    ConsumersMax,
    AtMostDouble,
    ConsumersFirst,
    ArrivalLow,
    PartitionsMax,
    Compacted,
    ForeignKeys,
    HotFile,
    HotPartition,
    IdlePartitions,
    TooFewBrokers,
    Replicas,
    Calm,
    Fit,
    Resume,
    RetentionFloor,
    QuietUnlessChanged,
    SamplesBounded,
}

/// Which guards stand: all of them, outside of tests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Guards {
    #[cfg(test)]
    pub(crate) broken: Option<Guard>,
}

impl Guards {
    pub(crate) fn stands(self, guard: Guard) -> bool {
        #[cfg(test)]
        if self.broken == Some(guard) {
            return false;
        }
        let _ = guard;
        true
    }
}
