//! Command lines as Kafka's tools read them, with the words in which they refuse.
//!
//! The tools use jopt-simple: `--name value`, `--name=value` and `-name value` are the same, words
//! without a dash are passed over, and no option may be abbreviated.

use std::collections::HashMap;
use std::fmt::Write;

use super::Failure;
use super::errors::Exception;

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    /// What the value is called in the help.
    Value(&'static str),
    /// A value that may be left out.
    Perhaps(&'static str),
}

/// An option of a tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

/// Short forms for the tables of options.
pub(crate) const fn flag(name: &'static str, help: &'static str) -> Spec {
    Spec { name, takes: Takes::Nothing, help }
}

pub(crate) const fn value(name: &'static str, what: &'static str, help: &'static str) -> Spec {
    Spec { name, takes: Takes::Value(what), help }
}

/// A command line that has been read.
#[derive(Debug)]
pub(crate) struct Options {
    specs: &'static [Spec],
    /// Per option its values, in order; empty for one that takes none.
    given: HashMap<&'static str, Vec<String>>,
}

impl Options {
    /// # Errors
    ///
    /// The message of jopt-simple for the first word that is not understood.
    pub(crate) fn parse(specs: &'static [Spec], args: &[String]) -> Result<Self, JoptError> {
        let mut given: HashMap<&'static str, Vec<String>> = HashMap::new();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                continue;
            };
            if name.is_empty() {
                continue;
            }
            let (name, attached) = match name.split_once('=') {
                Some((name, attached)) => (name, Some(attached.to_owned())),
                None => (name, None),
            };
            let Some(spec) = specs.iter().chain(&COMMON).find(|spec| spec.name == name) else {
                return Err(JoptError::new(
                    "UnrecognizedOptionException",
                    // One dash starts a row of single letters.
                    match word.starts_with("--") {
                        true => format!("{name} is not a recognized option"),
                        false => {
                            format!(
                                "{} is not a recognized option",
                                name.chars().next().unwrap_or('-')
                            )
                        }
                    },
                ));
            };
            let values = given.entry(spec.name).or_default();
            match spec.takes {
                Takes::Nothing => {}
                Takes::Value(_) => match attached.or_else(|| words.next().cloned()) {
                    Some(value) => values.push(value),
                    None => {
                        return Err(JoptError::new(
                            "OptionMissingRequiredArgumentException",
                            format!("Option {name} requires an argument"),
                        ));
                    }
                },
                Takes::Perhaps(_) => match attached {
                    Some(value) => values.push(value),
                    None => {
                        let next = words.clone().next().filter(|next| !next.starts_with('-'));
                        if let Some(next) = next {
                            values.push(next.clone());
                            words.next();
                        }
                    }
                },
            }
        }
        Ok(Self { specs, given })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// All values of an option, in order.
    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// The one value of an option.
    ///
    /// # Errors
    ///
    /// If it was given more than once.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, JoptError> {
        match self.all(name) {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(JoptError::new(
                "MultipleArgumentsForOptionException",
                format!("Found multiple arguments for option {name}, but you asked for only one"),
            )),
        }
    }

    /// The one value of an option, as a number.
    ///
    /// # Errors
    ///
    /// If it is none, or was given more than once.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, JoptError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(JoptError::new(
                "OptionArgumentConversionException",
                format!("Cannot parse argument '{text}' of option {name}"),
            )),
        }
    }

    /// # Errors
    ///
    /// If the option was not given.
    pub(crate) fn require(&self, name: &str) -> Result<(), Failure> {
        if self.has(name) {
            return Ok(());
        }
        Err(self.usage(format!("Missing required argument \"[{name}]\"")))
    }

    /// # Errors
    ///
    /// If one of `others` was given beside `used`.
    pub(crate) fn exclude(&self, used: &str, others: &[&str]) -> Result<(), Failure> {
        match others.iter().find(|other| self.has(used) && self.has(other)) {
            None => Ok(()),
            Some(other) => {
                Err(self
                    .usage(format!("Option \"[{used}]\" can't be used with option \"[{other}]\"")))
            }
        }
    }

    /// Ends the tool with a message and the help, both on standard error; exit 1.
    pub(crate) fn usage(&self, message: impl Into<String>) -> Failure {
        usage(self.specs, message)
    }

    /// # Errors
    ///
    /// If the user asked for the help or the version: the tool is done then.
    pub(crate) fn help_or_version(&self, about: &str, is_empty: bool) -> Result<(), Failure> {
        if is_empty || self.has("help") {
            return Err(self.usage(about));
        }
        if self.has("version") {
            return Err(Failure {
                stdout: format!("{}\n", super::VERSION),
                stderr: String::new(),
                exit: 0,
            });
        }
        Ok(())
    }
}

