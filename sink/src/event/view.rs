//! A value of an event, borrowed.

use std::{borrow::Cow, fmt::Write};

use super::{Datum, Event, NodeId, Timestamp};

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A number beyond both types, as its JSON text.
    BigNumber(&'a str),
    Text(&'a str),
    Time(Timestamp),
    Array(Children<'a>),
    Object(Children<'a>),
}

/// The elements of an array, or the fields of an object, in order.
#[derive(Debug, Clone, Copy)]
pub struct Children<'a> {
    event: &'a Event,
    parent: NodeId,
}

impl<'a> Children<'a> {
    /// The values, without names.
    pub fn values(self) -> impl Iterator<Item = Value<'a>> {
        self.event.children(self.parent).map(move |id| self.event.view(id))
    }

    /// The names, empty in an array, and values.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.event.children(self.parent).map(move |id| {
            let node = &self.event.nodes[id as usize];
            (self.event.str_at(node.key), self.event.view(id))
        })
    }

    /// Whether the object has a field of this name.
    pub fn has(self, name: &str) -> bool {
        self.event.child(self.parent, name).is_some()
    }

    pub fn is_empty(self) -> bool {
        self.event.children(self.parent).next().is_none()
    }
}

impl Event {
    pub(crate) fn view(&self, id: NodeId) -> Value<'_> {
        let children = Children { event: self, parent: id };
        match self.nodes[id as usize].datum {
            Datum::Null => Value::Null,
            Datum::Bool(b) => Value::Bool(b),
            Datum::Int(int) => Value::Int(int),
            Datum::Float(float) => Value::Float(float),
            Datum::BigNumber(span) => Value::BigNumber(self.str_at(span)),
            Datum::Text(span) => Value::Text(self.str_at(span)),
            Datum::Time(seconds, nanos) => Value::Time(Timestamp { seconds, nanos }),
            Datum::Array(_) => Value::Array(children),
            Datum::Object(_) => Value::Object(children),
        }
    }
}

impl<'a> Value<'a> {
    /// As sprintf writes it: an array joined by commas, an object as JSON; `None` for null.
    pub fn to_text(self) -> Option<Cow<'a, str>> {
        match self {
            Value::Null => None,
            Value::Text(text) | Value::BigNumber(text) => Some(Cow::Borrowed(text)),
            Value::Bool(b) => Some(Cow::Borrowed(if b { "true" } else { "false" })),
            other => {
                let mut out = String::new();
                other.write_text(&mut out);
                Some(Cow::Owned(out))
            }
        }
    }

    /// Appends what [`Value::to_text`] gives; nothing for null.
    pub fn write_text(self, out: &mut String) {
        match self {
            Value::Null => {}
            Value::Bool(b) => out.push_str(if b { "true" } else { "false" }),
            Value::Int(int) => write_infallible(out, format_args!("{int}")),
            Value::Float(float) => write_infallible(out, format_args!("{float:?}")),
            Value::BigNumber(text) | Value::Text(text) => out.push_str(text),
            Value::Time(time) => write_infallible(out, format_args!("{time}")),
            Value::Array(children) => {
                for (i, value) in children.values().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write_text(out);
                }
            }
            Value::Object(_) => out.push_str(&self.to_json()),
        }
    }

    /// The value as JSON text.
    pub fn to_json(self) -> String {
        let mut out = Vec::new();
        super::json_out::write_value(&mut out, self);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The number it is, if it is one.
    pub fn as_number(self) -> Option<f64> {
        match self {
            Value::Int(int) => Some(int as f64),
            Value::Float(float) => Some(float),
            Value::BigNumber(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Whether a condition on the bare field holds: neither missing, null nor false.
    pub fn is_truthy(self) -> bool {
        !matches!(self, Value::Null | Value::Bool(false))
    }
}

fn write_infallible(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(args);
}
