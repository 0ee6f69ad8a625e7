//! Dates by format, with their zones, years and failures.

use super::*;
use crate::pipeline::{Outcome, Pipeline};

/// The time `date` gives a field `d`, for an event received on `received`.
fn run(options: &str, value: &str, received: &str) -> Event {
    let text = format!("filter {{ date {{ {options} }} }}");
    let env = |name: &str| (name == "TZ").then(|| "UTC".to_owned());
    let pipeline = Pipeline::parse("a.conf", &text, &env).unwrap_or_else(|error| panic!("{error}"));
    let json = format!("{{\"d\":{value},\"tz\":\"America/New_York\"}}");
    let event = Event::from_json(json.as_bytes(), Timestamp::default()).unwrap();
    let mut context = Context::new(Timestamp::parse_iso8601(received).unwrap());
    match pipeline.filter(event, &mut context) {
        Outcome::Keep(event) => event,
        Outcome::Drop => panic!("dropped"),
    }
}

fn check_with(options: &str, value: &str, wanted: &str) {
    let event = run(options, value, "2026-06-15T00:00:00Z");
    if wanted.is_empty() {
        assert!(event.has_tag("_dateparsefailure"), "{options} on {value}: {}", event.to_source());
        assert_eq!(event.timestamp(), Some(Timestamp::default()));
    } else {
        assert_eq!(event.timestamp().unwrap().to_string(), wanted, "{options} on {value}");
        assert!(!event.has_tag("_dateparsefailure"));
    }
}

fn check(format: &str, value: &str, wanted: &str) {
    check_with(&format!("match => [\"d\", \"{format}\"]"), &format!("\"{value}\""), wanted);
}

