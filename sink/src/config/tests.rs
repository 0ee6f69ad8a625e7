//! The language: what parses, what is refused and how, what conditions answer.

use elkfk_base::Mistakes;

use super::*;
use crate::{
    event::{Event, Timestamp},
    pipeline::Pipeline,
};

fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("9200".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Mistakes> {
    let (mut config, mut mistakes) = (Config::default(), Mistakes::default());
    parse_file("a.conf", text, &env, &mut config, &mut mistakes);
    mistakes.or(config)
}

fn output(text: &str) -> Plugin {
    let config = parse(&format!("output {{ {text} }}")).unwrap_or_else(|error| panic!("{error}"));
    match config.outputs.into_iter().next() {
        Some(Statement::Plugin(plugin)) => plugin,
        other => panic!("{other:?}"),
    }
}

/// The mistakes of a text, `file:` left out.
fn refused(text: &str, wanted: &str) {
    let mistakes = match parse(text) {
        Err(mistakes) => mistakes,
        Ok(_) => match Pipeline::parse("a.conf", text, &env) {
            Err(mistakes) => mistakes,
            Ok(_) => panic!("accepted: {text}"),
        },
    };
    assert_eq!(mistakes.to_string().replace("a.conf:", ""), wanted, "{text}");
}

/// Whether `condition` holds for one event.
fn holds(condition: &str, wanted: bool) {
    let text = format!("filter {{ if {condition} {{ drop {{}} }} }}");
    let pipeline = Pipeline::parse("a.conf", &text, &env).unwrap_or_else(|error| panic!("{error}"));
    let event = Event::from_json(
        br#"{"@timestamp":"2026-01-01T00:00:00Z","s":"text","n":5,"f":5.0,"x":1.5,"t":true,"no":false,"nil":null,"empty":"","false":"false",
        "list":["a","b",5],"o":{"key":1,"inner":{"s":"deep"}},"other":"text","@metadata":{"m":"meta"},"multi":"one\ntwo","tags":["_x"]}"#,
        Timestamp::default(),
    )
    .unwrap();
    let mut context = crate::filter::Context::new(Timestamp::default());
    let is_dropped = matches!(pipeline.filter(event, &mut context), crate::pipeline::Outcome::Drop);
    assert_eq!(is_dropped, wanted, "{condition}");
}

#[test]
fn sections_may_stand_in_any_order_and_repeat() {
    let config = parse(
        "# a comment\r\noutput { a {} } # more\nfilter{drop{}}\ninput { 'quoted' { } b{} }\nfilter { drop {} if [x] { drop {} } }",
    )
    .unwrap();
    assert_eq!((config.inputs.len(), config.filters.len(), config.outputs.len()), (2, 3, 1));
    assert!(parse("").is_ok() && parse("# only a comment").is_ok());
}

#[test]
fn values_have_their_kinds() {
    let plugin = output(
        r#"x { word => bare_word text => "a \" \n b" single => 'it"s' number => -1.5 list => [ "a", b1, 3, [4] ]
            hash => { "k" => 1 bare => two 3 => { "inner" => [] } } codec => json { charset => "UTF-8" } "quoted" => yes }"#,
    );
    let kind =
        |name: &str| &plugin.attributes.iter().find(|held| held.name == name).unwrap().value.kind;
    assert_eq!(kind("word"), &SettingKind::Text("bare_word".into()));
    assert_eq!(kind("text"), &SettingKind::Text("a \\\" \\n b".into()));
    assert_eq!(kind("single"), &SettingKind::Text("it\"s".into()));
    assert_eq!(kind("number"), &SettingKind::Number("-1.5".into()));
    assert!(matches!(kind("list"), SettingKind::Array(list) if list.len() == 4));
    assert!(matches!(kind("hash"), SettingKind::Hash(hash) if hash.len() == 3 && hash[2].0 == "3"));
    assert!(
        matches!(kind("codec"), SettingKind::Plugin(codec) if codec.name == "json" && codec.attributes.len() == 1)
    );
    assert_eq!(kind("quoted"), &SettingKind::Text("yes".into()));
}

#[test]
fn repeated_attributes_merge() {
    let plugin = output(
        r#"x { h => { a => 1 } h => { b => 2 } l => [1] l => [2] s => "a" s => "b" e => "same" e => "same" }"#,
    );
    let kinds: Vec<&SettingKind> = plugin.attributes.iter().map(|held| &held.value.kind).collect();
    assert!(matches!(kinds[0], SettingKind::Hash(hash) if hash.len() == 2));
    assert!(matches!(kinds[1], SettingKind::Array(list) if list.len() == 2));
    assert!(matches!(kinds[2], SettingKind::Array(list) if list.len() == 2));
    assert!(matches!(kinds[3], SettingKind::Text(_)));
}

