//! One module per message: `fetch_request::FetchRequest` and the structs in it, under Kafka's names.
//!
//! Generated; the tables and their notation are in `wire/schema/`. Nullable values are `Option`,
//! strings and bytes are `Cow`: borrowed after decoding, either way when encoding.

use super::Api;

#[allow(unused_imports, reason = "not every module needs all of it")]
mod prelude {
    pub(super) use std::borrow::Cow;
    pub(super) use std::ops::RangeInclusive;

    pub(super) use crate::kafka::{DecodeError, EncodeError, Message, Reader, Uuid, put};
}

include!(concat!(env!("OUT_DIR"), "/kafka_messages.rs"));
