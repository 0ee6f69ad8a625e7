//! `convert`: texts and numbers from one type to another, as Logstash since 8.14 does: a text that is
//! no number is a failure.

use crate::event::{Datum, Event, NodeId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Integer,
    Float,
    Boolean,
    /// `1.000,5`: points group, a comma is the decimal sign.
    IntegerEu,
    FloatEu,
}

/// The value cannot be converted.
pub(super) struct Unconvertible;

impl Type {
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "string" => Self::String,
            "integer" => Self::Integer,
            "float" => Self::Float,
            "boolean" => Self::Boolean,
            "integer_eu" => Self::IntegerEu,
            "float_eu" => Self::FloatEu,
            other => {
                let names = ["string", "integer", "float", "boolean", "integer_eu", "float_eu"];
                let hint = elkfk_base::mistakes::did_you_mean(other, names);
                return Err(format!(
                    "cannot convert to \"{other}\"{hint}; there are {}",
                    names.join(", ")
                ));
            }
        })
    }

    /// Converts a scalar; null stays.
    pub(super) fn apply(self, event: &mut Event, id: NodeId) -> Result<(), Unconvertible> {
        let datum = event.datum(id);
        if matches!(datum, Datum::Null | Datum::Object(_) | Datum::Array(_)) {
            return Ok(());
        }
        let number = || {
            let text = event.view(id).to_text().unwrap_or_default();
            let text = match self {
                Self::IntegerEu | Self::FloatEu if matches!(datum, Datum::Text(_)) => text
                    .chars()
                    .map(|c| match c {
                        ',' => '.',
                        '.' => ',',
                        c => c,
                    })
                    .collect(),
                _ => text.into_owned(),
            };
            text.trim().replace(',', "").to_ascii_lowercase()
        };
        let converted = match (self, datum) {
            (Self::String, Datum::Text(_)) => datum,
            (Self::String, _) => Datum::Text(event.span_of_text(id)),
            (Self::Boolean, _) => boolean(event, id),
            (Self::Integer | Self::IntegerEu, Datum::Int(_) | Datum::BigNumber(_)) => datum,
            (Self::Integer | Self::IntegerEu, Datum::Bool(b)) => Datum::Int(i64::from(b)),
            (Self::Integer | Self::IntegerEu, Datum::Float(float)) => Datum::Int(float as i64),
            (Self::Integer | Self::IntegerEu, _) => integer(event, &number())?,
            (Self::Float | Self::FloatEu, Datum::Float(_)) => datum,
            (Self::Float | Self::FloatEu, Datum::Int(int)) => Datum::Float(int as f64),
            (Self::Float | Self::FloatEu, Datum::Bool(b)) => Datum::Float(f64::from(u8::from(b))),
            (Self::Float | Self::FloatEu, _) => {
                Datum::Float(float(&number()).ok_or(Unconvertible)?)
            }
        };
        event.nodes[id as usize].datum = converted;
        Ok(())
    }
}

/// A word that is neither yes nor no stays as it is.
fn boolean(event: &Event, id: NodeId) -> Datum {
    let text = event.view(id).to_text().unwrap_or_default();
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" | "1.0" => Datum::Bool(true),
        "" | "false" | "f" | "no" | "n" | "0" | "0.0" => Datum::Bool(false),
        _ => event.datum(id),
    }
}

fn integer(event: &mut Event, text: &str) -> Result<Datum, Unconvertible> {
    if let Ok(int) = text.parse() {
        return Ok(Datum::Int(int));
    }
    let float = float(text).ok_or(Unconvertible)?;
    if float.abs() < 9.0e18 {
        return Ok(Datum::Int(float as i64));
    }
    let digits = text.trim_start_matches('+');
    let is_whole = digits.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    let text = if is_whole { digits.to_owned() } else { format!("{float:.0}") };
    Ok(Datum::BigNumber(event.push_text(&text)))
}

/// A decimal or, with `0x` before it, hexadecimal number; no other text after it.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = unsigned.strip_prefix("0x") {
        let value = u64::from_str_radix(hex, 16).ok()? as f64;
        return Some(if text.starts_with('-') { -value } else { value });
    }
    // Rust reads "inf" and "nan" too, Ruby does not.
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    is_number.then(|| text.parse().ok().filter(|float: &f64| float.is_finite())).flatten()
}
