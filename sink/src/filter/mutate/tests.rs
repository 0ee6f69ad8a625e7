//! Mutate, change by change, by what Logstash's own cases mean.

use crate::filter::testing::{check, refused};

#[test]
fn fields_are_set_renamed_and_copied() {
    check("mutate { rename => { a => b } }", r#"{"a":{"x":1}}"#, r#"{"b":{"x":1}}"#);
    check(
        "mutate { rename => { a => \"[n][%{name}]\" nope => x1 } }",
        r#"{"a":1,"name":"k"}"#,
        r#"{"name":"k","n":{"k":1}}"#,
    );
    check(
        "mutate { rename => [ \"[a][b]\", c1 ] }",
        r#"{"a":{"b":1,"d":2}}"#,
        r#"{"a":{"d":2},"c1":1}"#,
    );
    check(
        "mutate { update => { a => \"%{b}!\" nope => x1 } }",
        r#"{"a":1,"b":"two"}"#,
        r#"{"a":"two!","b":"two"}"#,
    );
    check(
        "mutate { replace => { a => \"%{b}!\" \"[n][m]\" => \"new\" } }",
        r#"{"a":1,"b":2}"#,
        r#"{"a":"2!","b":2,"n":{"m":"new"}}"#,
    );
    check(
        "mutate { coerce => { a => \"none\" b => \"none\" c => \"none\" } }",
        r#"{"a":null,"b":1}"#,
        r#"{"a":"none","b":1}"#,
    );
    check(
        "mutate { copy => { a => \"[b][c]\" nope => d1 } }",
        r#"{"a":{"x":[1]}}"#,
        r#"{"a":{"x":[1]},"b":{"c":{"x":[1]}}}"#,
    );
    check("mutate { add_field => { a => \"two\" } }", r#"{"a":"one"}"#, r#"{"a":["one","two"]}"#);
    check(
        "mutate { add_field => { \"k-%{a}\" => \"%{a}\" } remove_field => [a, \"x-%{a}\"] add_tag => [t1, t1] remove_tag => old }",
        r#"{"a":"one","x-one":1,"tags":["old"]}"#,
        r#"{"tags":["t1"],"x-one":1,"k-one":"one"}"#,
    );
}

#[test]
fn types_are_converted() {
    let one = |kind: &str, from: &str, to: &str| {
        check(
            &format!("mutate {{ convert => {{ v => {kind} }} }}"),
            &format!("{{\"v\":{from}}}"),
            &format!("{{\"v\":{to}}}"),
        );
    };
    for (from, to) in [
        ("\"12\"", "12"),
        ("\" 1,234 \"", "1234"),
        ("\"-7.9\"", "-7"),
        ("1.9", "1"),
        ("true", "1"),
        ("\"0x1F\"", "31"),
        ("\"1e3\"", "1000"),
        ("[\"1\",\"2\",null]", "[1,2,null]"),
        ("{\"x\":\"1\"}", "{\"x\":\"1\"}"),
        ("null", "null"),
        ("\"99999999999999999999\"", "99999999999999999999"),
    ] {
        one("integer", from, to);
    }
    for (from, to) in [
        ("\"1.5\"", "1.5"),
        ("\"1,234.5\"", "1234.5"),
        ("2", "2.0"),
        ("false", "0.0"),
        ("\"-0x10\"", "-16.0"),
    ] {
        one("float", from, to);
    }
    one("integer_eu", "\"1.234,9\"", "1234");
    one("float_eu", "\"1.234,5\"", "1234.5");
    for (from, to) in [
        ("\"yes\"", "true"),
        ("\"N\"", "false"),
        ("\"\"", "false"),
        ("1", "true"),
        ("\"maybe\"", "\"maybe\""),
        ("0.0", "false"),
    ] {
        one("boolean", from, to);
    }
    for (from, to) in [("12", "\"12\""), ("true", "\"true\""), ("[1,\"x\"]", "[\"1\",\"x\"]")] {
        one("string", from, to);
    }
    check(
        "mutate { convert => { v => integer w => integer } rename => { v => r1 } add_tag => ok }",
        r#"{"v":"x","w":"1"}"#,
        r#"{"r1":"x","w":1,"tags":["ok"]}"#,
    );
    check(
        "mutate { convert => { v => integer } uppercase => w add_tag => ok }",
        r#"{"v":"x","w":"u"}"#,
        r#"{"v":"x","w":"u","tags":["_mutate_error"]}"#,
    );
    check(
        "mutate { convert => { v => float } tag_on_failure => bad }",
        r#"{"v":"1.5s"}"#,
        r#"{"v":"1.5s","tags":["bad"]}"#,
    );
}

#[test]
fn texts_are_changed() {
    check(
        r#"mutate { gsub => [ m, "/", "_", m, "[\\?#-]", "." ] }"#,
        r#"{"m":"a/b/c?d-e"}"#,
        r#"{"m":"a_b_c.d.e"}"#,
    );
    check(
        r#"mutate { gsub => [ m, "(\w)(\d)", "\2-\1%{x}" ] }"#,
        r#"{"m":"a1 b2","x":"!"}"#,
        r#"{"m":"1-a! 2-b!","x":"!"}"#,
    );
    check(
        r#"mutate { gsub => [ m, "(?<n>b)", "<\k<n>\0\\1>" ] }"#,
        r#"{"m":"abc"}"#,
        r#"{"m":"a<bb\\1>c"}"#,
    );
    check(
        r#"mutate { gsub => [ m, "%{x}+", "" , m, "^|$", "|" ] }"#,
        r#"{"m":"aXXb","x":"X"}"#,
        r#"{"m":"|ab|","x":"X"}"#,
    );
    check(
        r#"mutate { gsub => [ list, "a", "b", nope, "a", "b", n1, "1", "2" ] }"#,
        r#"{"list":["a",1,"ca"],"n1":1}"#,
        r#"{"list":["b",1,"cb"],"n1":1}"#,
    );
    check(
        "mutate { uppercase => [a, \"[o][b]\"] lowercase => c1 capitalize => [d1, list] }",
        r#"{"a":"éa","o":{"b":"x"},"c1":"ÄB","d1":"hELLO wORLD","list":["aB",1],"n":1}"#,
        r#"{"a":"ÉA","o":{"b":"X"},"c1":"äb","d1":"Hello world","list":["Ab",1],"n":1}"#,
    );
    check(
        "mutate { strip => [a, list] }",
        r#"{"a":" \t x y\n","list":[" b ","c"]}"#,
        r#"{"a":"x y","list":["b","c"]}"#,
    );
}

#[test]
fn arrays_are_split_joined_and_merged() {
    check("mutate { split => { a => \",\" } }", r#"{"a":"1,2,,3,,"}"#, r#"{"a":["1","2","","3"]}"#);
    check(
        "mutate { split => { a => \" \" b => \"\" c1 => \"::\" n => \",\" } }",
        r#"{"a":"  x  y ","b":"äb","c1":"p::q","n":5}"#,
        r#"{"a":["x","y"],"b":["ä","b"],"c1":["p","q"],"n":5}"#,
    );
    check(
        "mutate { join => { a => \"-\" b => \"-\" } }",
        r#"{"a":[1,"x",true],"b":"text"}"#,
        r#"{"a":"1-x-true","b":"text"}"#,
    );
    check(
        "mutate { merge => { a => b } }",
        r#"{"a":["1"],"b":["2",3]}"#,
        r#"{"a":["1","2",3],"b":["2",3]}"#,
    );
    check("mutate { merge => { a => b } }", r#"{"a":"1","b":"2"}"#, r#"{"a":["1","2"],"b":"2"}"#);
    check("mutate { merge => { a => b } }", r#"{"b":"2"}"#, r#"{"b":"2","a":["2"]}"#);
    check(
        "mutate { merge => { a => b } }",
        r#"{"a":{"x":1,"y":1},"b":{"y":2,"z":3}}"#,
        r#"{"a":{"x":1,"y":2,"z":3},"b":{"y":2,"z":3}}"#,
    );
    check("mutate { merge => { a => b } }", r#"{"a":{"x":1},"b":[1]}"#, r#"{"a":{"x":1},"b":[1]}"#);
    check(
        "mutate { merge => { a => [b, c1] } }",
        r#"{"a":[],"b":1,"c1":2}"#,
        r#"{"a":[1,2],"b":1,"c1":2}"#,
    );
}

#[test]
fn the_order_of_changes_is_fixed() {
    check(
        "mutate { copy => { b => c1 } uppercase => b replace => { b => \"x-%{a}\" } rename => { old => a } }",
        r#"{"old":"v"}"#,
        r#"{"a":"v","b":"X-V","c1":"X-V"}"#,
    );
}

#[test]
fn mistakes_are_told() {
    assert_eq!(
        refused("mutate { convert => { a => int } }"),
        "1:37: cannot convert to \"int\"; there are string, integer, float, boolean, integer_eu, float_eu"
    );
    assert_eq!(
        refused("mutate { gsub => [a1, \"b\"] }"),
        "1:28: gsub takes three texts each time: field, pattern, replacement"
    );
    assert_eq!(
        refused("mutate { gsub => [a1, \"(\", \"c\"] }"),
        "1:32: \"(\" is no regular expression: unclosed group"
    );
    assert_eq!(
        refused("mutate { renam => { a => b } }"),
        "1:19: unknown option \"renam\" of filter \"mutate\", did you mean \"rename\"?"
    );
}

#[test]
fn gsub_that_takes_too_long_is_an_error_and_changes_nothing() {
    let message = "a".repeat(5_000);
    check(
        r#"mutate { gsub => [m, "(?=(a+)+c)a", "x"] add_tag => done }"#,
        &serde_json::json!({ "m": message }).to_string(),
        &serde_json::json!({ "m": message, "tags": ["_mutate_error"] }).to_string(),
    );
}
