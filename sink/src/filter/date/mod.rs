//! Reads the time of an event from a field: `date { match => [ "timestamp", "dd/MMM/yyyy:HH:mm:ss Z" ] }`.
//!
//! Formats: `ISO8601`, `UNIX`, `UNIX_MS`, `TAI64N`, and Joda-Time's patterns, compiled. A date
//! without a year is taken near the time the event was received, so that a replay gives the same.
//! Without `timezone` and without a zone in the text, the zone of this machine holds, as in Logstash.
//! Differs: month names and weekdays are English only.

mod joda;

use jiff::tz::TimeZone;

use super::{Context, Filter, Surroundings, Verdict};
use crate::{
    config::{Located, Options},
    event::{Datum, Event, FieldRef, Template, Timestamp},
};
use joda::Joda;

#[derive(Debug)]
pub(crate) struct Date {
    source: FieldRef,
    formats: Vec<Format>,
    target: FieldRef,
    zone: Zone,
    tags_on_failure: Vec<String>,
}

#[derive(Debug)]
enum Format {
    Iso8601,
    Unix,
    UnixMs,
    Tai64n,
    Joda(Joda),
}

#[derive(Debug)]
enum Zone {
    Fixed(TimeZone),
    /// `timezone => "%{tz}"`
    Computed(Template),
}

impl Date {
    pub(crate) fn read(options: &mut Options<'_>, surroundings: &Surroundings) -> Option<Self> {
        let texts = options.list("match");
        let zone = Self::zone(options, surroundings);
        let target = options.field("target").unwrap_or_else(|| FieldRef::top("@timestamp"));
        let tags = options.list("tag_on_failure");
        let tags_on_failure = if options.has("tag_on_failure") {
            tags.into_iter().map(|tag| tag.value).collect()
        } else {
            vec!["_dateparsefailure".to_owned()]
        };
        let locale = options.located("locale");
        let [source, formats @ ..] = texts.as_slice() else {
            options.missing("match");
            return None;
        };
        if formats.is_empty() {
            let text = "match needs a field and at least one format: [\"timestamp\", \"ISO8601\"]";
            options.mistake(&source.place, text);
        }
        if let Some(locale) = locale
            && !locale.value.to_ascii_lowercase().starts_with("en")
            && formats
                .iter()
                .any(|format| format.value.contains("MMM") || format.value.contains('E'))
        {
            options.mistake(
                &locale.place,
                format!(
                    "locale \"{}\" is not supported; months and weekdays are read in English",
                    locale.value
                ),
            );
        }
        let source = options.field_of(source);
        let formats = formats.iter().filter_map(|format| Self::format(options, format)).collect();
        Some(Self { source: source?, formats, target, zone: zone?, tags_on_failure })
    }

    fn format(options: &mut Options<'_>, text: &Located<String>) -> Option<Format> {
        Some(match text.value.as_str() {
            "ISO8601" => Format::Iso8601,
            "UNIX" => Format::Unix,
            "UNIX_MS" => Format::UnixMs,
            "TAI64N" => Format::Tai64n,
            pattern => match Joda::compile(pattern) {
                Ok(joda) => Format::Joda(joda),
                Err(reason) => {
                    options.mistake(&text.place, reason);
                    return None;
                }
            },
        })
    }

    fn zone(options: &mut Options<'_>, surroundings: &Surroundings) -> Option<Zone> {
        let Some(text) = options.located("timezone") else {
            return Some(Zone::Fixed(surroundings.zone.clone()));
        };
        if text.value.contains("%{") {
            return options.template_of(&text).map(Zone::Computed);
        }
        match zone_of(&text.value) {
            Some(zone) => Some(Zone::Fixed(zone)),
            None => {
                options.mistake(
                    &text.place,
                    format!("unknown timezone \"{}\"; write a name such as Europe/Vienna, UTC or +01:00", text.value),
                );
                None
            }
        }
    }

