use std::time::Duration;

use proptest::prelude::*;

use super::multiline::{Grouping, Side};
use super::*;

/// Start, end and text of each event, and the last position covered.
fn run(
    settings: &LineSettings,
    position: u64,
    head: &[u8],
    blocks: &[&[u8]],
    cuts: &[u64],
) -> Vec<(u64, u64, String)> {
    let mut harvester = Harvester::new(Arc::new(settings.clone()), position, head, cuts);
    let (mut outputs, now) = (Outputs::default(), Instant::now());
    let mut held: Vec<u8> = Vec::new();
    for block in blocks {
        held.extend_from_slice(block);
        let before = harvester.position();
        harvester.step(now, Input::Read(&held), &mut outputs);
        held.drain(..(harvester.position() - before) as usize);
    }
    harvester.step(now, Input::Finish, &mut outputs);
    events(&outputs)
}

fn events(outputs: &Outputs) -> Vec<(u64, u64, String)> {
    let text = |event: &Event| String::from_utf8(outputs.text_of(event).to_vec()).unwrap();
    outputs
        .list
        .iter()
        .filter_map(|output| match output {
            Output::Event(event) => Some((event.start, event.end, text(event))),
            Output::Covered(_) => None,
        })
        .collect()
}

fn check(settings: &LineSettings, bytes: &[u8], expected: &[(u64, &str)]) {
    let found = run(settings, 0, b"", &[bytes], &[]);
    let found: Vec<_> = found.iter().map(|(start, _, text)| (*start, text.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn lines_end_with_a_line_feed_or_both() {
    let plain = LineSettings::default();
    check(&plain, b"a\nbb\r\n\nccc", &[(0, "a"), (2, "bb"), (7, "ccc")]);
    check(&plain, b"\xef\xbb\xbfa\n", &[(3, "a")]);
    check(&plain, b"caf\xe9\nok\n", &[(0, "caf\u{fffd}"), (5, "ok")]);
}

#[test]
fn holes_are_skipped_and_not_at_the_end() {
    let plain = LineSettings::default();
    check(&plain, b"\0\0\0a\n\0\0b\n", &[(3, "a"), (7, "b")]);
    let mut harvester = Harvester::new(Arc::new(plain), 0, b"", &[]);
    let mut outputs = Outputs::default();
    harvester.step(Instant::now(), Input::Read(b"a\n\0\0\0"), &mut outputs);
    assert_eq!(harvester.position(), 2);
    harvester.step(Instant::now(), Input::Hole(100), &mut outputs);
    harvester.step(Instant::now(), Input::Read(b"b\n"), &mut outputs);
    assert_eq!(events(&outputs), [(0, 2, "a".into()), (100, 102, "b".into())]);
}

#[test]
fn long_lines_are_cut_and_counted_while_they_are_read() {
    let settings = LineSettings { max_bytes: 4, ..Default::default() };
    let mut harvester = Harvester::new(Arc::new(settings), 0, b"", &[]);
    let mut outputs = Outputs::default();
    for block in [&b"abc\xc3\xa9f"[..], b"ghijk", b"l\nabcd\r\n"] {
        harvester.step(Instant::now(), Input::Read(block), &mut outputs);
        assert!(harvester.pending.len() <= 6);
    }
    assert_eq!(events(&outputs), [(0, 13, "abc".into()), (13, 19, "abcd".into())]);
    assert_eq!(outputs.counts.truncated_events, 1);
    // Two bytes of é and seven letters.
    assert_eq!(outputs.counts.truncated_bytes, 9);
}

#[test]
fn encodings_of_two_bytes_are_read_by_unit() {
    let bytes =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let utf16 = LineSettings { encoding: Encoding::Utf16Le, ..Default::default() };
    check(&utf16, &bytes("a\u{a0a}\r\nb\n"), &[(0, "a\u{a0a}"), (8, "b")]);
    check(&LineSettings::default(), &bytes("\u{feff}é\nz\n"), &[(2, "é"), (6, "z")]);
    let latin = LineSettings { encoding: Encoding::named("latin1").unwrap(), ..Default::default() };
    check(&latin, b"caf\xe9\n", &[(0, "café")]);
}

#[test]
fn filters_see_the_whole_event() {
    let mut settings =
        LineSettings { include: vec![Regex::new("^keep").unwrap()], ..Default::default() };
    settings.exclude = vec![Regex::new("secret").unwrap()];
    check(&settings, b"keep 1\ndrop\nkeep secret\nkeep 2\n", &[(0, "keep 1"), (24, "keep 2")]);
}

fn multiline() -> LineSettings {
    let pattern = Regex::new(r"^\s").unwrap();
    let grouping = Grouping::Pattern { pattern, negate: false, side: Side::After };
    let parsers =
        Parsers { multiline: Some(MultilineSettings::new(grouping)), ..Default::default() };
    LineSettings { parsers, ..Default::default() }
}

#[test]
fn an_event_ended_by_time_ends_there_again() {
    let settings = Arc::new(multiline());
    let mut harvester = Harvester::new(settings.clone(), 0, b"", &[]);
    let (mut outputs, now) = (Outputs::default(), Instant::now());
    harvester.step(now, Input::Read(b"a\n b\n"), &mut outputs);
    assert_eq!(harvester.deadline(), Some(now + Duration::from_secs(5)));
    harvester.step(now + Duration::from_secs(5), Input::Tick, &mut outputs);
    let [Output::Event(cut)] = &outputs.list[..] else { panic!("{:?}", outputs.list) };
    assert!(cut.is_cut && cut.end == 5);
    // The rest comes after the cut, in the first run and in the next.
    harvester.step(now, Input::Read(b" c\nd\n"), &mut outputs);
    harvester.step(now, Input::Finish, &mut outputs);
    let first = events(&outputs);
    assert_eq!(first[1], (5, 8, " c".into()));
    assert_eq!(run(&settings, 0, b"", &[b"a\n b\n c\nd\n"], &[5]), first);
}

#[test]
fn a_partial_line_ended_by_time_ends_there_again() {
    let settings = LineSettings::default();
    assert_eq!(
        run(&settings, 0, b"", &[b"one\ntwo and more\n"], &[7]),
        [(0, 4, "one".into()), (4, 7, "two".into()), (7, 17, " and more".into())]
    );
}

#[test]
fn what_is_being_assembled_is_not_covered() {
    let mut settings = multiline();
    settings.exclude = vec![Regex::new("^x").unwrap()];
    let mut harvester = Harvester::new(Arc::new(settings), 0, b"", &[]);
    let mut outputs = Outputs::default();
    harvester.step(Instant::now(), Input::Read(b"x\na\n b\n"), &mut outputs);
    assert_eq!(outputs.list, [Output::Covered(2)]);
    assert_eq!(harvester.open_start(), 2);
}

proptest! {
    /// Blocks are an accident: their borders change no event.
    #[test]
    fn blocks_do_not_matter(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), Just(0u8), any::<u8>()], 0..200),
        splits in proptest::collection::vec(0usize..200, 0..8),
        which in 0..4,
    ) {
        let settings = match which {
            0 => LineSettings::default(),
            1 => LineSettings { encoding: Encoding::Utf16Be, ..Default::default() },
            2 => LineSettings { max_bytes: 8, ..Default::default() },
            _ => multiline(),
        };
        let mut splits: Vec<usize> = splits.into_iter().map(|at| at.min(bytes.len())).collect();
        splits.extend([0, bytes.len()]);
        splits.sort_unstable();
        let blocks: Vec<&[u8]> = splits.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        // The byte order mark is looked for in the first read, which is never shorter than it.
        prop_assume!(blocks.iter().find(|block| !block.is_empty()).is_none_or(|block| block.len() >= 3));
        let whole = run(&settings, 0, b"", &[&bytes], &[]);
        prop_assert_eq!(&run(&settings, 0, b"", &blocks, &[]), &whole);
        // Begun again at any event, the rest is the same.
        for (i, (start, ..)) in whole.iter().enumerate() {
            let again = run(&settings, *start, &bytes[..bytes.len().min(4)], &[&bytes[*start as usize..]], &[]);
            prop_assert_eq!(&again[..], &whole[i..]);
        }
    }
}
