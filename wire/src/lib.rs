//! What travels between boxes.
//!
//! Decoders here are pure and bounded: they borrow from the bytes they are given, never panic on
//! them and never allocate more than a small multiple of their length.

pub mod jute;
pub mod kafka;
pub mod source_id;
