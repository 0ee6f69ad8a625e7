//! Dates as Elasticsearch reads and writes them: formats, date math, calendar and fixed intervals.
//!
//! Instants are milliseconds since 1970. Formats: `strict_date_optional_time` and its variants,
//! `epoch_millis`, `epoch_second`, `date_optional_time`, `basic_date`, and patterns of the letters
//! `y u M d H h m s S a E Z X x V` with quoted text; several joined by `||`.

use jiff::civil;
use jiff::tz::TimeZone;

pub const DEFAULT_FORMAT: &str = "strict_date_optional_time||epoch_millis";
const DAY_MS: i64 = 86_400_000;
/// Instants farther from 1970 than this (some 270,000 years) are refused or held there, so that no
/// arithmetic on one can overflow.
const INSTANT_MAX: i64 = 8_640_000_000_000_000;

/// An instant held within bounds.
pub fn clamped(ms: i64) -> i64 {
    ms.clamp(-INSTANT_MAX, INSTANT_MAX)
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (
        year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day_of_year - (153 * shifted + 2) / 5 + 1,
    )
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Parses an ISO date with whatever of its time is given. The second value is the first instant
/// after all that the text could mean, for bounds that round up.
pub fn parse_iso(text: &str) -> Option<(i64, i64)> {
    let bytes = text.as_bytes();
    let number = |at: usize, digits: usize| -> Option<i64> {
        let part = bytes.get(at..at + digits)?;
        part.iter().try_fold(0i64, |sum, byte| {
            byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    let year = number(0, 4)?;
    let (mut month, mut day, mut at, mut given) = (1, 1, 4, Unit::Year);
    if bytes.get(at) == Some(&b'-') {
        month = number(at + 1, 2)?;
        (at, given) = (at + 3, Unit::Month);
        if bytes.get(at) == Some(&b'-') {
            day = number(at + 1, 2)?;
            (at, given) = (at + 3, Unit::Day);
        }
    }
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let mut time_ms = 0;
    let mut offset_ms = 0;
    if given == Unit::Day && bytes.get(at) == Some(&b'T') {
        at += 1;
        if at < bytes.len() {
            let hour = number(at, 2)?;
            (at, given) = (at + 2, Unit::Hour);
            let (mut minute, mut second, mut milli) = (0, 0, 0);
            if bytes.get(at) == Some(&b':') {
                minute = number(at + 1, 2)?;
                (at, given) = (at + 3, Unit::Minute);
                if bytes.get(at) == Some(&b':') {
                    second = number(at + 1, 2)?;
                    (at, given) = (at + 3, Unit::Second);
                    if let Some(b'.' | b',') = bytes.get(at) {
                        let digits =
                            bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                        if digits == 0 || digits > 9 {
                            return None;
                        }
                        milli = match digits {
                            1 => number(at + 1, 1)? * 100,
                            2 => number(at + 1, 2)? * 10,
                            _ => number(at + 1, 3)?,
                        };
                        (at, given) = (at + 1 + digits, Unit::Milli);
                    }
                }
            }
            if hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            time_ms = ((hour * 60 + minute) * 60 + second) * 1000 + milli;
            match bytes.get(at) {
                Some(b'Z') => at += 1,
                Some(sign @ (b'+' | b'-')) => {
                    let hours = number(at + 1, 2)?;
                    at += 3;
                    let mut minutes = 0;
                    if at < bytes.len() {
                        at += usize::from(bytes[at] == b':');
                        minutes = number(at, 2)?;
                        at += 2;
                    }
                    offset_ms =
                        (hours * 60 + minutes) * 60_000 * if *sign == b'-' { -1 } else { 1 };
                }
                _ => {}
            }
        }
    }
    if at != bytes.len() {
        return None;
    }
    let start = days_from_civil(year, month, day) * DAY_MS + time_ms - offset_ms;
    let end = match given {
        // A missing month or day is the first, even where a bound rounds up, as in Elasticsearch.
        Unit::Year | Unit::Month | Unit::Day => start + DAY_MS,
        Unit::Hour => start + 3_600_000,
        Unit::Minute => start + 60_000,
        Unit::Second => start + 1000,
        _ => start + 1,
    };
    Some((start, end))
}

/// Parses a date by `format` (several joined by `||`); the second value is the first instant after it.
pub fn parse(text: &str, format: &str, zone: &TimeZone) -> Option<(i64, i64)> {
    format.split("||").find_map(|one| parse_one(text, one, zone))
}

fn parse_one(text: &str, format: &str, zone: &TimeZone) -> Option<(i64, i64)> {
    match format {
        "epoch_millis" => {
            let ms = text
                .parse::<i64>()
                .ok()
                .or_else(|| text.parse::<f64>().ok().map(|ms| ms as i64))
                .filter(|ms| ms.saturating_abs() <= INSTANT_MAX)?;
            Some((ms, ms + 1))
        }
        "epoch_second" => {
            let ms = (text.parse::<f64>().ok()? * 1000.0) as i64;
            (ms.saturating_abs() <= INSTANT_MAX).then_some((ms, ms + 1000))
        }
        "strict_date_optional_time"
        | "strict_date_optional_time_nanos"
        | "date_optional_time"
        | "strict_date_time"
        | "date_time"
        | "strict_date"
        | "date"
        | "strict_date_time_no_millis"
        | "date_time_no_millis"
        | "strict_date_hour_minute_second"
        | "iso8601"
        | "strict_date_hour_minute_second_millis" => {
            let (start, end) = parse_iso(text)?;
            Some(if has_offset(text) {
                (start, end)
            } else {
                (to_utc(start, zone), to_utc(end, zone))
            })
        }
        "basic_date" => parse_pattern(text, "yyyyMMdd", zone),
        pattern => parse_pattern(text, pattern, zone),
    }
}

fn has_offset(text: &str) -> bool {
    text.find('T').is_some_and(|at| text[at..].contains(['Z', '+', '-']))
}

/// Reads wall-clock milliseconds in `zone` as an instant.
pub fn to_utc(local_ms: i64, zone: &TimeZone) -> i64 {
    let local_ms = clamped(local_ms);
    if *zone == TimeZone::UTC {
        return local_ms;
    }
    let Some(local) = civil_from_ms(local_ms) else { return local_ms };
    zone.to_ambiguous_timestamp(local).compatible().map_or(local_ms, |at| at.as_millisecond())
}

/// The wall-clock milliseconds in `zone` at an instant.
pub fn to_local(ms: i64, zone: &TimeZone) -> i64 {
    if *zone == TimeZone::UTC {
        return ms;
    }
    let Ok(at) = jiff::Timestamp::from_millisecond(ms) else { return ms };
    ms + i64::from(zone.to_offset(at).seconds()) * 1000
}

fn civil_from_ms(ms: i64) -> Option<civil::DateTime> {
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let time = ms.rem_euclid(DAY_MS);
    civil::DateTime::new(
        year.try_into().ok()?,
        month as i8,
        day as i8,
        (time / 3_600_000) as i8,
        (time / 60_000 % 60) as i8,
        (time / 1000 % 60) as i8,
        (time % 1000) as i32 * 1_000_000,
    )
    .ok()
}

/// `time_zone` of a request: an offset or a name.
pub fn parse_zone(text: &str) -> Option<TimeZone> {
    if matches!(text, "Z" | "UTC" | "GMT") {
        return Some(TimeZone::UTC);
    }
    if let Some(sign) = text.chars().next().filter(|c| matches!(c, '+' | '-')) {
        let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
        let hours: i32 = digits.get(..2).unwrap_or(&digits).parse().ok()?;
        let minutes: i32 = digits.get(2..4).map_or(Some(0), |m| m.parse().ok())?;
        let seconds = (hours * 60 + minutes) * 60 * if sign == '-' { -1 } else { 1 };
        return jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    TimeZone::get(text).ok()
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Runs of one pattern letter, or literal text.
fn pattern_parts(pattern: &str) -> Vec<(Option<char>, String)> {
    let mut parts: Vec<(Option<char>, String)> = Vec::new();
    let mut is_quoted = false;
    for c in pattern.chars() {
        if c == '\'' {
            is_quoted = !is_quoted;
            continue;
        }
        let letter = (!is_quoted && c.is_ascii_alphabetic()).then_some(c);
        match parts.last_mut() {
            Some((last, run)) if *last == letter => run.push(c),
            _ => parts.push((letter, c.to_string())),
        }
    }
    parts
}

fn parse_pattern(text: &str, pattern: &str, zone: &TimeZone) -> Option<(i64, i64)> {
    let (mut year, mut month, mut day, mut time, mut smallest) =
        (1970i64, 1i64, 1i64, 0i64, DAY_MS);
    let (mut rest, mut offset, mut afternoon) = (text, None, None);
    for (letter, run) in pattern_parts(pattern) {
        let Some(letter) = letter else {
            rest = rest.strip_prefix(run.as_str())?;
            continue;
        };
        let mut take = |max: usize| -> Option<i64> {
            let length = rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
            let value = rest.get(..length)?.parse().ok()?;
            rest = &rest[length..];
            Some(value)
        };
        let width = run.len().max(2);
        match letter {
            'y' | 'u' if run.len() == 2 => year = 2000 + take(2)?,
            'y' | 'u' => year = take(4)?,
            'M' if run.len() >= 3 => {
                let name = rest.get(..3)?;
                month =
                    MONTHS.iter().position(|known| known.eq_ignore_ascii_case(name))? as i64 + 1;
                rest = &rest[3..];
            }
            'M' => month = take(width)?,
            'd' => day = take(width)?,
            'H' | 'k' | 'h' | 'K' => {
                time += take(width)? * 3_600_000;
                smallest = smallest.min(3_600_000);
            }
            'm' => {
                time += take(width)? * 60_000;
                smallest = smallest.min(60_000);
            }
            's' => {
                time += take(width)? * 1000;
                smallest = smallest.min(1000);
            }
            'S' | 'n' => {
                let digits =
                    rest.bytes().take(run.len().max(1)).take_while(u8::is_ascii_digit).count();
                let value: f64 = format!("0.{}", rest.get(..digits)?).parse().ok()?;
                rest = &rest[digits..];
                time += (value * 1000.0) as i64;
                smallest = 1;
            }
            'a' => {
                afternoon = Some(rest.get(..2)?.eq_ignore_ascii_case("pm"));
                rest = &rest[2..];
            }
            'E' => {
                let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                rest = &rest[length..];
            }
            'Z' | 'X' | 'x' | 'V' | 'z' => {
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "+-:/_".contains(c)))
                    .unwrap_or(rest.len());
                offset = Some(parse_zone(&rest[..end])?);
                rest = &rest[end..];
            }
            _ => return None,
        }
    }
    if let Some(is_afternoon) = afternoon {
        let noon = 12 * 3_600_000;
        time = time % noon + if is_afternoon { noon } else { 0 };
    }
    if !rest.is_empty() || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month)
    {
        return None;
    }
    let local = days_from_civil(year, month, day) * DAY_MS + time;
    let zone = offset.as_ref().unwrap_or(zone);
    Some((to_utc(local, zone), to_utc(local + smallest, zone)))
}

/// Writes an instant by the first of the formats joined in `format`.
pub fn format(ms: i64, format: &str, zone: &TimeZone) -> String {
    let first = format.split("||").next().unwrap_or(format);
    match first {
        "epoch_millis" => ms.to_string(),
        "epoch_second" => ms.div_euclid(1000).to_string(),
        "strict_date" | "date" => format_pattern(ms, "yyyy-MM-dd", zone),
        "basic_date" => format_pattern(ms, "yyyyMMdd", zone),
        ""
        | "strict_date_optional_time"
        | "date_optional_time"
        | "strict_date_time"
        | "date_time"
        | "iso8601"
        | "strict_date_optional_time_nanos" => {
            format_pattern(ms, "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", zone)
        }
        pattern => format_pattern(ms, pattern, zone),
    }
}

/// `2026-03-01T00:00:00.000Z`
pub fn format_utc(ms: i64) -> String {
    format(ms, "", &TimeZone::UTC)
}

fn format_pattern(ms: i64, pattern: &str, zone: &TimeZone) -> String {
    use std::fmt::Write;
    let local = to_local(ms, zone);
    let days = local.div_euclid(DAY_MS);
    let (year, month, day) = civil_from_days(days);
    let time = local.rem_euclid(DAY_MS);
    let (hour, minute, second, milli) =
        (time / 3_600_000, time / 60_000 % 60, time / 1000 % 60, time % 1000);
    let mut out = String::with_capacity(28);
    for (letter, run) in pattern_parts(pattern) {
        let width = run.len();
        let _ = match letter {
            None => write!(out, "{run}"),
            Some('y' | 'u') if width == 2 => write!(out, "{:02}", year % 100),
            Some('y' | 'u') => write!(out, "{year:04}"),
            Some('M') if width >= 3 => write!(out, "{}", MONTHS[month as usize - 1]),
            Some('M') => write!(out, "{month:0width$}"),
            Some('d') => write!(out, "{day:0width$}"),
            Some('H') => write!(out, "{hour:0width$}"),
            Some('h') => write!(out, "{:0width$}", (hour + 11) % 12 + 1),
            Some('m') => write!(out, "{minute:0width$}"),
            Some('s') => write!(out, "{second:0width$}"),
            Some('S') => write!(out, "{}", &format!("{milli:03}000000")[..width.min(9)]),
            Some('a') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('E') => write!(out, "{}", WEEKDAYS[(days + 3).rem_euclid(7) as usize]),
            Some('X' | 'x' | 'Z') => {
                let minutes = (local - ms) / 60_000;
                if minutes == 0 && letter == Some('X') {
                    write!(out, "Z")
                } else {
                    let colon = if letter == Some('Z') || width < 3 { "" } else { ":" };
                    let sign = if minutes < 0 { '-' } else { '+' };
                    write!(out, "{sign}{:02}{colon}{:02}", minutes.abs() / 60, minutes.abs() % 60)
                }
            }
            Some(_) => write!(out, "{run}"),
        };
    }
    out
}

/// A unit of date math and of calendar intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Milli,
}

impl Unit {
    fn of_math(letter: u8) -> Option<Self> {
        Some(match letter {
            b'y' => Self::Year,
            b'M' => Self::Month,
            b'w' => Self::Week,
            b'd' => Self::Day,
            b'h' | b'H' => Self::Hour,
            b'm' => Self::Minute,
            b's' => Self::Second,
            _ => return None,
        })
    }

    /// A `calendar_interval`.
    pub fn of_calendar(text: &str) -> Option<Self> {
        Some(match text {
            "year" | "1y" => Self::Year,
            "quarter" | "1q" => Self::Quarter,
            "month" | "1M" => Self::Month,
            "week" | "1w" => Self::Week,
            "day" | "1d" => Self::Day,
            "hour" | "1h" => Self::Hour,
            "minute" | "1m" => Self::Minute,
            "second" | "1s" => Self::Second,
            _ => return None,
        })
    }

    /// The last instant at or before `ms` at which this unit starts, in `zone`.
    pub fn floor(self, ms: i64, zone: &TimeZone) -> i64 {
        let ms = clamped(ms);
        let local = to_local(ms, zone);
        let days = local.div_euclid(DAY_MS);
        let (year, month, _) = civil_from_days(days);
        let floored = match self {
            Self::Year => days_from_civil(year, 1, 1) * DAY_MS,
            Self::Quarter => days_from_civil(year, (month - 1) / 3 * 3 + 1, 1) * DAY_MS,
            Self::Month => days_from_civil(year, month, 1) * DAY_MS,
            Self::Week => (days - (days + 3).rem_euclid(7)) * DAY_MS,
            Self::Day => days * DAY_MS,
            Self::Hour => return ms - local.rem_euclid(3_600_000),
            Self::Minute => return ms - local.rem_euclid(60_000),
            Self::Second => return ms.div_euclid(1000) * 1000,
            Self::Milli => return ms,
        };
        to_utc(floored, zone)
    }

    /// `ms` moved by `count` of this unit, in `zone`.
    pub fn add(self, ms: i64, count: i64, zone: &TimeZone) -> i64 {
        clamped(self.add_unbounded(clamped(ms), count, zone))
    }

    fn add_unbounded(self, ms: i64, count: i64, zone: &TimeZone) -> i64 {
        let months = match self {
            Self::Year => count.saturating_mul(12),
            Self::Quarter => count.saturating_mul(3),
            Self::Month => count,
            Self::Week => {
                return to_utc(
                    to_local(ms, zone).saturating_add(count.saturating_mul(7 * DAY_MS)),
                    zone,
                );
            }
            Self::Day => {
                return to_utc(
                    to_local(ms, zone).saturating_add(count.saturating_mul(DAY_MS)),
                    zone,
                );
            }
            Self::Hour => return ms.saturating_add(count.saturating_mul(3_600_000)),
            Self::Minute => return ms.saturating_add(count.saturating_mul(60_000)),
            Self::Second => return ms.saturating_add(count.saturating_mul(1000)),
            Self::Milli => return ms.saturating_add(count),
        };
        let local = to_local(ms, zone);
        let (year, month, day) = civil_from_days(local.div_euclid(DAY_MS));
        let total = (year * 12 + month - 1).saturating_add(months.clamp(-3_000_000, 3_000_000));
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
        let day = day.min(days_in_month(year, month));
        to_utc(days_from_civil(year, month, day) * DAY_MS + local.rem_euclid(DAY_MS), zone)
    }
}

/// A date with math, `now-1h/d` or `2026-03-01||+1M/d`; rounds up to the last millisecond meant
/// where `is_upper`.
pub fn parse_math(
    text: &str,
    format: &str,
    zone: &TimeZone,
    now_ms: i64,
    is_upper: bool,
) -> Option<i64> {
    let (mut at, mut math) = if let Some(rest) = text.strip_prefix("now") {
        (clamped(now_ms), rest)
    } else if let Some((date, math)) = text.split_once("||") {
        (parse(date, format, zone)?.0, math)
    } else {
        let (start, end) = parse(text, format, zone)?;
        return Some(if is_upper { end - 1 } else { start });
    };
    while !math.is_empty() {
        let bytes = math.as_bytes();
        match bytes[0] {
            b'/' => {
                let unit = Unit::of_math(*bytes.get(1)?)?;
                at = unit.floor(at, zone);
                math = math.get(2..)?;
                if is_upper {
                    at = unit.add(at, 1, zone) - 1;
                }
            }
            sign @ (b'+' | b'-') => {
                let digits = bytes[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let count: i64 = if digits == 0 { 1 } else { math[1..1 + digits].parse().ok()? };
                let unit = Unit::of_math(*bytes.get(1 + digits)?)?;
                at = unit.add(at, if sign == b'-' { -count } else { count }, zone);
                math = math.get(digits + 2..)?;
            }
            _ => return None,
        }
    }
    Some(at)
}

/// Milliseconds of a `fixed_interval` such as `30m`, `600000ms`, `1d`.
pub fn fixed_interval_ms(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let count: i64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        _ => return None,
    };
    count.checked_mul(unit).filter(|ms| *ms > 0)
}

pub use elkfk_base::now_ms;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_772_323_200_000; // 2026-03-01T00:00:00Z

    #[test]
    fn iso_dates_with_what_they_leave_out() {
        for (text, ms) in [
            ("2026-03-01", START),
            ("2026-03-01T00:00:00Z", START),
            ("2026-03-01T00:00:00.123456789Z", START + 123),
            ("2026-03-01T01:00+01:00", START),
            ("2026-03-01T01:00:00.5+0100", START + 500),
            ("2026-03", START),
            ("2026-03-01T", START),
        ] {
            assert_eq!(parse_iso(text).map(|found| found.0), Some(ms), "{text}");
        }
        for text in [
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-03-01T25:00",
            "2026-03-01Z",
            "1772323200000",
            "",
        ] {
            assert_eq!(parse_iso(text), None, "{text}");
        }
    }

    #[test]
    fn math_rounds_down_or_up() {
        let math =
            |text, is_upper| parse_math(text, DEFAULT_FORMAT, &TimeZone::UTC, START + 5, is_upper);
        assert_eq!(math("now-1h/d", false), Some(START - DAY_MS));
        assert_eq!(math("2026-03-01||/d", true), Some(START + DAY_MS - 1));
        assert_eq!(math("2026-03-01||+1M", false), Some(START + 31 * DAY_MS));
        assert_eq!(math("2026-03-01T00:05:00Z||-3m", false), Some(START + 120_000));
        assert_eq!(math("1772323200000", false), Some(START));
        assert_eq!(math("2026-03-01", true), Some(START + DAY_MS - 1));
        assert_eq!(math("now-", false), None);
        assert_eq!(math("now/\u{e9}", false), None);
    }

    #[test]
    fn patterns_read_what_they_write() {
        let berlin = parse_zone("Europe/Berlin").unwrap();
        assert_eq!(format(START, "yyyy-MM-dd HH:mm", &berlin), "2026-03-01 01:00");
        assert_eq!(
            parse("2026-03-01 01:00", "yyyy-MM-dd HH:mm", &berlin),
            Some((START, START + 60_000))
        );
        assert_eq!(format_utc(START + 7), "2026-03-01T00:00:00.007Z");
        assert_eq!(
            parse("01/Mar/2026:00:00:00 +0000", "dd/MMM/yyyy:HH:mm:ss Z", &TimeZone::UTC)
                .unwrap()
                .0,
            START
        );
        assert_eq!(
            format(START, "strict_date_optional_time", &berlin),
            "2026-03-01T01:00:00.000+01:00"
        );
    }

    proptest! {
        #[test]
        fn civil_days_round_trip(days in -1_000_000i64..1_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}", pattern in "[yMdHhmsSaEZ:/' -]{0,12}") {
            let _ = parse_math(&text, DEFAULT_FORMAT, &TimeZone::UTC, 0, true);
            let _ = parse(&text, &pattern, &TimeZone::UTC);
        }

        #[test]
        fn math_like_text_never_panics(text in "(now|2026-03-01\\|\\|)([+-][0-9]{0,19}[yMwdhms]|/[yMwdhms]){0,3}") {
            let _ = parse_math(&text, DEFAULT_FORMAT, &TimeZone::UTC, 0, true);
        }
    }
}
