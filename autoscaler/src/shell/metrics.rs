//! Every metric of the box.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntGauge, register_int_counter, register_int_gauge};

fn counter(name: &str, help: &str) -> IntCounter {
    register_int_counter!(name, help).expect("the name is registered once")
}

pub(crate) static DECIDING: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("elkfk_autoscaler_deciding", "1 where this instance decides.")
        .expect("the name is registered once")
});
pub(crate) static ROUNDS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_autoscaler_rounds_total", "Looks at the whole cluster."));
pub(crate) static FAILED_ROUNDS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "elkfk_autoscaler_failed_rounds_total",
        "Rounds in which the cluster or the lock could not be asked.",
    )
});
pub(crate) static EVENTS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_autoscaler_events_total", "Decisions and effects written."));
pub(crate) static ACTIONS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_autoscaler_actions_total", "Steps carried out."));
pub(crate) static FAILED_ACTIONS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_autoscaler_failed_actions_total", "Steps that could not be carried out.")
});
