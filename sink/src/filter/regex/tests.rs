//! The machine against Oniguruma, the engine Logstash uses.

use proptest::prelude::*;

use super::*;

type Found = Option<Vec<Option<(usize, usize)>>>;

/// Place and captures of the first match, by us and by Oniguruma; none where it refuses the expression.
fn both(pattern: &str, text: &str) -> Option<[Found; 2]> {
    let options = onig::RegexOptions::REGEX_OPTION_NONE;
    let oniguruma = onig::Regex::with_options(pattern, options, onig::Syntax::ruby()).ok()?;
    let ours = Pattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    let mut scratch = Scratch::default();
    let found = ours.find_at(text, 0, &mut scratch).ok().flatten();
    let mine = found.map(|whole| {
        let mut all = vec![Some(whole)];
        all.extend(scratch.slots[..ours.captures().len() * 2].chunks(2).map(|pair| {
            (pair[0] != UNSET && pair[1] != UNSET).then(|| (pair[0] as usize, pair[1] as usize))
        }));
        all
    });
    let theirs =
        oniguruma.captures(text).map(|found| (0..found.len()).map(|i| found.pos(i)).collect());
    Some([mine, theirs])
}

fn check(pattern: &str, text: &str) {
    let [ours, theirs] = both(pattern, text).unwrap_or_else(|| panic!("refused: {pattern}"));
    assert_eq!(ours, theirs, "/{pattern}/ on {text:?}");
}

#[test]
fn constructs_match_as_in_oniguruma() {
    for (pattern, texts) in [
        (r"a(b|bc)c", &["abcc", "abc", "xabc"][..]),
        (r"(a+)(a*)", &["aaa", "", "baab"]),
        (r"(a+?)(a*)", &["aaa"]),
        (r"(?>a+)ab", &["aaab"]),
        (r"(?>a|ab)c", &["abc", "ac"]),
        (r"a++b", &["aaab"]),
        (r"(\d+)\.(\d+)", &["1.2.3", "..12.5"]),
        (r"(?<![0-9.])\d+(?!\d)", &["1.23 45", "x77"]),
        (r"(?<=ab|c)d", &["abd", "cd", "bd"]),
        (r"(?=(a+))a", &["baaac"]),
        (r"(?!ab)a.", &["abac"]),
        (r"^b$", &["a\nb\nc", "b", "ab"]),
        (r"\Ab", &["a\nb", "b"]),
        (r"b\z", &["b\n", "b"]),
        (r"b\Z", &["b\n", "b", "b\n\n"]),
        (r"^", &["", "\n"]),
        (r"\n^", &["a\n", "a\nb"]),
        (r"(a*)*", &["aaa", "b"]),
        (r"(a*)+b", &["aab", "b"]),
        (r"(?:a?){3}a", &["aaa", "a"]),
        (r"(a|b)*c|d", &["ababc", "d", "abd"]),
        (r"x{2,3}y{0}z{,2}w{1,}", &["xxxzzww", "xxw"]),
        (r"a{,}b{x}", &["a{,}b{x}"]),
        (r"(?i)straSSe", &["STRASSE", "strasse"]),
        (r"(?i:A)b", &["ab", "aB"]),
        (r"a.c", &["a\nc", "abc"]),
        (r"(?m)a.c", &["a\nc"]),
        (r"[[:alpha:]]+", &["123abc", "éa"]),
        (r"[^[:space:]]+", &[" ab c"]),
        (r"[a-c&&[^b]]+", &["bacb"]),
        (r"[[a-c]x]+", &["zaxb"]),
        (r"[]a]+", &["]a]"]),
        (r"[a\-z]+", &["b-az"]),
        (r"[\w.-]+@[\w.-]+", &["me.you@host-1.org,"]),
        (r"\h+", &["xyzDEADbeef"]),
        (r"\.\*", &["a.*"]),
        (
            r"(?x) a b # c
            c",
            &["abc"],
        ),
        (r"\bfoo\b", &["a foo b", "foobar", "foo"]),
        (r"\Boo\B", &["foooo"]),
        (r"é+", &["caféé"]),
        (r"[à-ü]+.", &["xéèz"]),
        (r"(a|ab)(c|bcd)(d*)", &["abcd"]),
        (r"(.*?),(.*),(.*)", &["a,b,c,d"]),
        (r"(?:(\w)(\d)?)+", &["a1b", "ab1"]),
        (r"(?<x>a)(b)", &["ab"]),
        (r"\x41\x{42}\u0043\t", &["ABC\t"]),
        (r"[^\n]*$", &["a\nbc"]),
        (r"a{2}?b", &["aab", "b"]),
    ] {
        for text in texts {
            check(pattern, text);
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    for (pattern, wanted) in [
        ("(", "unclosed group"),
        ("a)", "unmatched )"),
        ("[a", "unclosed character class"),
        ("*a", "nothing to repeat before *"),
        ("a{3,2}", "{3,2} has its counts in the wrong order"),
        ("[z-a]", "range z-a in a character class is empty"),
        ("(?y)", "unknown group (?y"),
        (r"(a)\1", r"\1: references back to a group are not supported"),
        ("(?<=a+)b", "a look-behind must have one length; write its lengths as alternatives"),
        ("(((a{1000}){1000}){1000})", "the expression is too large; repeat less"),
    ] {
        assert_eq!(Pattern::new(pattern).unwrap_err(), wanted, "{pattern}");
    }
    assert!(Pattern::new(&"(".repeat(100_000)).is_err());
    assert!(Pattern::new(&"[".repeat(100_000)).is_err());
}

#[test]
fn hostile_expressions_end_within_their_budget() {
    let hostile = format!("{}b", "a".repeat(60_000));
    for pattern in
        ["(a+)+$c", "(a|aa)+$c", "(.*)*c", "(a*)*(a*)*c", "(?=(a+)+c)a", "((a?){20}a{20})+c"]
    {
        let started = std::time::Instant::now();
        let found = Pattern::new(pattern).unwrap().find_at(&hostile, 0, &mut Scratch::default());
        assert!(!matches!(found, Ok(Some(_))), "{pattern}");
        // Unoptimised builds are some twenty times slower than the bar of 10 ms.
        assert!(started.elapsed().as_millis() < 2_000, "{pattern}: {:?}", started.elapsed());
    }
}

/// Small expressions of all constructs over few letters. Beyond ASCII only a sign: the crate's Ruby
/// syntax takes \w by Unicode, Ruby itself does not.
fn any_pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[abc]",
        Just(".".to_owned()),
        Just("[ab]".to_owned()),
        Just("[^a]".to_owned()),
        Just(r"\w".to_owned()),
        Just("€".to_owned()),
        Just(r"\b".to_owned()),
        Just("^".to_owned()),
        Just("$".to_owned()),
        Just(r"[^\n]".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|items| items.concat()),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(?:{a}|{b})")),
            (
                inner.clone(),
                prop_oneof![
                    "\\*",
                    "\\+",
                    "\\?",
                    Just("*?".to_owned()),
                    Just("+?".to_owned()),
                    Just("??".to_owned()),
                    Just("*+".to_owned())
                ]
            )
                .prop_map(|(a, quantifier)| format!("(?:{a}){}", quantifier.replace('\\', ""))),
            // A turn of a counted loop that is empty ends the loop in Oniguruma where it has not unrolled it,
            // and does not where it has: no turn is empty here.
            (inner.clone(), prop_oneof![Just("{1,2}"), Just("{2}")])
                .prop_map(|(a, count)| format!("(?:{a}c){count}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("(?>{a})")),
            inner.clone().prop_map(|a| format!("(?={a})")),
            inner.prop_map(|a| format!("(?!{a})")),
        ]
    })
}

