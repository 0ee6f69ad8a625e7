//! What the sink promises about each record, decided without I/O.
//!
//! [`acks`] knows which records are still outstanding and how far a partition may be committed;
//! [`bulk`] knows which documents to send when, and what an answer means for each of them;
//! [`budget`] counts the bytes held meanwhile. No clock, no socket, no randomness of its own.

pub mod acks;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod bulk;
pub mod chunk;
pub mod concurrency;
pub mod salvage;
pub mod verdict;

#[cfg(test)]
mod simulation;
