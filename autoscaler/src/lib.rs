//! Decides what to do about a backlog: nothing, most of the time.
//!
//! [`ladder`] is the core that decides: it is given the time and what was observed, and answers with
//! events, some of which carry an action. [`shell`] measures a real cluster, writes the events to a topic
//! and performs the actions. [`simulate`] runs that very core in virtual time on a model of a cluster and
//! a sink, with two common policies beside it.

pub mod ladder;
pub mod shell;
pub mod simulate;

pub use ladder::{Event, Ladder, Mode, Observation, Parameters};
pub use shell::{Config, Running, Settings, StartError, start};
