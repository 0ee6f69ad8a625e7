//! Conditions compiled to what an event can be asked quickly.
//!
//! As in Logstash: a missing field is in nothing, holds nothing and orders against nothing; numbers
//! and texts never equal each other; a bare field holds unless missing, null, false, "" or "false".

use std::cmp::Ordering;

use elkfk_base::Mistakes;

use super::ast::{Comparison, Condition, Operand};
use crate::{
    event::{Event, FieldRef, Value},
    filter::regex::Pattern,
};

/// A condition ready to be asked.
#[derive(Debug)]
pub enum Predicate {
    Constant(bool),
    And(Box<Predicate>, Box<Predicate>),
    Or(Box<Predicate>, Box<Predicate>),
    Xor(Box<Predicate>, Box<Predicate>),
    Not(Box<Predicate>),
    Truthy(FieldRef),
    /// The commonest question of all: a text field against a constant.
    TextIs(FieldRef, Box<str>),
    Compare(Term, Comparison, Term),
    Matches(FieldRef, Box<Pattern>),
    In(Term, Term),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    Field(FieldRef),
    Text(Box<str>),
    Int(i64),
    Float(f64),
    Array(Box<[Term]>),
}

impl Predicate {
    /// Compiles; notes regular expressions that are none.
    pub fn compile(condition: &Condition, mistakes: &mut Mistakes) -> Self {
        match condition {
            Condition::And(left, right) => {
                Self::And(Self::boxed(left, mistakes), Self::boxed(right, mistakes))
            }
            Condition::Or(left, right) => {
                Self::Or(Self::boxed(left, mistakes), Self::boxed(right, mistakes))
            }
            Condition::Xor(left, right) => {
                Self::Xor(Self::boxed(left, mistakes), Self::boxed(right, mistakes))
            }
            Condition::Nand(left, right) => Self::Not(Box::new(Self::And(
                Self::boxed(left, mistakes),
                Self::boxed(right, mistakes),
            ))),
            Condition::Not(inner) => Self::Not(Self::boxed(inner, mistakes)),
            Condition::Truthy(Operand::Field(field)) => Self::Truthy(field.clone()),
            Condition::Truthy(Operand::Text(text)) => Self::Constant(is_truthy_text(text)),
            Condition::Truthy(_) => Self::Constant(true),
            Condition::Compare(Operand::Field(field), Comparison::Equal, Operand::Text(text))
            | Condition::Compare(Operand::Text(text), Comparison::Equal, Operand::Field(field)) => {
                Self::TextIs(field.clone(), text.as_str().into())
            }
            Condition::Compare(left, comparison, right) => {
                Self::Compare(Term::compile(left), *comparison, Term::compile(right))
            }
            Condition::In(left, right) => Self::In(Term::compile(left), Term::compile(right)),
            Condition::Matches(left, pattern, place) => match Pattern::new(pattern) {
                Ok(pattern) => match left {
                    Operand::Field(field) => Self::Matches(field.clone(), Box::new(pattern)),
                    Operand::Text(text) => Self::Constant(pattern.is_match(text)),
                    _ => Self::Constant(false),
                },
                Err(error) => {
                    mistakes.push(
                        place.mistake(format!("\"{pattern}\" is no regular expression: {error}")),
                    );
                    Self::Constant(false)
                }
            },
        }
    }

    fn boxed(condition: &Condition, mistakes: &mut Mistakes) -> Box<Self> {
        Box::new(Self::compile(condition, mistakes))
    }

