//! Joda-Time's patterns for reading: `dd/MMM/yyyy:HH:mm:ss Z`, compiled.
//!
//! As Joda reads: numbers may have fewer digits than letters, names are English, short or long, in
//! any case, and so is literal text; a year of two digits is the nearest within 50 years.

use jiff::tz::TimeZone;

use crate::event::{MONTHS, Timestamp, WEEKDAYS, days_from_civil, days_in_month, pattern_runs};

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Joda {
    items: Vec<Item>,
    has_year: bool,
}

#[derive(Debug)]
enum Item {
    Literal(Box<str>),
    /// A number of at most so many digits.
    Number(Part, usize),
    /// `yy`: two digits are near the present; other counts are a year as it stands, if nothing
    /// numeric follows.
    TwoDigitYear {
        is_lenient: bool,
    },
    Month,
    Weekday,
    HalfDay,
    Era,
    /// Fraction of a second, of at most so many digits.
    Fraction(usize),
    Offset,
    ZoneId,
    ZoneName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Century,
    Year,
    WeekYear,
    Week,
    Weekday,
    DayOfYear,
    Month,
    Day,
    /// 0–11, 1–12, 0–23, 1–24.
    Hour0To11,
    Hour1To12,
    Hour0To23,
    Hour1To24,
    Minute,
    Second,
}

/// What a text gave.
#[derive(Debug, Default)]
struct Parts {
    year: Option<i64>,
    week_year: Option<i64>,
    week: Option<u32>,
    weekday: Option<u32>,
    day_of_year: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
    hour: Option<u32>,
    half_day_hour: Option<u32>,
    is_pm: Option<bool>,
    minute: u32,
    second: u32,
    nanos: u32,
    is_before_christ: bool,
    zone: Option<Zone>,
}

#[derive(Debug)]
enum Zone {
    /// Seconds east of Greenwich.
    Offset(i64),
    Named(TimeZone),
}

impl Joda {
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn compile(pattern: &str) -> Result<Self, String> {
        let runs = pattern_runs(pattern);
        let mut items = Vec::with_capacity(runs.len());
        for (i, run) in runs.iter().enumerate() {
            let (letter, count) = match run {
                Err(text) => {
                    items.push(Item::Literal(text.as_str().into()));
                    continue;
                }
                Ok(run) => *run,
            };
            let before_number =
                matches!(runs.get(i + 1), Some(Ok((next, count))) if is_numeric(*next, *count));
            // Only years have no natural end, so their letters count where a number follows.
            let years = if before_number { count } else { 9 };
            items.push(match letter {
                'G' => Item::Era,
                'C' => Item::Number(Part::Century, years),
                'Y' | 'y' if count == 2 => Item::TwoDigitYear { is_lenient: !before_number },
                'Y' | 'y' => Item::Number(Part::Year, years),
                'x' => Item::Number(Part::WeekYear, years),
                'w' => Item::Number(Part::Week, 2),
                'e' => Item::Number(Part::Weekday, 1),
                'E' => Item::Weekday,
                'D' => Item::Number(Part::DayOfYear, 3),
                'M' if count >= 3 => Item::Month,
                'M' => Item::Number(Part::Month, 2),
                'd' => Item::Number(Part::Day, 2),
                'a' => Item::HalfDay,
                'K' => Item::Number(Part::Hour0To11, 2),
                'h' => Item::Number(Part::Hour1To12, 2),
                'H' => Item::Number(Part::Hour0To23, 2),
                'k' => Item::Number(Part::Hour1To24, 2),
                'm' => Item::Number(Part::Minute, 2),
                's' => Item::Number(Part::Second, 2),
                'S' => Item::Fraction(count),
                'Z' if count >= 3 => Item::ZoneId,
                'Z' => Item::Offset,
                'z' => Item::ZoneName,
                letter => {
                    return Err(format!(
                        "date pattern \"{pattern}\" has \"{letter}\", which is no pattern letter; quote text as 'text'"
                    ));
                }
            });
        }
        if items.is_empty() {
            return Err("an empty date pattern".to_owned());
        }
        Ok(Self { items, has_year: pattern.contains(['Y', 'y', 'x']) })
    }

    /// The moment a text stands for; `zone` where it names none, `now` for a year it lacks.
    pub(super) fn parse(&self, text: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let mut parts = Parts::default();
        let mut rest = text;
        for item in &self.items {
            rest = item.parse(rest, &mut parts, now)?;
        }
        if !rest.is_empty() {
            return None;
        }
        parts.moment(self.has_year, zone, now)
    }
}

fn is_numeric(letter: char, count: usize) -> bool {
    match letter {
        'c' | 'C' | 'x' | 'y' | 'Y' | 'd' | 'h' | 'H' | 'm' | 's' | 'S' | 'e' | 'D' | 'F' | 'w'
        | 'W' | 'k' | 'K' => true,
        'M' => count <= 2,
        _ => false,
    }
}

