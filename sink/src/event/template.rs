//! sprintf: `logs-%{[service]}-%{+YYYY.MM.dd}`, parsed once.
//!
//! `%{field}` and `%{[a][b]}` stand for a value and stay as written where it is missing;
//! `%{+YYYY.MM.dd}` is the event's time by a Joda pattern, `%{{yyyy-MM-dd}}` by a java.time pattern,
//! `%{+%s}` in seconds since 1970, all in UTC; `%{{TIME_NOW}}` is the clock.

use super::{Event, FieldRef, Timestamp, Value};

/// A text with places for values of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    /// The reference, and the text to leave where it is missing.
    Field(FieldRef, Box<str>),
    Time(DateFormat),
    EpochSeconds,
    Now,
}

/// Why a template cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "date pattern \"{pattern}\" has \"{letter}\", which is no pattern letter; quote text as 'text'"
)]
pub struct TemplateError {
    pub pattern: String,
    pub letter: char,
}

impl Template {
    /// Parses; fails only on a date pattern with unknown letters.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(open) = rest.find("%{") {
            let inner = &rest[open + 2..];
            let (piece, used) = if let Some(java) = inner.strip_prefix('{') {
                let Some(close) = java.find("}}") else { break };
                let piece = match &java[..close] {
                    "TIME_NOW" => Piece::Now,
                    pattern => Piece::Time(DateFormat::java(pattern)?),
                };
                (piece, close + 3)
            } else {
                let Some(close) = inner.find('}') else { break };
                let name = &inner[..close];
                let piece = match name.strip_prefix('+') {
                    Some("%s") => Some(Piece::EpochSeconds),
                    Some(pattern) => Some(Piece::Time(DateFormat::joda(pattern)?)),
                    None => FieldRef::parse(name)
                        .ok()
                        .map(|field| Piece::Field(field, format!("%{{{name}}}").into())),
                };
                match piece {
                    Some(piece) => (piece, close + 1),
                    None => {
                        literal.push_str(&rest[..open + 2]);
                        rest = inner;
                        continue;
                    }
                }
            };
            literal.push_str(&rest[..open]);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(piece);
            rest = &inner[used..];
        }
        literal.push_str(rest);
        if !literal.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// A template without places.
    pub fn literal(text: &str) -> Self {
        Self { pieces: Box::new([Piece::Literal(text.into())]) }
    }

    /// The text, if it does not depend on the event.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.pieces {
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the result depends on anything but the event's fields and time.
    pub fn uses_clock(&self) -> bool {
        self.pieces.contains(&Piece::Now)
    }

    /// Appends the text for `event`. Returns whether every field it names was there.
    pub fn render(&self, event: &Event, out: &mut String) -> bool {
        let mut is_resolved = true;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Field(field, unresolved) => match event.get(field) {
                    None | Some(Value::Null) => {
                        is_resolved = false;
                        out.push_str(unresolved);
                    }
                    Some(value) => value.write_text(out),
                },
                Piece::Time(format) => {
                    if let Some(time) = event.timestamp() {
                        format.write(time, out);
                    }
                }
                Piece::EpochSeconds => {
                    if let Some(time) = event.timestamp() {
                        out.push_str(&time.seconds.to_string());
                    }
                }
                Piece::Now => out.push_str(&Timestamp::now().to_string()),
            }
        }
        is_resolved
    }

    /// The text for `event`.
    pub fn to_text(&self, event: &Event) -> String {
        let mut out = String::new();
        self.render(event, &mut out);
        out
    }
}

/// A date pattern for writing, in UTC and English.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateFormat {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Item(Item, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Era,
    Century,
    Year,
    WeekYear,
    Week,
    WeekdayNumber,
    WeekdayName,
    DayOfYear,
    Month,
    Quarter,
    Day,
    HalfDay,
    /// 0–11, 1–12, 0–23, 1–24.
    Hour0To11,
    Hour1To12,
    Hour0To23,
    Hour1To24,
    Minute,
    Second,
    Fraction,
    ZoneName,
    /// `+0000`; three letters and more: `UTC`.
    ZoneOffset,
    /// `Z`.
    ZoneIso,
}

pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(crate) const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The runs of equal letters and the literal texts of a Joda or java.time pattern, in order.
pub(crate) fn pattern_runs(pattern: &str) -> Vec<Result<(char, usize), String>> {
    let mut runs: Vec<Result<(char, usize), String>> = Vec::new();
    let literal = |runs: &mut Vec<_>, text: &str| match runs.last_mut() {
        Some(Err(held)) => String::push_str(held, text),
        _ => runs.push(Err(text.to_owned())),
    };
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            if chars.next_if_eq(&'\'').is_some() {
                literal(&mut runs, "'");
                continue;
            }
            // Quoted text, in which '' is a quote.
            while let Some(c) = chars.next() {
                if c != '\'' {
                    literal(&mut runs, c.encode_utf8(&mut [0; 4]));
                } else if chars.next_if_eq(&'\'').is_some() {
                    literal(&mut runs, "'");
                } else {
                    break;
                }
            }
        } else if c.is_ascii_alphabetic() {
            let mut count = 1;
            while chars.next_if_eq(&c).is_some() {
                count += 1;
            }
            runs.push(Ok((c, count)));
        } else {
            literal(&mut runs, c.encode_utf8(&mut [0; 4]));
        }
    }
    runs
}

impl DateFormat {
    /// A Joda-Time pattern, as in `%{+YYYY.MM.dd}`.
    pub fn joda(pattern: &str) -> Result<Self, TemplateError> {
        Self::compile(pattern, |letter| {
            Some(match letter {
                'G' => Item::Era,
                'C' => Item::Century,
                'Y' | 'y' => Item::Year,
                'x' => Item::WeekYear,
                'w' => Item::Week,
                'e' => Item::WeekdayNumber,
                'E' => Item::WeekdayName,
                'Z' => Item::ZoneOffset,
                letter => return Self::shared(letter),
            })
        })
    }

    /// A java.time pattern, as in `%{{yyyy-MM-dd}}`.
    pub fn java(pattern: &str) -> Result<Self, TemplateError> {
        Self::compile(pattern, |letter| {
            Some(match letter {
                'G' => Item::Era,
                'u' | 'y' => Item::Year,
                'Y' => Item::WeekYear,
                'w' => Item::Week,
                'e' | 'c' => Item::WeekdayNumber,
                'E' => Item::WeekdayName,
                'L' => Item::Month,
                'Q' | 'q' => Item::Quarter,
                'x' | 'Z' => Item::ZoneOffset,
                'X' => Item::ZoneIso,
                'V' | 'v' | 'O' => Item::ZoneName,
                'n' => Item::Fraction,
                letter => return Self::shared(letter),
            })
        })
    }

    fn shared(letter: char) -> Option<Item> {
        Some(match letter {
            'D' => Item::DayOfYear,
            'M' => Item::Month,
            'd' => Item::Day,
            'a' => Item::HalfDay,
            'K' => Item::Hour0To11,
            'h' => Item::Hour1To12,
            'H' => Item::Hour0To23,
            'k' => Item::Hour1To24,
            'm' => Item::Minute,
            's' => Item::Second,
            'S' => Item::Fraction,
            'z' => Item::ZoneName,
            _ => return None,
        })
    }

    fn compile(
        pattern: &str,
        item_of: impl Fn(char) -> Option<Item>,
    ) -> Result<Self, TemplateError> {
        let parts = pattern_runs(pattern).into_iter().map(|run| match run {
            Err(text) => Ok(Part::Literal(text.into())),
            Ok((letter, count)) => match item_of(letter) {
                Some(item) => Ok(Part::Item(item, count)),
                None => Err(TemplateError { pattern: pattern.to_owned(), letter }),
            },
        });
        Ok(Self { parts: parts.collect::<Result<_, _>>()? })
    }