    /// The answer for `event`.
    pub fn holds(&self, event: &Event) -> bool {
        match self {
            Self::Constant(value) => *value,
            Self::And(left, right) => left.holds(event) && right.holds(event),
            Self::Or(left, right) => left.holds(event) || right.holds(event),
            Self::Xor(left, right) => left.holds(event) != right.holds(event),
            Self::Not(inner) => !inner.holds(event),
            Self::Truthy(field) => event.get(field).is_some_and(is_truthy),
            Self::TextIs(field, text) => {
                matches!(event.get(field), Some(Value::Text(held)) if *held == **text)
            }
            Self::Matches(field, pattern) => {
                matches!(event.get(field), Some(Value::Text(text)) if pattern.is_match(text))
            }
            Self::Compare(left, comparison, right) => {
                let (left, right) = (left.value(event), right.value(event));
                match comparison {
                    Comparison::Equal => are_equal(left, right),
                    Comparison::NotEqual => !are_equal(left, right),
                    Comparison::Less => order(left, right) == Some(Ordering::Less),
                    Comparison::Greater => order(left, right) == Some(Ordering::Greater),
                    Comparison::LessOrEqual => {
                        order(left, right).is_some_and(|order| order != Ordering::Greater)
                    }
                    Comparison::GreaterOrEqual => {
                        order(left, right).is_some_and(|order| order != Ordering::Less)
                    }
                }
            }
            Self::In(left, right) => is_in(left.value(event), right, event),
        }
    }
}

impl Term {
    fn compile(operand: &Operand) -> Self {
        match operand {
            Operand::Text(text) => Self::Text(text.as_str().into()),
            Operand::Int(int) => Self::Int(*int),
            Operand::Float(float) => Self::Float(*float),
            Operand::Field(field) => Self::Field(field.clone()),
            Operand::Array(values) => Self::Array(values.iter().map(Self::compile).collect()),
        }
    }

    /// The value it stands for; none for a missing field and for an array written out.
    fn value<'a>(&'a self, event: &'a Event) -> Option<Value<'a>> {
        match self {
            Self::Field(field) => event.get(field),
            Self::Text(text) => Some(Value::Text(text)),
            Self::Int(int) => Some(Value::Int(*int)),
            Self::Float(float) => Some(Value::Float(*float)),
            Self::Array(_) => None,
        }
    }
}

fn is_truthy(value: Value<'_>) -> bool {
    match value {
        Value::Text(text) => is_truthy_text(text),
        other => other.is_truthy(),
    }
}

fn is_truthy_text(text: &str) -> bool {
    !text.is_empty() && text != "false"
}

/// Equality between values of one kind; integers equal floats of the same value, as in Ruby.
fn are_equal(left: Option<Value<'_>>, right: Option<Value<'_>>) -> bool {
    match (left, right) {
        (None | Some(Value::Null), None | Some(Value::Null)) => true,
        (Some(Value::Text(left)), Some(Value::Text(right))) => left == right,
        (Some(Value::Int(left)), Some(Value::Int(right))) => left == right,
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => left == right,
        (Some(Value::Time(left)), Some(Value::Time(right))) => left == right,
        (Some(left @ (Value::Array(_) | Value::Object(_))), Some(right)) => {
            left.to_json() == right.to_json()
        }
        (Some(left), Some(right)) => match (left.as_number(), right.as_number()) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        },
        _ => false,
    }
}

fn order(left: Option<Value<'_>>, right: Option<Value<'_>>) -> Option<Ordering> {
    match (left?, right?) {
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(&right)),
        (Value::Time(left), Value::Time(right)) => Some(left.cmp(&right)),
        (left, right) => left.as_number()?.partial_cmp(&right.as_number()?),
    }
}

fn is_in(left: Option<Value<'_>>, right: &Term, event: &Event) -> bool {
    let Some(left) = left.filter(|left| !matches!(left, Value::Null)) else { return false };
    match right {
        // Against an array written out, values are compared by their text.
        Term::Array(values) => left.to_text().is_some_and(|left| {
            values.iter().any(|value| {
                value.value(event).and_then(Value::to_text).is_some_and(|value| value == left)
            })
        }),
        Term::Text(text) => matches!(left, Value::Text(left) if text.contains(left)),
        Term::Int(_) | Term::Float(_) => are_equal(Some(left), right.value(event)),
        Term::Field(field) => match (left, event.get(field)) {
            (_, None) | (Value::Array(_) | Value::Object(_), _) => false,
            (Value::Text(left), Some(Value::Text(right))) => right.contains(left),
            (Value::Text(left), Some(Value::Object(fields))) => fields.has(left),
            (left, Some(Value::Array(values))) => {
                values.values().any(|value| are_equal(Some(left), Some(value)))
            }
            (left, right) => are_equal(Some(left), right),
        },
    }
}
