//! Mistakes in a user's file, all at once, each with place, cause and remedy.

use std::fmt;

/// One mistake: `nginx/pipeline.conf:12:3: unknown filter "grokk", did you mean "grok"?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the user named it.
    pub file: String,
    /// From 1; 0 where the mistake has no line, such as a missing key.
    pub line: usize,
    /// From 1, in characters; 0 where only the line is known.
    pub column: usize,
    /// The cause and, after it, the remedy.
    pub text: String,
}

impl Mistake {
    pub fn new(
        file: impl Into<String>,
        line: usize,
        column: usize,
        text: impl Into<String>,
    ) -> Self {
        Self { file: file.into(), line, column, text: text.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        write!(f, ": {}", self.text)
    }
}

/// Every mistake found in one reading, in the order of the file. Never empty when used as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    pub fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` when nothing was wrong, else the mistakes.
    pub fn or<T>(self, value: T) -> Result<T, Mistakes> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The known name nearest to `given`, if one is near enough to be meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(given.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `, did you mean "grok"?` or nothing: the end of a message about an unknown name.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_names_file_line_and_column() {
        let mistake = |line, column| Mistake::new("a.conf", line, column, "no").to_string();
        assert_eq!(mistake(12, 3), "a.conf:12:3: no");
        assert_eq!(mistake(12, 0), "a.conf:12: no");
        assert_eq!(mistake(0, 0), "a.conf: no");
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["grok", "date", "mutate"];
        assert_eq!(nearest("grokk", known), Some("grok"));
        assert_eq!(nearest("mutae", known), Some("mutate"));
        assert_eq!(nearest("translate", known), None);
        assert_eq!(did_you_mean("dtae", known), ", did you mean \"date\"?");
    }
}
