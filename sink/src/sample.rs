//! Runs lines of a log through a pipeline without Kafka, for `elkfk check` and the tests of pipelines.

use std::fmt::Write;

use crate::{
    event::{Event, FieldRef, Timestamp},
    filter::Context,
    pipeline::{Outcome, Pipeline},
};

/// The documents that `pipeline` makes of the lines of `sample`: one line of JSON each, an empty line
/// for an event that was dropped.
///
/// Each line becomes an event with `message`, and `[log][file][path]` where `path` is given, read at
/// `received`, which dates without a year are measured against.
pub fn run_sample(
    pipeline: &Pipeline,
    sample: &str,
    path: Option<&str>,
    received: Timestamp,
) -> String {
    let mut context = Context::new(received);
    let field = FieldRef::top("log").within("file").within("path");
    let mut out = String::new();
    for line in sample.lines() {
        let mut event = Event::from_message(line, received);
        if let Some(path) = path {
            // The event is new, so that nothing stands in the way of the path.
            let _ = event.set_text(&field, path);
        }
        if let Outcome::Keep(event) = pipeline.filter(event, &mut context) {
            out.push_str(&event.to_source());
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out);
    }
    out
}
