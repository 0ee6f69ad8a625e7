//! Field references: `message`, `[http][response][status_code]`, `[list][0]`, `[@metadata][_id]`.

use std::fmt;

/// A path into an event, parsed once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldRef {
    segments: Box<[Segment]>,
    /// Whether it is the time of the event, asked at every change.
    is_timestamp: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    pub(crate) name: Box<str>,
    /// The name as a place in an array, if it is a number; negative counts from the end.
    pub(crate) index: Option<i64>,
    pub(super) tag: u32,
}

/// Why a text is no field reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a field reference; write name or [outer][inner]")]
pub struct FieldRefError(pub String);

impl FieldRef {
    /// Parses `name`, `[a][b]` or `[[a][b]]`. Brackets must balance, and no segment may be empty.
    pub fn parse(text: &str) -> Result<Self, FieldRefError> {
        let error = || FieldRefError(text.to_owned());
        if !text.contains(['[', ']']) {
            return if text.is_empty() { Err(error()) } else { Ok(Self::top(text)) };
        }
        let (mut segments, mut depth, mut name) = (Vec::new(), 0, String::new());
        for c in text.chars() {
            match c {
                '[' if name.is_empty() => depth += 1,
                ']' if depth > 0 => {
                    depth -= 1;
                    if !name.is_empty() {
                        segments.push(Segment::new(std::mem::take(&mut name)));
                    }
                }
                '[' | ']' => return Err(error()),
                c if depth > 0 => name.push(c),
                _ => return Err(error()),
            }
        }
        if depth > 0 || segments.is_empty() {
            return Err(error());
        }
        Ok(Self::new(segments))
    }

    fn new(segments: Vec<Segment>) -> Self {
        let is_timestamp = matches!(&*segments, [only] if &*only.name == super::TIMESTAMP);
        Self { segments: segments.into(), is_timestamp }
    }

    /// The field `name` of the event itself, whatever characters it holds.
    pub fn top(name: &str) -> Self {
        Self::new(vec![Segment::new(name.to_owned())])
    }

    /// The field `name` within this one.
    pub fn within(&self, name: &str) -> Self {
        let mut segments = self.segments.to_vec();
        segments.push(Segment::new(name.to_owned()));
        Self::new(segments)
    }

    /// `other` taken as a path within this field.
    pub fn join(&self, other: &FieldRef) -> Self {
        Self::new(self.segments.iter().chain(&other.segments).cloned().collect())
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether this is the time of the event.
    pub fn is_timestamp(&self) -> bool {
        self.is_timestamp
    }

    /// Whether this is `tags`.
    pub fn is_tags(&self) -> bool {
        matches!(&*self.segments, [only] if &*only.name == "tags")
    }
}

impl Segment {
    fn new(name: String) -> Self {
        let index = name.parse().ok();
        let tag = super::tag(&name);
        Self { name: name.into(), index, tag }
    }
}

impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.segments {
            [only] => f.write_str(&only.name),
            all => all.iter().try_for_each(|segment| write!(f, "[{}]", segment.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_name_or_bracketed_names() {
        for (text, shown) in [
            ("message", "message"),
            ("[message]", "message"),
            ("[a][b]", "[a][b]"),
            ("[[a][b]]", "[a][b]"),
            ("[a.b][0]", "[a.b][0]"),
        ] {
            assert_eq!(FieldRef::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "[]", "a[b]", "[a]b", "[a", "a]", "[a][", "[a]]"] {
            assert!(FieldRef::parse(text).is_err(), "{text}");
        }
    }
}