impl Item {
    /// Reads this item from the start of `text`; what is left.
    fn parse<'t>(&self, text: &'t str, parts: &mut Parts, now: Timestamp) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => {
                let start = text.get(..literal.len())?;
                start.eq_ignore_ascii_case(literal).then(|| &text[literal.len()..])
            }
            Self::Number(part, digits) => {
                let is_signed = matches!(part, Part::Year | Part::WeekYear | Part::Century);
                let (value, rest) = number(text, *digits, is_signed)?;
                parts.set(*part, value)?;
                Some(rest)
            }
            Self::TwoDigitYear { is_lenient } => {
                let most = if *is_lenient { 9 } else { 2 };
                let (value, rest) = number(text, most, *is_lenient)?;
                let is_short = text.len() - rest.len() == 2 && text.as_bytes()[0].is_ascii_digit();
                if !is_short && !is_lenient {
                    return None;
                }
                parts.year = Some(if is_short { near(value, now.civil().year) } else { value });
                Some(rest)
            }
            Self::Month => {
                let (month, rest) = name(text, &MONTHS)?;
                parts.month = Some(month);
                Some(rest)
            }
            Self::Weekday => {
                let (weekday, rest) = name(text, &WEEKDAYS)?;
                parts.weekday = Some(weekday);
                Some(rest)
            }
            Self::HalfDay => {
                let half = text.get(..2)?;
                parts.is_pm = Some(if half.eq_ignore_ascii_case("pm") {
                    true
                } else if half.eq_ignore_ascii_case("am") {
                    false
                } else {
                    return None;
                });
                Some(&text[2..])
            }
            Self::Era => {
                let era = text.get(..2)?;
                parts.is_before_christ = match era.to_ascii_uppercase().as_str() {
                    "AD" | "CE" => false,
                    "BC" => true,
                    _ => return None,
                };
                Some(&text[2..])
            }
            Self::Fraction(most) => {
                let digits = text.bytes().take(*most).take_while(u8::is_ascii_digit).count();
                let mut nanos = 0;
                for i in 0..9 {
                    let digit = if i < digits { u32::from(text.as_bytes()[i] - b'0') } else { 0 };
                    nanos = nanos * 10 + digit;
                }
                parts.nanos = nanos;
                Some(&text[digits..])
            }
            Self::Offset => {
                let (offset, rest) = offset(text)?;
                parts.zone = Some(Zone::Offset(offset));
                Some(rest)
            }
            Self::ZoneId => {
                let end = text
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "/_+-:".contains(c)))
                    .unwrap_or(text.len());
                parts.zone = Some(match offset(&text[..end]) {
                    Some((offset, "")) => Zone::Offset(offset),
                    _ => Zone::Named(TimeZone::get(&text[..end]).ok()?),
                });
                Some(&text[end..])
            }
            Self::ZoneName => {
                let (name, hours) = ZONE_NAMES.iter().find(|(name, _)| text.starts_with(name))?;
                parts.zone = Some(Zone::Offset(hours * 3600));
                Some(&text[name.len()..])
            }
        }
    }
}

/// Names Joda can read, longer ones first, with their hours east of Greenwich.
const ZONE_NAMES: [(&str, i64); 11] = [
    ("UTC", 0),
    ("GMT", 0),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
    ("UT", 0),
];

/// A number of one to `most` digits, and what is left.
fn number(text: &str, most: usize, is_signed: bool) -> Option<(i64, &str)> {
    let (is_negative, sign) = match text.as_bytes().first()? {
        b'-' if is_signed => (true, 1),
        b'+' if is_signed => (false, 1),
        _ => (false, 0),
    };
    let digits =
        text.as_bytes()[sign..].iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let end = sign + digits;
    let value: i64 = text[sign..end].parse().ok()?;
    Some((if is_negative { -value } else { value }, &text[end..]))
}

/// The place, from 1, of a name that `text` begins with: whole, else by its first three letters.
fn name<'t>(text: &'t str, names: &[&str]) -> Option<(u32, &'t str)> {
    let begins =
        |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let found = |length: Option<usize>| {
        names.iter().position(|name| begins(&name[..length.unwrap_or(name.len())])).map(|at| {
            let length = length.unwrap_or(names[at].len());
            (at as u32 + 1, &text[length..])
        })
    };
    let short = found(Some(3))?;
    // The long name is looked for only where more letters follow, which is rare.
    if short.1.starts_with(|c: char| c.is_ascii_alphabetic()) {
        found(None).or(Some(short))
    } else {
        Some(short)
    }
}

