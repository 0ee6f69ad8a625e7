//! One filter over one event, for the tests of the filters.

use serde_json::Value as Json;

use super::{Context, Filter, Verdict};
use crate::{
    event::{Event, FieldRef, Timestamp},
    pipeline::{Outcome, Pipeline},
};

/// Filter `panic`: a defect of ours, on events with the field of that name.
#[derive(Debug)]
pub(crate) struct Panic;

impl Filter for Panic {
    fn apply(&self, event: &mut Event, _context: &mut Context) -> Verdict {
        assert!(event.find(&FieldRef::top("panic")).is_none(), "asked to panic");
        Verdict::Unmatched
    }
}

/// The event that `filters` make of one.
pub(crate) fn run(filters: &str, json: &str) -> Json {
    let text = format!("filter {{ {filters} }}");
    let pipeline =
        Pipeline::parse("a.conf", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    let event = Event::from_json(json.as_bytes(), Timestamp::default()).unwrap();
    match pipeline.filter(event, &mut Context::new(Timestamp::default())) {
        Outcome::Keep(event) => serde_json::from_str(&event.to_source()).unwrap(),
        Outcome::Drop => panic!("dropped"),
    }
}

/// What `filters` make of an event, time and version left out.
pub(crate) fn check(filters: &str, json: &str, wanted: &str) {
    let mut source = run(filters, json);
    for name in ["@timestamp", "@version"] {
        source.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(source, serde_json::from_str::<Json>(wanted).unwrap(), "{filters} on {json}");
}

/// Why `filters` do not compile, the file left out.
pub(crate) fn refused(filters: &str) -> String {
    let text = format!("filter {{ {filters} }}");
    let mistakes = Pipeline::parse("a.conf", &text, &|_| None).unwrap_err();
    mistakes.to_string().replace("a.conf:", "")
}
