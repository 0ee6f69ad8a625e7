//! What a request asks for: its parameters, and the page of a table that they name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::Value;

use crate::api::Problem;

/// Rows of one answer; more would freeze the page that shows them.
pub(crate) const LIMIT_MAX: usize = 500;
const LIMIT: usize = 100;
/// More rows than any table has.
const OFFSET_MAX: usize = u32::MAX as usize;
/// Of a value that is wrong and told back.
const VALUE_CHARS_MAX: usize = 100;

/// The parameters of a request, decoded.
#[derive(Debug, Default)]
pub(crate) struct Params(pub(crate) Vec<(String, String)>);

impl Params {
    /// Of `a=1&b=%20x`; `+` is a space, as forms write it.
    pub(crate) fn of(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        });
        Self(pairs.collect())
    }

    /// Empty where it is not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// `None` where it is not given, or empty.
    ///
    /// # Errors
    /// What is no number, or none of `allowed`, with what is.
    pub(crate) fn number<T>(
        &self,
        name: &str,
        allowed: RangeInclusive<T>,
    ) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + Display,
    {
        let (from, to) = (allowed.start(), allowed.end());
        self.parsed(name, &allowed, || format!("a whole number from {from} to {to}"))
    }

    /// A time, as [`Params::number`] reads numbers.
    pub(crate) fn time_ms(&self, name: &str) -> Result<Option<i64>, Problem> {
        let allowed = i64::MIN..=i64::MAX;
        self.parsed(name, &allowed, || "a time in whole milliseconds since 1970".to_owned())
    }

    fn parsed<T: FromStr + PartialOrd>(
        &self,
        name: &str,
        allowed: &RangeInclusive<T>,
        expected: impl Fn() -> String,
    ) -> Result<Option<T>, Problem> {
        let text = self.text(name).trim();
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        let wrong = || {
            let shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
            Problem::wrong(format!("{name}={shown:?} is not {}", expected()))
        };
        number.map(Some).ok_or_else(wrong)
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        matches!(self.text(name), "1" | "true" | "yes")
    }

    /// # Errors
    /// As [`Params::number`].
    pub(crate) fn page(&self) -> Result<Page, Problem> {
        Ok(Page {
            sort: self.text("sort").to_owned(),
            is_descending: self.is_set("desc"),
            offset: self.number("offset", 0..=OFFSET_MAX)?.unwrap_or(0),
            limit: self.limit()?,
            wanted: self.text("q").trim().to_lowercase(),
        })
    }

    /// # Errors
    /// As [`Params::number`].
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        Ok(self.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT))
    }
}

/// Which rows of a table.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) sort: String,
    pub(crate) is_descending: bool,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    /// In lower case; empty wants all.
    pub(crate) wanted: String,
}

/// What rows are sorted by. An unknown value comes last, whichever way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Key {
    Unknown,
    Number(f64),
    Text(String),
}

impl From<Option<f64>> for Key {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::Unknown, Self::Number)
    }
}

impl Key {
    fn order(&self, other: &Self, is_descending: bool) -> std::cmp::Ordering {
        let order = match (self, other) {
            (Self::Unknown, Self::Unknown) => return std::cmp::Ordering::Equal,
            (Self::Unknown, _) => return std::cmp::Ordering::Greater,
            (_, Self::Unknown) => return std::cmp::Ordering::Less,
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => std::cmp::Ordering::Less,
            (Self::Text(_), Self::Number(_)) => std::cmp::Ordering::Greater,
        };
        if is_descending { order.reverse() } else { order }
    }
}

impl Page {
    pub(crate) fn wants(&self, text: &str) -> bool {
        self.wanted.is_empty() || text.to_lowercase().contains(&self.wanted)
    }

    /// The rows of this page, sorted by `key`; rows that are equal in it keep their order. Only they
    /// are written by `row`.
    pub(crate) fn cut<T>(
        &self,
        rows: Vec<T>,
        key: impl Fn(&T) -> Key,
        mut row: impl FnMut(T) -> Value,
    ) -> Value {
        let total = rows.len();
        let mut keyed: Vec<(Key, T)> = rows.into_iter().map(|row| (key(&row), row)).collect();
        keyed.sort_by(|(a, _), (b, _)| a.order(b, self.is_descending));
        let rows: Vec<Value> =
            keyed.into_iter().skip(self.offset).take(self.limit).map(|(_, it)| row(it)).collect();
        serde_json::json!({"total": total, "rows": rows})
    }
}

fn percent_decode(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_never_fail() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            Params::of("q=a%20b+c&&x=%zz%4&y").0,
            [pair("q", "a b c"), pair("x", "%zz%4"), pair("y", "")]
        );
        assert_eq!(Params::of("q=%ff%C3%A9").0, [pair("q", "\u{fffd}é")]);
    }

    #[test]
    fn a_page_is_sorted_cut_and_leaves_the_unknown_last() {
        let rows = || vec![Some(2.0), None, Some(3.0), Some(1.0)];
        let cut = |query: &str| {
            let page = Params::of(query).page().unwrap();
            let cut = page.cut(rows(), |row| Key::from(*row), |row| row.into());
            assert_eq!(cut["total"], 4);
            cut["rows"].to_string()
        };
        assert_eq!(cut(""), "[1.0,2.0,3.0,null]");
        assert_eq!(cut("desc=1"), "[3.0,2.0,1.0,null]");
        assert_eq!(cut("desc=1&offset=1&limit=2"), "[2.0,1.0]");
        assert_eq!(cut("offset=9"), "[]");
        assert_eq!(Params::of("limit=500").page().unwrap().limit, LIMIT_MAX);
    }

    #[test]
    fn a_number_that_is_none_is_told_with_what_is_allowed() {
        let told = |query: &str| {
            let problem = Params::of(query).page().unwrap_err();
            assert_eq!(problem.status, hyper::StatusCode::BAD_REQUEST);
            problem.text
        };
        let limit = "is not a whole number from 1 to 500";
        for value in ["ten", "0", "501", "-1", "1.5", "1e2", "99999999999999999999"] {
            assert_eq!(told(&format!("limit={value}")), format!("limit={value:?} {limit}"));
        }
        assert_eq!(told("offset=-1"), "offset=\"-1\" is not a whole number from 0 to 4294967295");
        assert_eq!(told(&format!("limit={}", "x".repeat(9_999))).len(), 100 + 9 + limit.len());
        let time = |query: &str| Params::of(query).time_ms("from_ms").map_err(|told| told.text);
        assert_eq!(time("from_ms=-5"), Ok(Some(-5)));
        assert_eq!((time("from_ms="), time("")), (Ok(None), Ok(None)));
        assert_eq!(
            time("from_ms=now"),
            Err("from_ms=\"now\" is not a time in whole milliseconds since 1970".to_owned())
        );
    }
}