const COMMON: [Spec; 2] =
    [flag("help", "Print this."), flag("version", "Print the version of the tools.")];

/// A message and the help of a tool.
pub(crate) fn usage(specs: &[Spec], message: impl Into<String>) -> Failure {
    let mut text = format!("{}\n", message.into());
    let left = |spec: &Spec| match spec.takes {
        Takes::Nothing => format!("--{}", spec.name),
        Takes::Value(what) => format!("--{} <{what}>", spec.name),
        Takes::Perhaps(what) => format!("--{} [{what}]", spec.name),
    };
    let mut rows: Vec<_> = specs.iter().chain(&COMMON).collect();
    rows.sort_by_key(|spec| spec.name);
    let width = rows.iter().map(|spec| left(spec).len()).max().unwrap_or(0);
    for spec in rows {
        let _ = writeln!(text, "{:<width$}  {}", left(spec), spec.help);
    }
    Failure { stdout: String::new(), stderr: text, exit: 1 }
}

/// A mistake that jopt-simple reports.
#[derive(Debug)]
pub(crate) struct JoptError {
    class: &'static str,
    pub(crate) message: String,
}

impl JoptError {
    fn new(class: &'static str, message: String) -> Self {
        Self { class, message }
    }

    /// What a tool prints that does not catch it.
    pub(crate) fn uncaught(&self) -> Failure {
        Failure::uncaught(&format!("joptsimple.{}", self.class), &self.message)
    }
}

impl From<JoptError> for Failure {
    fn from(error: JoptError) -> Self {
        error.uncaught()
    }
}

impl From<JoptError> for Exception {
    fn from(error: JoptError) -> Self {
        Self::new(&format!("joptsimple.{}", error.class), error.message)
    }
}

/// `key=value` pairs; a missing value is empty, a later pair wins.
pub(crate) fn pairs(args: &[String]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for arg in args {
        let (key, value) = arg.split_once('=').unwrap_or((arg, ""));
        match pairs.iter_mut().find(|(known, _)| known == key) {
            Some(pair) => pair.1 = value.to_owned(),
            None => pairs.push((key.to_owned(), value.to_owned())),
        }
    }
    pairs
}

/// The `key=value` lines of a Java properties file.
///
/// # Errors
///
/// If it cannot be read.
pub(crate) fn properties_file(path: &str) -> Result<Vec<(String, String)>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|_| Failure::uncaught("java.nio.file.NoSuchFileException", path))?;
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    Ok(lines
        .map(|line| {
            let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
            (key.trim().to_owned(), value.trim_start().to_owned())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec] = &[
        value("topic", "topic", ""),
        flag("list", ""),
        Spec { name: "state", takes: Takes::Perhaps("states"), help: "" },
    ];

    fn parse(line: &str) -> Result<Options, JoptError> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Options::parse(SPECS, &args)
    }

    #[test]
    fn values_stand_beside_or_behind_an_equals_sign() {
        for line in ["--topic a=b --list", "--topic=a=b -list", "--list word -topic a=b"] {
            let options = parse(line).unwrap();
            assert_eq!(options.one("topic").unwrap(), Some("a=b"), "{line}");
            assert!(options.has("list"), "{line}");
        }
        assert_eq!(parse("--state --list").unwrap().all("state"), &[] as &[String]);
        assert_eq!(parse("--state Empty").unwrap().all("state"), ["Empty"]);
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_jopt_simple() {
        let message = |line| parse(line).unwrap_err().message;
        assert_eq!(message("--zookeeper localhost:2181"), "zookeeper is not a recognized option");
        assert_eq!(message("--topic"), "Option topic requires an argument");
        let twice = parse("--topic a --topic b").unwrap();
        let failure = twice.one("topic").unwrap_err().uncaught();
        assert_eq!(
            failure.stderr,
            "Exception in thread \"main\" joptsimple.MultipleArgumentsForOptionException: Found multiple arguments for option topic, but you asked for only one\n"
        );
    }
}