/// `Z`, `+01`, `+0130`, `+01:30`: seconds east, and what is left.
fn offset(text: &str) -> Option<(i64, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((0, rest));
    }
    let is_negative = match text.as_bytes().first()? {
        b'+' => false,
        b'-' => true,
        _ => return None,
    };
    let two = |text: &str| -> Option<i64> {
        let digits = text.get(..2)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (mut seconds, mut rest) = (two(&text[1..])? * 3600, &text[3..]);
    for unit in [60, 1] {
        let after_colon = rest.strip_prefix(':').unwrap_or(rest);
        let Some(value) = two(after_colon) else { break };
        if value > 59 {
            return None;
        }
        seconds += value * unit;
        rest = &after_colon[2..];
    }
    (seconds <= 24 * 3600).then_some((if is_negative { -seconds } else { seconds }, rest))
}

/// The year ending in these two digits that is nearest to 20 years from now, as Joda's default pivot
/// of 30 years back means.
fn near(two_digits: i64, now: i64) -> i64 {
    let low = now - 30 - 50;
    low + (two_digits - low).rem_euclid(100)
}

impl Parts {
    /// None where the value is out of range.
    fn set(&mut self, part: Part, value: i64) -> Option<()> {
        let within = |low: u32, high: u32| {
            let value = u32::try_from(value).ok()?;
            (low..=high).contains(&value).then_some(value)
        };
        match part {
            Part::Century => self.year = Some(value.checked_mul(100)?),
            Part::Year => self.year = Some(value),
            Part::WeekYear => self.week_year = Some(value),
            Part::Week => self.week = Some(within(1, 53)?),
            Part::Weekday => self.weekday = Some(within(1, 7)?),
            Part::DayOfYear => self.day_of_year = Some(within(1, 366)?),
            Part::Month => self.month = Some(within(1, 12)?),
            Part::Day => self.day = Some(within(1, 31)?),
            Part::Hour0To11 => self.half_day_hour = Some(within(0, 11)?),
            Part::Hour1To12 => self.half_day_hour = Some(within(1, 12)? % 12),
            Part::Hour0To23 => self.hour = Some(within(0, 23)?),
            Part::Hour1To24 => self.hour = Some(within(1, 24)? % 24),
            Part::Minute => self.minute = within(0, 59)?,
            Part::Second => self.second = within(0, 59)?,
        }
        Some(())
    }

    fn moment(self, has_year: bool, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let zone = match self.zone.as_ref() {
            Some(Zone::Offset(offset)) => Err(*offset),
            Some(Zone::Named(zone)) => Ok(zone),
            None => Ok(zone),
        };
        let year = match self.year {
            Some(year) if self.is_before_christ => 1 - year,
            Some(year) => year,
            None if has_year => self.week_year.unwrap_or(1970),
            None => self.guess_year(now),
        };
        let hour = match (self.hour, self.half_day_hour) {
            (Some(hour), _) => hour,
            (None, Some(hour)) => hour + if self.is_pm == Some(true) { 12 } else { 0 },
            (None, None) => {
                if self.is_pm == Some(true) {
                    12
                } else {
                    0
                }
            }
        };
        let (year, month, day) = self.date(year)?;
        let second_of_day = i64::from(hour * 3600 + self.minute * 60 + self.second);
        // Joda counts in milliseconds, and so does Logstash's date filter.
        let nanos = self.nanos / 1_000_000 * 1_000_000;
        let local = Timestamp::from_civil(year, month, day, second_of_day, nanos);
        match zone {
            Err(offset) => Some(Timestamp { seconds: local.seconds - offset, ..local }),
            Ok(zone) => super::to_utc(local, zone),
        }
    }

    /// The year of a text that names none: the one that puts it nearest to `now`, as Logstash guesses
    /// around the turn of the year.
    fn guess_year(&self, now: Timestamp) -> i64 {
        let now = now.civil();
        match (self.month.unwrap_or(1), now.month) {
            (12, 1) => now.year - 1,
            (1, 12) => now.year + 1,
            _ => now.year,
        }
    }

    fn date(&self, year: i64) -> Option<(i64, u32, u32)> {
        if let Some(day) = self.day_of_year {
            if day == 366 && days_in_month(year, 2) == 28 {
                return None;
            }
            return Some(crate::event::civil_from_days(
                days_from_civil(year, 1, 1) + i64::from(day) - 1,
            ));
        }
        if let Some(week) = self.week {
            // The week with 4 January is the first; weeks begin on Monday.
            let fourth = days_from_civil(self.week_year.unwrap_or(year), 1, 4);
            let monday = fourth - (fourth + 3).rem_euclid(7);
            let weekday = self.weekday.unwrap_or(1);
            return Some(crate::event::civil_from_days(
                monday + i64::from(week - 1) * 7 + i64::from(weekday - 1),
            ));
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        (day <= days_in_month(year, month)).then_some((year, month, day))
    }
}