#[test]
fn what_is_atomic_gives_nothing_back_for_what_follows() {
    for pattern in ["(?:a|c)*+c", "(?>(?:a|c)*)c", "(?:(?:(?:a|c))*+c){1,2}", "(?>a?c?)c"] {
        for text in ["c", "cc", "acc"] {
            let Some([ours, theirs]) = both(pattern, text) else { panic!("{pattern} is refused") };
            assert_eq!(ours, theirs, "/{pattern}/ on {text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_expression_finds_what_oniguruma_finds(pattern in any_pattern(), text in "[abc€\n]{0,8}") {
        // It refuses to repeat a mere assertion.
        let Some([ours, theirs]) = both(&pattern, &text) else { return Ok(()) };
        // Which turn of a loop an empty capture belongs to is Oniguruma's own affair; the match is not.
        prop_assert_eq!(ours.as_ref().map(|all| all[0]), theirs.as_ref().map(|all| all[0]), "/{}/ on {:?}", pattern, text);
    }

    #[test]
    fn a_widened_expression_matches_wherever_the_exact_one_does(pattern in any_pattern(), text in "[abc€\n]{0,8}") {
        let syntax = Syntax { definitions: None, is_dot_all: false };
        let parsed = parse::parse(&pattern, syntax).unwrap();
        let gate = regex::bytes::Regex::new(&linear::widened(&parsed.ast)).unwrap();
        let ours = Pattern::new(&pattern).unwrap();
        let found = ours.program.find(&text, 0, &mut Scratch::default(), STEPS_MAX).unwrap();
        if found.is_some() {
            prop_assert!(gate.is_match(text.as_bytes()), "/{}/ on {:?}", pattern, text);
        }
        if let Some(linear) = &ours.linear {
            prop_assert_eq!(Ok(found), ours.find_at(&text, 0, &mut Scratch::default()));
            prop_assert_eq!(linear.find(&text).map(|found| (found.start(), found.end())), found, "/{}/ on {:?}", pattern, text);
        }
    }
}
