//! Grok by its cases, and against Oniguruma over all stock patterns.

use std::{collections::BTreeSet, sync::LazyLock};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value as Json;

use super::*;
use crate::{
    event::Timestamp,
    filter::regex::sample,
    pipeline::{Outcome, Pipeline},
};

/// Runs one grok filter over one message; the event without time and version.
fn run(options: &str, json: &str) -> Json {
    let text = format!("filter {{ grok {{ {options} }} }}");
    let pipeline =
        Pipeline::parse("a.conf", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
    let event = Event::from_json(json.as_bytes(), Timestamp::default()).unwrap();
    let Outcome::Keep(event) = pipeline.filter(event, &mut Context::new(Timestamp::default()))
    else {
        panic!("dropped");
    };
    let mut source: Json = serde_json::from_str(&event.to_source()).unwrap();
    for name in ["@timestamp", "@version"] {
        source.as_object_mut().unwrap().remove(name);
    }
    source
}

/// One pattern over one message: the fields it gives.
fn check(pattern: &str, message: &str, wanted: &str) {
    let json = serde_json::json!({ "message": message }).to_string();
    let mut found = run(&format!("match => {{ message => '{pattern}' }}"), &json);
    if found["message"] == message {
        found.as_object_mut().unwrap().remove("message");
    }
    assert_eq!(found, serde_json::from_str::<Json>(wanted).unwrap(), "{pattern} on {message}");
}

#[test]
fn captures_become_fields() {
    check("%{IP:client} %{WORD:verb}", "10.0.0.7 GET", r#"{"client":"10.0.0.7","verb":"GET"}"#);
    check("%{IP:client}", "not an address", r#"{"tags":["_grokparsefailure"]}"#);
    check(
        "%{NUMBER:n:int} %{NUMBER:f:float} %{NUMBER:s}",
        "12 1.5 7",
        r#"{"n":12,"f":1.5,"s":"7"}"#,
    );
    check("%{NUMBER:n:int}", "12.9", r#"{"n":12}"#);
    check("%{WORD:[a][b]} %{WORD:[a][c]}", "x y", r#"{"a":{"b":"x","c":"y"}}"#);
    check("%{WORD:w} %{WORD:w} %{WORD:w}", "a b c", r#"{"w":["a","b","c"]}"#);
    check(
        "(?<queue>[0-9A-F]{4}):%{SPACE}%{GREEDYDATA:rest}",
        "in BEEF: all the rest",
        r#"{"queue":"BEEF","rest":"all the rest"}"#,
    );
    check("%{WORD:a}( %{WORD:b})?", "one", r#"{"a":"one"}"#);
    check("a%{DATA:d}b", "ab", "{}");
    check("%{HOUR=[0-9]{2}}", "12", "{}");
    check("%{TWO:x=[0-9]{2}}-", "123-", r#"{"x":"23"}"#);
    check("%{WORD:a - the first} b", "a b", r#"{"a":"a"}"#);
    check("(?m)a.b%{GREEDYDATA:m}", "a\nb c\nd", r#"{"m":" c\nd"}"#);
    check("^%{WORD:first}$", "two words\nalone", r#"{"first":"alone"}"#);
}

#[test]
fn options_change_what_is_captured() {
    let one = |options: &str, json: &str, wanted: &str| {
        assert_eq!(run(options, json), serde_json::from_str::<Json>(wanted).unwrap(), "{options}");
    };
    let m = r#"{"message":"10.1.2.3 get"}"#;
    one(
        r#"match => { message => "%{IP:ip} %{WORD}" } named_captures_only => false"#,
        m,
        r#"{"message":"10.1.2.3 get","ip":"10.1.2.3","IPV4":"10.1.2.3","WORD":"get"}"#,
    );
    one(
        r#"match => { message => "%{IP} %{GREEDYDATA:message}" } overwrite => [message]"#,
        m,
        r#"{"message":"get"}"#,
    );
    one(
        r#"match => { message => "%{IP} %{GREEDYDATA:message}" }"#,
        m,
        r#"{"message":["10.1.2.3 get","get"]}"#,
    );
    one(
        r#"match => { message => "(%{IPV6:six}|%{IPV4:four})%{DATA:none} " } keep_empty_captures => true"#,
        m,
        r#"{"message":"10.1.2.3 get","six":null,"four":"10.1.2.3","none":""}"#,
    );
    one(
        r#"match => { message => "%{IP:ip}" } target => "[x][y]""#,
        m,
        r#"{"message":"10.1.2.3 get","x":{"y":{"ip":"10.1.2.3"}}}"#,
    );
    one(
        r#"match => { message => ["%{INT:a}x", "%{IP:b}", "%{WORD:c}"] }"#,
        m,
        r#"{"message":"10.1.2.3 get","b":"10.1.2.3"}"#,
    );
    one(
        r#"match => { message => ["%{IP:b}", "%{WORD:c}$"] } break_on_match => false"#,
        m,
        r#"{"message":"10.1.2.3 get","b":"10.1.2.3","c":"get"}"#,
    );
    one(
        r#"match => [message, "%{MINE:x}"] pattern_definitions => { MINE => "g%{E}t" E => "." }"#,
        m,
        r#"{"message":"10.1.2.3 get","x":"get"}"#,
    );
    one(r#"match => { message => "x" } tag_on_failure => []"#, m, r#"{"message":"10.1.2.3 get"}"#);
    one(
        r#"match => { message => "^%{IP:ip}" } add_tag => ["from %{ip}"] add_field => { seen => "%{ip}!" "[o][p]" => "q" } remove_field => [message]"#,
        m,
        r#"{"ip":"10.1.2.3","tags":["from 10.1.2.3"],"seen":"10.1.2.3!","o":{"p":"q"}}"#,
    );
    one(
        r#"match => { nope => "x" } add_tag => [never]"#,
        m,
        r#"{"message":"10.1.2.3 get","tags":["_grokparsefailure"]}"#,
    );
    one(r#"match => { nope => "^$" }"#, m, r#"{"message":"10.1.2.3 get"}"#);
    one(
        r#"match => { list => "%{INT:n}" }"#,
        r#"{"list":["a1","b","c3"]}"#,
        r#"{"list":["a1","b","c3"],"n":["1","3"]}"#,
    );
    one(r#"match => { n => "%{INT:m}" }"#, r#"{"n":42}"#, r#"{"n":42,"m":"42"}"#);
    one(
        r#"match => { message => "%{INT:n}" }"#,
        r#"{"message":"7","n":5}"#,
        r#"{"message":"7","n":5}"#,
    );
}

#[test]
fn the_names_follow_ecs_unless_disabled() {
    let line = r#"{"message":"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /a.gif HTTP/1.0\" 200 2326 \"http://x/\" \"Mozilla/4.08\""}"#;
    let ecs =
        run(r#"match => { message => "%{COMBINEDAPACHELOG}" } remove_field => [message]"#, line);
    assert_eq!(
        ecs,
        serde_json::json!({"source":{"address":"127.0.0.1"},"user":{"name":"frank"},"timestamp":"10/Oct/2000:13:55:36 -0700",
            "http":{"request":{"method":"GET","referrer":"http://x/"},"version":"1.0","response":{"status_code":200,"body":{"bytes":2326}}},
            "url":{"original":"/a.gif"},"user_agent":{"original":"Mozilla/4.08"}})
    );
    let legacy = run(
        r#"match => { message => "%{COMBINEDAPACHELOG}" } ecs_compatibility => disabled remove_field => [message]"#,
        line,
    );
    assert_eq!(
        legacy,
        serde_json::json!({"clientip":"127.0.0.1","ident":"-","auth":"frank","timestamp":"10/Oct/2000:13:55:36 -0700","verb":"GET","request":"/a.gif",
            "httpversion":"1.0","response":"200","bytes":"2326","referrer":"\"http://x/\"","agent":"\"Mozilla/4.08\""})
    );
}

#[test]
fn patterns_of_a_directory_are_known() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("mine"),
        "# comment\nTICKET [A-Z]+-%{INT}\n\n  INDENTED   x y\n",
    )
    .unwrap();
    std::fs::write(directory.path().join("other.skip"), "TICKET nothing\n").unwrap();
    let options = format!(
        r#"patterns_dir => ["{}"] patterns_files_glob => "m*e" match => {{ message => "%{{TICKET:t}} %{{INDENTED:i}}" }}"#,
        directory.path().display()
    );
    assert_eq!(
        run(&options, r#"{"message":"ABC-12 x y"}"#),
        serde_json::json!({"message":"ABC-12 x y","t":"ABC-12","i":"x y"})
    );
}

#[test]
fn mistakes_stand_where_the_pattern_stands() {
    let refused = |options: &str| {
        Pipeline::parse("a.conf", &format!("filter {{ grok {{ {options} }} }}"), &|_| None)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(r#"match => { "message" => "%{IPP:x}" }"#),
        "a.conf:1:41: grok pattern \"%{IPP:x}\": unknown pattern %{IPP}, did you mean \"IP\"?"
    );
    assert_eq!(
        refused(r#"match => { "message" => ["ok", "(%{IP}"] }"#),
        "a.conf:1:48: grok pattern \"(%{IP}\": unclosed group"
    );
    assert_eq!(
        refused(r#"match => { m1 => "%{A}" } pattern_definitions => { A => "%{B}" B => "%{A}" }"#),
        "a.conf:1:34: grok pattern \"%{A}\": pattern A refers to itself"
    );
    assert_eq!(refused("break_on_match => true"), "a.conf:1:10: filter \"grok\" needs match => …");
    assert!(
        refused(r#"match => { m1 => "x" } patterns_dir => ["/nonexistent/here"]"#)
            .contains("cannot be read")
    );
}

/// The stock definitions of both sets, in the order of their names.
fn stock() -> Vec<(bool, String)> {
    let mut all = BTreeSet::new();
    for is_ecs in [false, true] {
        all.extend(Patterns::stock(is_ecs).names().map(|name| (is_ecs, name.to_owned())));
    }
    all.into_iter().collect()
}

#[test]
fn every_stock_pattern_compiles() {
    let all = stock();
    assert_eq!(all.len(), 678);
    for (is_ecs, name) in all {
        let patterns = Patterns::stock(is_ecs);
        let text = format!("%{{{name}}}");
        Expression::grok(&text, &patterns, |name| matches!(name, CaptureName::Name(_)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// A grok pattern as one expression in Oniguruma's syntax, groups named by the order of captures.
fn expand(text: &str, patterns: &Patterns, names: &mut Vec<String>) -> String {
    use crate::filter::regex::Definitions;
    static REFERENCE: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"%\{([A-Za-z0-9_]+)(?::([^}=]+))?\}").unwrap());
    static GROUP: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"\(\?<([^=!>][^>]*)>").unwrap());
    let named = GROUP.replace_all(text, |found: &regex::Captures<'_>| {
        names.push(found[1].to_owned());
        format!("(?<c{}>", names.len())
    });
    let mut out = String::new();
    let mut at = 0;
    for found in REFERENCE.captures_iter(&named) {
        let whole = found.get(0).unwrap();
        out.push_str(&named[at..whole.start()]);
        at = whole.end();
        let definition = patterns.definition(&found[1]).unwrap();
        match found.get(2) {
            Some(field) => {
                names.push(field.as_str().to_owned());
                out.push_str(&format!("(?<c{}>", names.len()));
            }
            None => out.push_str("(?:"),
        }
        out.push_str(&expand(definition, patterns, names));
        out.push(')');
    }
    out.push_str(&named[at..]);
    out
}

/// Changes a text a little: what is in front, behind, or one character.
fn spoil(line: &mut String, random: &mut StdRng) {
    let boundaries: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
    let Some(at) = boundaries.get(random.random_range(0..boundaries.len().max(1))).copied() else {
        return;
    };
    match random.random_range(0..4) {
        0 => line.insert_str(0, "x 1.2:3 "),
        1 => line.push_str(" [9] \"q\" z"),
        2 => line.insert(at, ['0', ' ', ':', 'a', '"', '-'][random.random_range(0..6)]),
        _ => {
            line.remove(at);
        }
    }
}

#[test]
fn every_stock_pattern_finds_what_oniguruma_finds() {
    let mut random = StdRng::seed_from_u64(7);
    let (mut compared, mut matched) = (0, BTreeSet::new());
    for (is_ecs, name) in stock() {
        let patterns = Patterns::stock(is_ecs);
        let text = format!("%{{{name}:whole}}");
        let ours = Expression::grok(&text, &patterns, |name| matches!(name, CaptureName::Name(_)))
            .unwrap();
        let mut names = Vec::new();
        let expanded = expand(&text, &patterns, &mut names);
        let options = onig::RegexOptions::REGEX_OPTION_MULTILINE;
        let theirs = onig::Regex::with_options(&expanded, options, onig::Syntax::ruby())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut context = Context::new(Timestamp::default());
        for turn in 0..6 {
            let mut line = sample::sample(&text, &patterns, &mut random);
            if turn % 2 == 1 {
                spoil(&mut line, &mut random);
            }
            let line = &line;
            // Beyond ASCII the two differ by design: see the regex module.
            if !line.is_ascii() {
                continue;
            }
            let mut region = onig::Region::new();
            let mut limits = onig::MatchParam::default();
            // It knows no other bound.
            limits.set_retry_limit_in_match(100_000);
            let search = theirs.search_with_param(
                line,
                0,
                line.len(),
                onig::SearchOptions::SEARCH_OPTION_NONE,
                Some(&mut region),
                limits,
            );
            let Ok(found) = search else { continue };
            // Building the linear expressions takes most of the time, so only some are asked.
            let mine = if ours.captures().len() % 8 == 1 {
                ours.find(line, &mut context.machine)
            } else {
                ours.search(line, &mut context.machine)
            };
            assert_eq!(mine, Ok(found.is_some()), "{name} on {line}");
            if found.is_none() {
                continue;
            }
            matched.insert(name.clone());
            compared += 1;
            // Which group is which: by name on their side, by order on ours.
            let mut by_capture = Vec::new();
            for (i, capture) in ours.captures().iter().enumerate() {
                if let CaptureName::Name(field) = capture {
                    let slots = &context.machine.slots[i * 2..];
                    let is_set = slots[0] != UNSET && slots[1] != UNSET;
                    by_capture.push((
                        field.clone(),
                        is_set.then(|| line[slots[0] as usize..slots[1] as usize].to_owned()),
                    ));
                }
            }
            let mut by_group = Vec::new();
            for (i, field) in names.iter().enumerate() {
                let mut numbers = Vec::new();
                let group = format!("c{}", i + 1);
                theirs.foreach_name(|held, groups| {
                    if held == group {
                        numbers.extend(groups.iter().copied());
                    }
                    true
                });
                let place = numbers.first().and_then(|number| region.pos(*number as usize));
                let field = field.split(['?', ' ']).next().unwrap().to_owned();
                by_group.push((field, place.map(|(start, end)| line[start..end].to_owned())));
            }
            // A loop may leave captures of its earlier turns behind; values that are there must agree.
            by_capture.sort();
            by_group.sort();
            assert_eq!(by_capture, by_group, "{name} on {line}");
        }
    }
    assert!(compared > 1_500, "only {compared} comparisons");
    assert!(matched.len() > 300, "only {} patterns matched a sample", matched.len());
}

/// Processor time of this thread, which other work on the machine does not lengthen.
fn processor_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

#[test]
fn hostile_lines_end_within_their_budget() {
    let lines =
        ["a", "1.", "\"\\", "/a", "0:0:", "Jan 1 "].map(|part| part.repeat(65_536 / part.len()));
    let mut worst = (0, String::new());
    let mut context = Context::new(Timestamp::default());
    for (_, name) in stock().into_iter().filter(|(is_ecs, _)| *is_ecs) {
        let patterns = Patterns::stock(true);
        let text = format!("%{{{name}}}$nothing");
        let expression = Expression::grok(&text, &patterns, |_| true).unwrap();
        for line in &lines {
            let started = processor_ms();
            // Found, not found or given up: each is fine, in time.
            let _ = expression.search(line, &mut context.machine);
            let took = processor_ms() - started;
            if took > worst.0 {
                worst = (took, format!("{name} on {:?}…", &line[..6]));
            }
        }
    }
    // Unoptimised builds are some twenty times slower than the bar of 10 ms.
    let bar = if cfg!(debug_assertions) { 600 } else { 30 };
    assert!(worst.0 < bar, "{worst:?}");
}