    /// Appends `time` by the pattern.
    pub fn write(&self, time: Timestamp, out: &mut String) {
        let civil = time.civil();
        for part in &self.parts {
            let (item, count) = match part {
                Part::Literal(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Item(item, count) => (*item, *count),
            };
            let mut number = |value: i64| write_padded(out, value, count);
            let name = |name: &str, out: &mut String| {
                out.push_str(if count >= 4 { name } else { &name[..3] });
            };
            match item {
                Item::Era => out.push_str(if civil.year > 0 { "AD" } else { "BC" }),
                Item::Century => number(civil.year / 100),
                Item::Year if count == 2 => number(civil.year.rem_euclid(100)),
                Item::Year => number(civil.year),
                Item::WeekYear if count == 2 => number(week(&civil).0.rem_euclid(100)),
                Item::WeekYear => number(week(&civil).0),
                Item::Week => number(week(&civil).1),
                Item::WeekdayNumber => number(i64::from(civil.weekday)),
                Item::WeekdayName => name(WEEKDAYS[civil.weekday as usize - 1], out),
                Item::DayOfYear => number(i64::from(civil.day_of_year)),
                Item::Month if count >= 3 => name(MONTHS[civil.month as usize - 1], out),
                Item::Month => number(i64::from(civil.month)),
                Item::Quarter => number(i64::from(civil.month.div_ceil(3))),
                Item::Day => number(i64::from(civil.day)),
                Item::HalfDay => out.push_str(if civil.hour < 12 { "AM" } else { "PM" }),
                Item::Hour0To11 => number(i64::from(civil.hour % 12)),
                Item::Hour1To12 => number(i64::from((civil.hour + 11) % 12 + 1)),
                Item::Hour0To23 => number(i64::from(civil.hour)),
                Item::Hour1To24 => number(i64::from((civil.hour + 23) % 24 + 1)),
                Item::Minute => number(i64::from(civil.minute)),
                Item::Second => number(i64::from(civil.second)),
                Item::Fraction => {
                    let nanos = format!("{:09}", time.nanos);
                    for i in 0..count {
                        out.push(nanos.as_bytes().get(i).map_or('0', |digit| char::from(*digit)));
                    }
                }
                Item::ZoneName => out.push_str("UTC"),
                Item::ZoneOffset if count == 1 => out.push_str("+0000"),
                Item::ZoneOffset if count == 2 => out.push_str("+00:00"),
                Item::ZoneOffset => out.push_str("UTC"),
                Item::ZoneIso => out.push('Z'),
            }
        }
    }
}

fn write_padded(out: &mut String, value: i64, width: usize) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push('-');
    }
    out.extend(std::iter::repeat_n('0', width.saturating_sub(digits.len())));
    out.push_str(&digits);
}

/// Year and week by ISO 8601: weeks begin on Monday, the first holds the year's first Thursday.
fn week(civil: &super::Civil) -> (i64, i64) {
    let weeks_in = |year: i64| {
        let first = super::days_from_civil(year, 1, 1) + 3;
        // Monday is 0.
        let weekday = first.rem_euclid(7);
        let is_leap = super::days_in_month(year, 2) == 29;
        if weekday == 3 || (weekday == 2 && is_leap) { 53 } else { 52 }
    };
    let week = (i64::from(civil.day_of_year) - i64::from(civil.weekday) + 10) / 7;
    if week < 1 {
        (civil.year - 1, weeks_in(civil.year - 1))
    } else if week > weeks_in(civil.year) {
        (civil.year + 1, 1)
    } else {
        (civil.year, week)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, wanted: &str) {
        let event = Event::from_json(
            br#"{"@timestamp":"2025-12-31T07:08:09.012Z","a":"x","n":3,"f":1.5,"t":true,"o":{"b":[1,"two"]},"nil":null}"#,
            Timestamp::default(),
        )
        .unwrap();
        assert_eq!(Template::parse(template).unwrap().to_text(&event), wanted, "{template}");
    }

    #[test]
    fn fields_are_put_in_and_missing_ones_left_as_written() {
        check("plain", "plain");
        check("%{a}-%{n}-%{f}-%{t}", "x-3-1.5-true");
        check("%{[o][b]}", "1,two");
        check("%{o}", r#"{"b":[1,"two"]}"#);
        check("%{[o][b][1]} %{[o][b][-1]}", "two two");
        check("%{missing} %{nil} %{", "%{missing} %{nil} %{");
        check("100% %{a", "100% %{a");
        check("%{a[b]}", "%{a[b]}");
        check("%{@timestamp}", "2025-12-31T07:08:09.012Z");
    }

    #[test]
    fn times_follow_joda_and_java_patterns() {
        check("logs-%{+YYYY.MM.dd}", "logs-2025.12.31");
        check("%{+yyyy-MM-dd'T'HH:mm:ss.SSSZ}", "2025-12-31T07:08:09.012+0000");
        check("%{+xxxx-'W'ww-e}", "2026-W01-3");
        check("%{+EEE EEEE MMM MMMM yy D d H h a}", "Wed Wednesday Dec December 25 365 31 7 7 AM");
        check("%{+%s}", "1767164889");
        check("%{{yyyy-MM-dd}}", "2025-12-31");
        check("%{{YYYY-'W'ww}} %{{Q}}", "2026-W01 4");
        assert_eq!(Template::parse("%{+bb}").unwrap_err().letter, 'b');
    }
}