#[test]
fn joda_patterns_read_what_joda_reads() {
    for (format, value, wanted) in [
        ("dd/MMM/yyyy:HH:mm:ss Z", "10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36.000Z"),
        ("dd/MMM/yyyy:HH:mm:ss Z", "1/OCTOBER/2000:1:5:6 +01:30", "2000-09-30T23:35:06.000Z"),
        ("dd/MMM/yyyy:HH:mm:ss Z", "10/Okt/2000:13:55:36 -0700", ""),
        ("dd/MMM/yyyy:HH:mm:ss Z", "32/Oct/2000:13:55:36 -0700", ""),
        ("dd/MMM/yyyy:HH:mm:ss Z", "10/Oct/2000:13:55:36 -0700 ", ""),
        ("yyyy-MM-dd HH:mm:ss", "2024-02-29 23:59:59", "2024-02-29T23:59:59.000Z"),
        ("yyyy-MM-dd HH:mm:ss", "2025-02-29 23:59:59", ""),
        ("yyyy-MM-dd HH:mm:ss", "2025-02-28 24:00:00", ""),
        ("yyyy-MM-dd HH:mm:ss,SSS", "2025-02-28 10:00:00,042", "2025-02-28T10:00:00.042Z"),
        ("yyyy-MM-dd HH:mm:ss.SSSSSS", "2025-02-28 10:00:00.123456", "2025-02-28T10:00:00.123Z"),
        ("yyyy-MM-dd HH:mm:ss.SSS", "2025-02-28 10:00:00.5", "2025-02-28T10:00:00.500Z"),
        ("yyyy-MM-dd HH:mm:ss.SSS", "2025-02-28 10:00:00.1234", ""),
        ("yyyyMMddHHmmss", "20250228100203", "2025-02-28T10:02:03.000Z"),
        ("yyMMdd HH:mm", "250228 10:02", "2025-02-28T10:02:00.000Z"),
        ("dd.MM.yy", "28.02.99", "1999-02-28T00:00:00.000Z"),
        ("EEE MMM dd HH:mm:ss yyyy", "Wed Oct 11 14:32:52 2000", "2000-10-11T14:32:52.000Z"),
        (
            "EEE MMM dd HH:mm:ss.SSSSSS yyyy",
            "Wed Oct 11 14:32:52.654321 2000",
            "2000-10-11T14:32:52.654Z",
        ),
        (
            "EEEE, MMMM d, yyyy h:mm a",
            "wednesday, October 1, 2008 12:05 PM",
            "2008-10-01T12:05:00.000Z",
        ),
        ("yyyy-MM-dd hh:mm a", "2008-10-01 12:05 am", "2008-10-01T00:05:00.000Z"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSZ", "2008-10-01t12:05:01.002Z", "2008-10-01T12:05:01.002Z"),
        ("yyyy-MM-dd HH:mm ZZZ", "2008-10-01 12:05 Europe/Vienna", "2008-10-01T10:05:00.000Z"),
        ("yyyy-MM-dd HH:mm z", "2008-10-01 12:05 PST", "2008-10-01T20:05:00.000Z"),
        ("yyyy DDD", "2008 366", "2008-12-31T00:00:00.000Z"),
        ("xxxx-'W'ww-e", "2026-W01-3", "2025-12-31T00:00:00.000Z"),
        ("HH:mm''ss", "10:02'03", "2026-01-01T10:02:03.000Z"),
    ] {
        check(format, value, wanted);
    }
}

#[test]
fn the_other_formats_read_numbers_and_iso() {
    for (format, value, wanted) in [
        ("UNIX", "\"1326149001.132\"", "2012-01-09T22:43:21.132Z"),
        ("UNIX", "1326149001", "2012-01-09T22:43:21.000Z"),
        ("UNIX", "1326149001.25", "2012-01-09T22:43:21.250Z"),
        ("UNIX", "\"-1\"", "1969-12-31T23:59:59.000Z"),
        ("UNIX", "\"1326149001132\"", ""),
        ("UNIX", "\"now\"", ""),
        ("UNIX_MS", "1366125117000", "2013-04-16T15:11:57.000Z"),
        ("UNIX_MS", "\"1366125117123\"", "2013-04-16T15:11:57.123Z"),
        ("UNIX_MS", "\"1.5\"", ""),
        ("TAI64N", "\"@4000000050d506482dbdf024\"", "2012-12-22T01:00:46.767Z"),
        ("TAI64N", "\"4000000050d506482dbdf024\"", "2012-12-22T01:00:46.767Z"),
        ("TAI64N", "\"@400000\"", ""),
        ("ISO8601", "\"2001-01-01T00:00:00-0800\"", "2001-01-01T08:00:00.000Z"),
        ("ISO8601", "\"2001-11-06 20:45:45.123\"", "2001-11-06T20:45:45.123Z"),
        ("ISO8601", "\"2001-11-06 20:45:45,123+01:00\"", "2001-11-06T19:45:45.123Z"),
        ("ISO8601", "\"2025-11-23T22:33:00.123456+01:00\"", "2025-11-23T21:33:00.123Z"),
        ("ISO8601", "\"06.11.2001\"", ""),
        ("ISO8601", "12", ""),
        ("yyyy", "2012", ""),
    ] {
        check_with(&format!("match => [\"d\", \"{format}\"]"), value, wanted);
    }
}

#[test]
fn zones_hold_where_the_text_names_none() {
    let date = "match => [\"d\", \"yyyy-MM-dd HH:mm:ss\", \"ISO8601\"]";
    for (zone, wanted) in [
        ("Europe/Vienna", "2025-07-01T10:00:00.000Z"),
        ("+05:30", "2025-07-01T06:30:00.000Z"),
        ("UTC", "2025-07-01T12:00:00.000Z"),
        ("%{tz}", "2025-07-01T16:00:00.000Z"),
    ] {
        check_with(&format!("{date} timezone => \"{zone}\""), "\"2025-07-01 12:00:00\"", wanted);
        check_with(&format!("{date} timezone => \"{zone}\""), "\"2025-07-01T12:00:00\"", wanted);
        check_with(
            &format!("{date} timezone => \"{zone}\""),
            "\"2025-07-01T12:00:00Z\"",
            "2025-07-01T12:00:00.000Z",
        );
    }
    check_with(&format!("{date} timezone => \"%{{nope}}\""), "\"2025-07-01 12:00:00\"", "");
}

#[test]
fn a_missing_year_is_taken_near_the_time_of_receipt() {
    for (received, value, wanted) in [
        ("2026-06-15T00:00:00Z", "Mar  3 10:00:00", "2026-03-03T10:00:00.000Z"),
        ("2026-01-01T00:30:00Z", "Dec 31 23:59:59", "2025-12-31T23:59:59.000Z"),
        ("2025-12-31T23:59:00Z", "Jan  1 00:00:01", "2026-01-01T00:00:01.000Z"),
        ("2024-03-01T00:00:00Z", "Feb 29 12:00:00", "2024-02-29T12:00:00.000Z"),
    ] {
        let event = run(
            "match => [\"d\", \"MMM  d HH:mm:ss\", \"MMM dd HH:mm:ss\"]",
            &format!("\"{value}\""),
            received,
        );
        assert_eq!(event.timestamp().unwrap().to_string(), wanted);
    }
}

#[test]
fn options_name_source_target_and_tags() {
    let event = run(
        "match => [\"d\", \"UNIX\"] target => \"[a][b]\" remove_field => [\"d\", \"tz\", \"@version\"] add_tag => \"ok\"",
        "5",
        "2026-01-01",
    );
    assert_eq!(
        event.to_source(),
        r#"{"@timestamp":"1970-01-01T00:00:00.000Z","a":{"b":"1970-01-01T00:00:05.000Z"},"tags":["ok"]}"#
    );
    let event = run(
        "match => [\"d\", \"UNIX\"] tag_on_failure => [\"bad\"] add_tag => \"ok\"",
        "\"x\"",
        "2026-01-01",
    );
    assert!(event.has_tag("bad") && !event.has_tag("ok"));
    let event = run("match => [\"nope\", \"UNIX\"] add_tag => \"ok\"", "5", "2026-01-01");
    assert!(!event.has_tag("_dateparsefailure") && !event.has_tag("ok"));
}

#[test]
fn mistakes_are_told_at_their_place() {
    let refused = |options: &str| {
        Pipeline::parse("a.conf", &format!("filter {{ date {{ {options} }} }}"), &|_| None)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(""), "a.conf:1:10: filter \"date\" needs match => …");
    assert_eq!(
        refused("match => [\"d\"]"),
        "a.conf:1:27: match needs a field and at least one format: [\"timestamp\", \"ISO8601\"]"
    );
    assert_eq!(
        refused("match => [\"d\", \"yyyy-MM-ddTHH\"]"),
        "a.conf:1:32: date pattern \"yyyy-MM-ddTHH\" has \"T\", which is no pattern letter; quote text as 'text'"
    );
    assert_eq!(
        refused("match => [\"d\", \"UNIX\"] timezone => \"Mars/Olympus\""),
        "a.conf:1:52: unknown timezone \"Mars/Olympus\"; write a name such as Europe/Vienna, UTC or +01:00"
    );
    assert_eq!(
        refused("match => [\"d\", \"MMM\"] locale => \"de\""),
        "a.conf:1:49: locale \"de\" is not supported; months and weekdays are read in English"
    );
}