    fn parse(&self, event: &Event, datum: Datum, context: &Context) -> Option<Timestamp> {
        let computed;
        let zone = match &self.zone {
            Zone::Fixed(zone) => Some(zone),
            Zone::Computed(template) => {
                computed = zone_of(&template.to_text(event));
                computed.as_ref()
            }
        };
        self.formats.iter().find_map(|format| match (format, datum) {
            (Format::Iso8601, Datum::Text(span)) => {
                let (time, has_zone) = Timestamp::parse_iso8601_zone(event.str_at(span))?;
                let time = Timestamp { nanos: time.nanos / 1_000_000 * 1_000_000, ..time };
                if has_zone { Some(time) } else { to_utc(time, zone?) }
            }
            (Format::Joda(joda), Datum::Text(span)) => {
                joda.parse(event.str_at(span), zone?, context.received)
            }
            (Format::Tai64n, Datum::Text(span)) => tai64n(event.str_at(span)),
            (Format::Unix, Datum::Text(span)) => unix_text(event.str_at(span)),
            (Format::Unix, Datum::Int(seconds)) => unix(seconds, 0),
            (Format::Unix, Datum::Float(seconds)) => {
                unix(seconds as i64, 0)?;
                Some(Timestamp::from_millis((seconds * 1000.0) as i64))
            }
            (Format::UnixMs, Datum::Text(span)) => {
                event.str_at(span).parse().ok().map(Timestamp::from_millis)
            }
            (Format::UnixMs, Datum::Int(millis)) => Some(Timestamp::from_millis(millis)),
            (Format::UnixMs, Datum::Float(millis)) => Some(Timestamp::from_millis(millis as i64)),
            _ => None,
        })
    }
}

impl Filter for Date {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Verdict {
        let Some(id) = event.find(&self.source) else { return Verdict::Unmatched };
        let datum = event.datum(id);
        if datum == Datum::Null {
            return Verdict::Unmatched;
        }
        let time = self.parse(event, datum, context);
        let is_set = time.is_some_and(|time| {
            event.set(&self.target, Datum::Time(time.seconds, time.nanos)).is_ok()
        });
        if is_set {
            return Verdict::Matched;
        }
        for tag in &self.tags_on_failure {
            event.tag(tag);
        }
        Verdict::Unmatched
    }
}

/// A zone by its name in the time-zone database, or an offset as `+01:00`.
pub(crate) fn zone_of(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Some(TimeZone::UTC);
    }
    if name.starts_with(['+', '-']) {
        let time = format!("1970-01-01T00:00:00{name}");
        let (moment, _) = Timestamp::parse_iso8601_zone(&time)?;
        let offset = jiff::tz::Offset::from_seconds(-moment.seconds as i32).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(name).ok()
}

/// The moment at which clocks in `zone` showed `local`. Where they showed it twice, the first; where
/// they skipped it, as far after the gap as it was in it.
fn to_utc(local: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if *zone == TimeZone::UTC {
        return Some(local);
    }
    if let Ok(offset) = zone.to_fixed_offset() {
        return Some(Timestamp { seconds: local.seconds - i64::from(offset.seconds()), ..local });
    }
    let civil = local.civil();
    let date = jiff::civil::DateTime::new(
        i16::try_from(civil.year).ok()?,
        civil.month as i8,
        civil.day as i8,
        civil.hour as i8,
        civil.minute as i8,
        civil.second as i8,
        0,
    )
    .ok()?;
    let moment = zone.to_timestamp(date).ok()?;
    Some(Timestamp { seconds: moment.as_second(), nanos: local.nanos })
}

/// Beyond 2038 a number of seconds is more likely one of milliseconds, and Logstash refuses it.
fn unix(seconds: i64, millis: i64) -> Option<Timestamp> {
    (seconds <= i64::from(i32::MAX))
        .then(|| Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(millis)))
}

fn unix_text(text: &str) -> Option<Timestamp> {
    let Some((seconds, fraction)) = text.split_once('.') else {
        return unix(text.parse().ok()?, 0);
    };
    let fraction = &fraction[..fraction.len().min(3)];
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis = fraction.parse::<i64>().ok()? * 10_i64.pow(3 - fraction.len() as u32);
    unix(seconds.parse().ok()?, millis)
}

/// `@4000000052f88ea32489532c`: seconds since 1970 by atomic time, then nanoseconds, in hex.
fn tai64n(text: &str) -> Option<Timestamp> {
    let text = text.strip_prefix('@').unwrap_or(text);
    if text.len() < 24 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let seconds = u64::from_str_radix(&text[..16], 16).ok()? & ((1 << 62) - 1);
    let nanos = u32::from_str_radix(&text[16..24], 16).ok()?;
    // As Logstash does: the ten leap seconds there were when the scale began.
    let seconds = i64::try_from(seconds).ok()? - 10;
    (nanos < 1_000_000_000).then(|| Timestamp { seconds, nanos: nanos / 1_000_000 * 1_000_000 })
}

#[cfg(test)]
mod tests;