#[test]
fn environment_variables_are_put_in() {
    let plugin = output(
        r#"x { a => "http://h:${PORT}" b => "${NONE:127.0.0.1:9092}" c => "${EMPTY}" d => "$PORT ${9} ${" }"#,
    );
    let texts: Vec<&str> =
        plugin.attributes.iter().filter_map(|held| held.value.as_text()).collect();
    assert_eq!(texts, ["http://h:9200", "127.0.0.1:9092", "", "$PORT ${9} ${"]);
    refused(
        "output { x { a => \"${NONE}\" b => \"${OTHER}\" } }",
        "1:19: environment variable NONE is not set; set it or write ${NONE:default}\n1:34: environment variable OTHER is not set; set it or write ${OTHER:default}",
    );
}

#[test]
fn mistakes_name_place_cause_and_remedy() {
    for (text, wanted) in [
        ("filter {\n  grokk {}\n}", "2:3: unknown filter \"grokk\", did you mean \"grok\"?"),
        (
            "filter { drop { percent => 5 } }",
            "1:17: unknown option \"percent\" of filter \"drop\", did you mean \"percentage\"?",
        ),
        (
            "filter { drop { percentage => few } }",
            "1:31: percentage is \"few\"; it must be a number",
        ),
        (
            "filtre { }",
            "1:1: unknown section \"filtre\", did you mean \"filter\"?; a file holds input { }, filter { } and output { }",
        ),
        ("filter { drop {}", "1:8: this { is never closed; add a }"),
        (
            "filter { drop { id => \"x }",
            "1:23: this \" is never closed; add a \" at the end of the text",
        ),
        (
            "filter { drop { id \"x\" } }",
            "1:20: found \"\"\"; here must stand => after option \"id\"",
        ),
        ("filter { drop { add_tag => [\"a\",] } }", "1:33: a comma before ]; remove it"),
        (
            "filter { drop { add_tag => [\"a\" \"b\"] } }",
            "1:33: found \"\"\"; here must stand , or ] in the array",
        ),
        ("filter { drop { id => a1, add_tag => b1 } }", "1:25: a comma between options; remove it"),
        (
            "filter { drop { add_field => { a => 1, b => 2 } } }",
            "1:38: a comma in a hash; remove it, entries are separated by spaces",
        ),
        (
            "filter { drop { add_field => { \"a\" => 1 \"a\" => 2 } } }",
            "1:41: key \"a\" stands twice in this hash; put its values in one array",
        ),
        (
            "filter { if [a] = 1 { drop {} } }",
            "1:17: = compares nothing; write == for equality, =~ for a pattern",
        ),
        (
            "filter { if a == 1 { drop {} } }",
            "1:13: \"a\" is neither text nor field; write \"a\" or [a]",
        ),
        (
            "filter { if [a] && [b] { drop {} } }",
            "1:17: found \"&\"; here must stand and or or, as Logstash writes them",
        ),
        (
            "filter { if [a] =~ /(/ { drop {} } }",
            "1:20: \"(\" is no regular expression: unclosed group",
        ),
        (
            "filter { if [a] xor [b] and [c] { drop {} } }",
            "1:17: xor in a chain has no precedence; put ( ) around its two sides",
        ),
        (
            "filter { if ![a] == 1 { drop {} } }",
            "1:18: ! holds for the field alone; write !([field] == …)",
        ),
        (
            "filter { if sprintf(\"a\") { drop {} } }",
            "1:13: \"sprintf(\": Logstash has no functions in conditions",
        ),
        ("filter { else { drop {} } }", "1:10: an else without if; it must follow the } of an if"),
        (
            "filter { elasticsearch {} }",
            "1:10: filter \"elasticsearch\" is not supported yet; supported are date, dissect, drop, grok, json, kv, mutate",
        ),
        (
            "filter { drop { }\n}\n}",
            "3:1: found \"}\"; here must stand a section: input { }, filter { } or output { }",
        ),
        ("output { x { id => 1.2.3 } }", "1:20: \"1.2.3\" is not a number; put it in quotes"),
        (
            "output { x { codec => json codec => plain } }",
            "1:28: a second codec; a plugin has one, remove the other",
        ),
    ] {
        refused(text, wanted);
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    refused(
        "filter {\n drop { percentage => x1 nope => 1 }\n dropp {}\n if [a] =~ \"[\" { drop {} } }",
        "2:23: percentage is \"x1\"; it must be a number\n2:26: unknown option \"nope\" of filter \"drop\"; it has add_field, add_tag, enable_metric, id, percentage, periodic_flush, remove_field, remove_tag\n3:2: unknown filter \"dropp\", did you mean \"drop\"?\n4:12: \"[\" is no regular expression: unclosed character class",
    );
}

#[test]
fn conditions_answer_as_logstash_does() {
    for (condition, wanted) in [
        ("[s]", true),
        ("[nope]", false),
        ("[nil]", false),
        ("[no]", false),
        ("[empty]", false),
        ("[false]", false),
        ("[n]", true),
        ("![nope]", true),
        ("!([s] == \"text\")", false),
        ("[s] == \"text\"", true),
        ("\"text\" == [s]", true),
        ("[s] == [other]", true),
        ("[s] != \"text\"", false),
        ("[nope] != \"x\"", true),
        ("[nope] == \"x\"", false),
        ("[n] == 5", true),
        ("[n] == \"5\"", false),
        ("[f] == 5", true),
        ("[x] == 1.5", true),
        ("[n] > 4", true),
        ("[n] >= 5 and [n] <= 5", true),
        ("[n] < 5", false),
        ("[nope] < 5", false),
        ("[nope] > 5", false),
        ("[s] > 5", false),
        ("[s] > \"tex\"", true),
        ("4 < [n]", true),
        ("[s] =~ /^te.t$/", true),
        ("[s] =~ \"ex\"", true),
        ("[s] !~ /nope/", true),
        ("[nope] =~ /./", false),
        ("[nope] !~ /./", true),
        ("[n] =~ /5/", false),
        ("[multi] =~ /^two$/", true),
        ("[multi] =~ /one.two/", false),
        ("[s] =~ /^(?!no)te/", true),
        ("[s] =~ /a\\/b/", false),
        ("\"ex\" in [s]", true),
        ("\"a\" in [list]", true),
        ("5 in [list]", true),
        ("\"5\" in [list]", false),
        ("\"c\" in [list]", false),
        ("[s] in [\"x\", \"text\"]", true),
        ("[s] in [\"x\"]", false),
        ("[n] in [5, 6]", true),
        ("[n] in [\"5\", \"6\"]", true),
        ("\"key\" in [o]", true),
        ("[s] in [other]", true),
        ("[s] in \"some text\"", true),
        ("[nope] in [list]", false),
        ("\"x\" in [nope]", false),
        ("\"x\" not in [nope]", true),
        ("\"c\" not in [list]", true),
        ("[nope] not in [\"a\"]", true),
        ("\"_x\" in [tags]", true),
        ("[o][inner][s] == \"deep\"", true),
        ("[list][0] == \"a\"", true),
        ("[list][-1] == 5", true),
        ("[@metadata][m] == \"meta\"", true),
        ("[s] and [nope]", false),
        ("[s] or [nope]", true),
        ("[nope] and [s] or [s]", true),
        ("[s] or [s] and [nope]", true),
        ("([s] or [s]) and [nope]", false),
        ("[s] xor [nope]", true),
        ("[s] xor [s]", false),
        ("[s] nand [s]", false),
        ("[s] nand [nope]", true),
        ("[t] == \"true\"", false),
        ("(([s]))", true),
        ("[a] == 1 or [b] == 2 or [s] == \"text\"", true),
        ("[s]and[n]", true),
    ] {
        holds(condition, wanted);
    }
}

#[test]
fn the_first_arm_that_holds_is_taken() {
    let text = "filter { if [a] == 1 { drop { add_tag => \"one\" percentage => 0 } } else if [a] == 2 { drop { } } else { drop { percentage => 0 } } }";
    let pipeline = Pipeline::parse("a.conf", text, &env).unwrap();
    let mut context = crate::filter::Context::new(Timestamp::default());
    for (json, is_kept) in [("{\"a\":1}", true), ("{\"a\":2}", false), ("{}", true)] {
        let event = Event::from_json(json.as_bytes(), Timestamp::default()).unwrap();
        let outcome = pipeline.filter(event, &mut context);
        assert_eq!(matches!(outcome, crate::pipeline::Outcome::Keep(_)), is_kept, "{json}");
    }
}

#[test]
fn outputs_are_chosen_by_conditions() {
    let text = "output { a1 {} if [x] { b1 {} } else { c1 {} d1 {} } }";
    let pipeline = Pipeline::parse("a.conf", text, &env).unwrap();
    let names = |json: &str| {
        let mut names = Vec::new();
        let event = Event::from_json(json.as_bytes(), Timestamp::default()).unwrap();
        pipeline.route(&event, |output| names.push(pipeline.outputs()[output].name.clone()));
        names.join(" ")
    };
    assert_eq!(names("{\"x\":1}"), "a1 b1");
    assert_eq!(names("{}"), "a1 c1 d1");
}

#[test]
fn deep_nesting_is_refused_not_overflowed() {
    for text in [
        format!("filter {{ if {}[a]", "(".repeat(100_000)),
        format!("output {{ x {{ a => {}", "[".repeat(100_000)),
        format!("output {{ x {{ a => {}", "{ a => ".repeat(100_000)),
        "filter { ".to_owned() + &"if [a] { ".repeat(100_000),
    ] {
        assert!(parse(&text).unwrap_err().to_string().contains("nested deeper than 64"));
    }
}
