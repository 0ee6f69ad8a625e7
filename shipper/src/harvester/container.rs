//! Lines of container runtimes: docker's JSON and the CRI text format, partial lines joined.

use serde::Deserialize;

use super::Piece;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSettings {
    /// Only this stream, `stdout` or `stderr`.
    pub stream: Option<String>,
}

/// What a container line is about, besides its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub stream: String,
    /// Milliseconds since 1970, as the runtime wrote them.
    pub time_ms: Option<i64>,
}

/// Takes the runtime's framing off and joins what it split, per stream.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    settings: ContainerSettings,
    /// At most one partial line at a time: a runtime writes a line's parts in a row.
    partial: Option<Piece>,
    max_bytes: usize,
}

#[derive(Deserialize)]
struct DockerLine {
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
}

impl Joiner {
    pub(super) fn new(settings: ContainerSettings, max_bytes: usize) -> Self {
        Self { settings, partial: None, max_bytes }
    }

    /// The whole line that `line` completes; `Err` where the line belongs to another stream.
    pub(super) fn push(&mut self, mut line: Piece) -> Result<Option<Piece>, Piece> {
        let parsed = if line.text.first() == Some(&b'{') {
            parse_docker(&line.text)
        } else {
            parse_cri(&line.text)
        };
        let Some((origin, text, is_partial)) = parsed else {
            // Not a container line: kept as it is, never lost.
            return Ok(Some(self.join(line)));
        };
        if self.settings.stream.as_ref().is_some_and(|stream| *stream != origin.stream) {
            return Err(line);
        }
        line.text = text;
        line.origin = Some(Box::new(origin));
        let line = self.join(line);
        if is_partial && line.text.len() < self.max_bytes {
            self.partial = Some(line);
            return Ok(None);
        }
        Ok(Some(line))
    }

    fn join(&mut self, line: Piece) -> Piece {
        let Some(mut partial) = self.partial.take() else { return line };
        partial.end = line.end;
        partial.flags.invalid |= line.flags.invalid;
        partial.flags.truncated |= line.flags.truncated;
        partial.text.extend_from_slice(&line.text);
        partial
    }

    pub(super) fn flush(&mut self) -> Option<Piece> {
        self.partial.take()
    }

    pub(super) fn open_start(&self) -> Option<u64> {
        self.partial.as_ref().map(|piece| piece.start)
    }
}

fn parse_docker(line: &[u8]) -> Option<(Origin, Vec<u8>, bool)> {
    let line: DockerLine = serde_json::from_slice(line).ok()?;
    let mut text = line.log.into_bytes();
    let is_partial = text.last() != Some(&b'\n');
    while matches!(text.last(), Some(b'\n' | b'\r')) {
        text.pop();
    }
    Some((Origin { stream: line.stream, time_ms: parse_time(&line.time) }, text, is_partial))
}

/// `2026-11-23T22:41:01.123456789Z stdout F message`
fn parse_cri(line: &[u8]) -> Option<(Origin, Vec<u8>, bool)> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(words.next()?).ok()?;
    let stream = std::str::from_utf8(words.next()?).ok()?;
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    let tags = words.next()?;
    let text = words.next().unwrap_or_default().to_vec();
    let is_partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some((Origin { stream: stream.into(), time_ms: Some(parse_time(time)?) }, text, is_partial))
}

fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: &[(&str, &str)]) {
        let mut joiner = Joiner::new(ContainerSettings::default(), 1 << 20);
        let found: Vec<_> = lines
            .iter()
            .filter_map(|line| joiner.push(Piece::new(0, 1, line.as_bytes().to_vec())).unwrap())
            .map(|piece| {
                let stream = piece.origin.map(|origin| origin.stream).unwrap_or_default();
                (stream, String::from_utf8(piece.text).unwrap())
            })
            .collect();
        let found: Vec<_> = found.iter().map(|(s, t)| (s.as_str(), t.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn parts_of_a_line_are_joined() {
        check(
            &[
                "2026-11-23T22:41:01.1Z stdout P one ",
                "2026-11-23T22:41:01.1Z stdout F two",
                "2026-11-23T22:41:01.1Z stderr F bad",
            ],
            &[("stdout", "one two"), ("stderr", "bad")],
        );
        check(
            &[
                r#"{"log":"one ","stream":"stdout","time":"2026-11-23T22:41:01Z"}"#,
                r#"{"log":"two\n","stream":"stdout","time":"2026-11-23T22:41:01Z"}"#,
            ],
            &[("stdout", "one two")],
        );
    }

    #[test]
    fn a_line_of_another_kind_is_kept() {
        check(&["not a container line"], &[("", "not a container line")]);
    }
}
