//! Ruby's regular expressions, as Logstash's conditions and filters write them.

/// A compiled expression: linear time where the `regex` crate can run it, else step-limited.
#[derive(Debug, Clone)]
pub struct Pattern {
    engine: Engine,
}

#[derive(Debug, Clone)]
enum Engine {
    Linear(regex::Regex),
    Backtracking(Box<fancy_regex::Regex>),
}

/// Steps after which a backtracking match is given up as "no match".
pub(crate) const BACKTRACK_STEPS_MAX: usize = 100_000;

impl Pattern {
    /// # Errors
    /// The text of what is wrong with the expression, on one line.
    pub fn new(pattern: &str) -> Result<Self, String> {
        // In Ruby ^ and $ always match at lines.
        let lines = format!("(?m:{pattern})");
        let engine = match regex::Regex::new(&lines) {
            Ok(regex) => Engine::Linear(regex),
            Err(plain) => Engine::Backtracking(Box::new(
                fancy_regex::RegexBuilder::new(&lines)
                    .backtrack_limit(BACKTRACK_STEPS_MAX)
                    .build()
                    .map_err(|_| reason(&plain))?,
            )),
        };
        Ok(Self { engine })
    }

    pub fn is_match(&self, text: &str) -> bool {
        match &self.engine {
            Engine::Linear(regex) => regex.is_match(text),
            Engine::Backtracking(regex) => regex.is_match(text).unwrap_or(false),
        }
    }
}

/// The last line of an error, which is what it says apart from pointing at the expression.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or(&text);
    last.trim_start_matches("error: ").to_owned()
}
