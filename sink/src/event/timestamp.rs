//! A moment in UTC, to the nanosecond, and its ISO 8601 text.

use std::fmt;

/// Seconds since 1970-01-01T00:00:00Z, and the nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanos: u32,
}

/// A moment by calendar and clock, UTC, proleptic Gregorian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// Monday is 1, Sunday is 7.
    pub weekday: u32,
    /// 1 to 366.
    pub day_of_year: u32,
}

impl Timestamp {
    pub fn from_millis(millis: i64) -> Self {
        Self { seconds: millis.div_euclid(1000), nanos: millis.rem_euclid(1000) as u32 * 1_000_000 }
    }

    /// Milliseconds since 1970, rounded down; saturates.
    pub fn millis(self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }

    /// The clock of this machine.
    pub fn now() -> Self {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() },
            Err(before) => Self::from_millis(-(before.duration().as_millis() as i64)),
        }
    }

    /// The moment of a calendar date and time of day in UTC. The caller has checked the ranges.
    pub fn from_civil(year: i64, month: u32, day: u32, second_of_day: i64, nanos: u32) -> Self {
        Self { seconds: days_from_civil(year, month, day) * 86_400 + second_of_day, nanos }
    }

    pub fn civil(self) -> Civil {
        let days = self.seconds.div_euclid(86_400);
        let second = self.seconds.rem_euclid(86_400) as u32;
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            // 1970-01-01 was a Thursday.
            weekday: (days + 3).rem_euclid(7) as u32 + 1,
            day_of_year: (days - days_from_civil(year, 1, 1)) as u32 + 1,
        }
    }

    /// Reads `2026-11-23T22:33:00.123Z` and its shorter forms: date only, `T` or a space between,
    /// seconds and fraction (after `.` or `,`) optional, zone `Z`, `+01:00`, `+0100`, `+01` or
    /// none (UTC).
    pub fn parse_iso8601(text: &str) -> Option<Self> {
        parse_iso8601(text.as_bytes()).map(|(time, _)| time)
    }

    /// As [`Timestamp::parse_iso8601`], and whether the text named a zone.
    pub(crate) fn parse_iso8601_zone(text: &str) -> Option<(Self, bool)> {
        parse_iso8601(text.as_bytes())
    }

    /// Appends `2026-11-23T22:33:00.123Z`: three decimals, six or nine only where needed.
    pub fn write_iso8601(self, out: &mut Vec<u8>) {
        let civil = self.civil();
        match civil.year {
            0..=9999 => {
                digits(out, (civil.year / 100) as u32, 2);
                digits(out, (civil.year % 100) as u32, 2);
            }
            year => {
                out.push(if year < 0 { b'-' } else { b'+' });
                let year = year.unsigned_abs().to_string();
                out.extend(std::iter::repeat_n(b'0', 4usize.saturating_sub(year.len())));
                out.extend_from_slice(year.as_bytes());
            }
        }
        for (separator, value) in [
            (b'-', civil.month),
            (b'-', civil.day),
            (b'T', civil.hour),
            (b':', civil.minute),
            (b':', civil.second),
        ] {
            out.push(separator);
            digits(out, value, 2);
        }
        out.push(b'.');
        match self.nanos {
            nanos if nanos % 1_000_000 == 0 => digits(out, nanos / 1_000_000, 3),
            nanos if nanos % 1_000 == 0 => digits(out, nanos / 1_000, 6),
            nanos => digits(out, nanos, 9),
        }
        out.push(b'Z');
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(30);
        self.write_iso8601(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

fn digits(out: &mut Vec<u8>, mut value: u32, width: usize) {
    let mut text = [b'0'; 9];
    for digit in text[..width].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[..width]);
}

/// Days from 1970-01-01 to a date; months and days are taken as in range.
///
/// Counts in years that begin with March, so that the leap day comes last.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * i64::from((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn parse_iso8601(text: &[u8]) -> Option<(Timestamp, bool)> {
    let mut at = 0;
    let number = |at: &mut usize, width: usize| -> Option<u32> {
        let digits = text.get(*at..*at + width)?;
        *at += width;
        digits.iter().try_fold(0u32, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
        })
    };
    let year = i64::from(number(&mut at, 4)?);
    let eat =
        |at: &mut usize, byte: u8| -> Option<()> { (*text.get(*at)? == byte).then(|| *at += 1) };
    let (mut month, mut day) = (1, 1);
    if at < text.len() && text[at] == b'-' {
        at += 1;
        month = number(&mut at, 2)?;
        if at < text.len() && text[at] == b'-' {
            at += 1;
            day = number(&mut at, 2)?;
        }
    }
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let (mut hour, mut minute, mut second, mut nanos) = (0, 0, 0, 0);
    let (mut offset, mut has_zone) = (0i64, false);
    if at < text.len() && matches!(text[at], b'T' | b't' | b' ') {
        at += 1;
        hour = number(&mut at, 2)?;
        if eat(&mut at, b':').is_some() {
            minute = number(&mut at, 2)?;
            if eat(&mut at, b':').is_some() {
                second = number(&mut at, 2)?;
                if at < text.len() && matches!(text[at], b'.' | b',') {
                    at += 1;
                    let start = at;
                    let mut scale = 100_000_000;
                    while at < text.len() && text[at].is_ascii_digit() {
                        nanos += u32::from(text[at] - b'0') * scale;
                        scale /= 10;
                        at += 1;
                    }
                    if at == start {
                        return None;
                    }
                }
            }
        }
        (offset, has_zone) = match text.get(at) {
            None => (0, false),
            Some(b'Z' | b'z') => {
                at += 1;
                (0, true)
            }
            Some(sign @ (b'+' | b'-')) => {
                at += 1;
                let hours = number(&mut at, 2)?;
                let has_colon = eat(&mut at, b':').is_some();
                let minutes = if has_colon || at < text.len() { number(&mut at, 2)? } else { 0 };
                if hours > 18 || minutes > 59 {
                    return None;
                }
                let seconds = i64::from(hours * 3600 + minutes * 60);
                (if *sign == b'-' { -seconds } else { seconds }, true)
            }
            Some(_) => return None,
        };
    }
    if at != text.len() || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    if hour == 24 && (minute, second, nanos) != (0, 0, 0) {
        return None;
    }
    // A leap second counts as the last second before it, which is where clocks repeat.
    let second_of_day = i64::from(hour * 3600 + minute * 60 + second.min(59));
    let time = Timestamp::from_civil(year, month, day, second_of_day - offset, nanos);
    Some((time, has_zone))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn iso8601_is_read_in_its_forms_and_written_in_one() {
        for (text, written) in [
            ("2026-11-23T22:33:00.123Z", "2026-11-23T22:33:00.123Z"),
            ("2026-11-23T22:33:00Z", "2026-11-23T22:33:00.000Z"),
            ("2026-11-23 22:33:00,5", "2026-11-23T22:33:00.500Z"),
            ("2026-11-23T22:33:00.123456+01:00", "2026-11-23T21:33:00.123456Z"),
            ("2026-11-23T22:33:00.123456789-0130", "2026-11-24T00:03:00.123456789Z"),
            ("2024-02-29", "2024-02-29T00:00:00.000Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ] {
            let time = Timestamp::parse_iso8601(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(time.to_string(), written);
        }
        for text in [
            "",
            "2026-13-01",
            "2025-02-29",
            "2026-11-23T25:00:00Z",
            "2026-11-23T22:33:00.Z",
            "2026-11-23T22:33:00+1",
            "now",
            "2026-11-23T24:00:01Z",
        ] {
            assert_eq!(Timestamp::parse_iso8601(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn calendar_and_days_are_inverse(days in -5_000_000i64..5_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
            prop_assert!((1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month));
        }

        #[test]
        fn calendar_agrees_with_jiff(seconds in -62_000_000_000i64..253_000_000_000) {
            let civil = Timestamp { seconds, nanos: 0 }.civil();
            let theirs = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            prop_assert_eq!(civil.year, i64::from(theirs.year()));
            prop_assert_eq!(civil.month as i8, theirs.month());
            prop_assert_eq!(civil.day as i8, theirs.day());
            prop_assert_eq!(civil.weekday as i8, theirs.weekday().to_monday_one_offset());
            prop_assert_eq!(civil.day_of_year as i16, theirs.day_of_year());
        }
    }
}
