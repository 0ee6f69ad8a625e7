//! Text → [`Config`]: Logstash's configuration language, by recursive descent.
//!
//! Strings keep their backslashes as Logstash does by default, so `"\""` holds two characters.
//! A file is read to its first syntax error; every file is read, so each can report one.

use std::sync::Arc;

use elkfk_base::{Mistake, Mistakes, mistakes::did_you_mean};

use super::ast::{
    Attribute, Branch, Comparison, Condition, Config, Operand, Place, Plugin, Section, Setting,
    SettingKind, Statement,
};
use crate::event::FieldRef;

/// Blocks, conditions and values nested deeper than this are refused.
const DEPTH_MAX: usize = 64;

/// Gives the value of an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Parses one file into `config`, adding to its sections.
pub fn parse_file(
    file: &str,
    text: &str,
    env: Env<'_>,
    config: &mut Config,
    mistakes: &mut Mistakes,
) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser =
        Parser { file: file.into(), text, at: 0, depth: 0, env, mistakes, located: (0, 1, 1) };
    if let Err(mistake) = parser.file(config) {
        parser.mistakes.push(mistake);
    }
}

struct Parser<'a> {
    file: Arc<str>,
    text: &'a str,
    at: usize,
    depth: usize,
    env: Env<'a>,
    /// Mistakes after which parsing went on.
    mistakes: &'a mut Mistakes,
    /// Byte, line and column last computed, so that places cost one pass over the text.
    located: (usize, usize, usize),
}

type Parsed<T> = Result<T, Mistake>;

impl<'a> Parser<'a> {
    fn file(&mut self, config: &mut Config) -> Parsed<()> {
        self.skip();
        while self.at < self.text.len() {
            let place = self.place();
            let name = self.word();
            let (section, into) = match name {
                "input" => (Section::Input, &mut config.inputs),
                "filter" => (Section::Filter, &mut config.filters),
                "output" => (Section::Output, &mut config.outputs),
                "" => return Err(self.unexpected("a section: input { }, filter { } or output { }")),
                other => {
                    let hint = did_you_mean(other, ["input", "filter", "output"]);
                    return Err(place.mistake(format!(
                        "unknown section \"{other}\"{hint}; a file holds input {{ }}, filter {{ }} and output {{ }}"
                    )));
                }
            };
            self.skip();
            let open = self.place();
            self.expect("{", "to open the section")?;
            let mut statements = self.statements(section, &open)?;
            into.append(&mut statements);
            self.skip();
        }
        Ok(())
    }

    /// Plugins and branches up to and with the closing brace.
    fn statements(&mut self, section: Section, open: &Place) -> Parsed<Vec<Statement>> {
        self.nest()?;
        let mut statements = Vec::new();
        loop {
            self.skip();
            if self.eat("}") {
                self.depth -= 1;
                return Ok(statements);
            }
            if self.at == self.text.len() {
                return Err(open.mistake("this { is never closed; add a }"));
            }
            if self.at_keyword("if") {
                statements.push(Statement::Branch(self.branch(section)?));
            } else if self.at_keyword("else") {
                let hint = "an else without if; it must follow the } of an if";
                return Err(self.place().mistake(hint));
            } else {
                statements.push(Statement::Plugin(self.plugin(section)?));
            }
        }
    }

    fn branch(&mut self, section: Section) -> Parsed<Branch> {
        let mut branch = Branch { arms: Vec::new(), otherwise: Vec::new() };
        self.at += "if".len();
        loop {
            let condition = self.condition()?;
            self.skip();
            let open = self.place();
            if !self.eat("{") {
                return Err(
                    self.unexpected("{, or and, or, in, ==, =~ to go on with the condition")
                );
            }
            branch.arms.push((condition, self.statements(section, &open)?));
            let before = self.at;
            self.skip();
            if !self.at_keyword("else") {
                self.at = before;
                return Ok(branch);
            }
            self.at += "else".len();
            self.skip();
            if self.at_keyword("if") {
                self.at += "if".len();
                continue;
            }
            if self.at_keyword("elsif") || self.at_keyword("elif") {
                return Err(self.unexpected("else if or else {"));
            }
            let open = self.place();
            self.expect("{", "after else")?;
            branch.otherwise = self.statements(section, &open)?;
            return Ok(branch);
        }
    }

    fn plugin(&mut self, section: Section) -> Parsed<Plugin> {
        let place = self.place();
        let wanted = if section == Section::Codec {
            "a codec's name"
        } else {
            "a plugin's name, an if, or the } of the section"
        };
        let name = self.name(wanted)?;
        self.skip();
        if !self.eat("{") {
            if self.rest().starts_with("=>") {
                return Err(place.mistake(format!(
                    "option \"{name}\" stands outside of a plugin; move it between a plugin's {{ and }}"
                )));
            }
            return Err(self.unexpected(&format!("{{ after {section} \"{name}\"")));
        }
        self.plugin_body(section, name, place)
    }

    /// The attributes after the opening brace.
    fn plugin_body(&mut self, section: Section, name: String, place: Place) -> Parsed<Plugin> {
        self.nest()?;
        let mut plugin = Plugin { section, name, place, attributes: Vec::new() };
        loop {
            self.skip();
            if self.eat("}") {
                self.depth -= 1;
                return Ok(plugin);
            }
            if self.at == self.text.len() {
                return Err(plugin
                    .place
                    .mistake(format!("{section} \"{}\" is never closed; add a }}", plugin.name)));
            }
            if self.rest().starts_with(',') {
                return Err(self.place().mistake("a comma between options; remove it"));
            }
            let place = self.place();
            let wanted = format!("an option's name or the }} of {section} \"{}\"", plugin.name);
            let name = self.name(&wanted)?;
            self.skip();
            if !self.eat("=>") {
                if self.rest().starts_with('{') || name == "if" {
                    return Err(place.mistake(format!(
                        "\"{name}\" within {section} \"{}\", which is not closed; add a }} before it",
                        plugin.name
                    )));
                }
                return Err(self.unexpected(&format!("=> after option \"{name}\"")));
            }
            self.skip();
            let value = self.value()?;
            self.merge(&mut plugin, Attribute { name, place, value });
        }
    }

    /// Logstash merges an attribute given several times: hashes join, arrays grow, scalars become an array.
    fn merge(&mut self, plugin: &mut Plugin, new: Attribute) {
        let Some(held) = plugin.attributes.iter_mut().find(|held| held.name == new.name) else {
            plugin.attributes.push(new);
            return;
        };
        if new.name == "codec" {
            self.mistakes
                .push(new.place.mistake("a second codec; a plugin has one, remove the other"));
            return;
        }
        match (&mut held.value.kind, new.value.kind) {
            (SettingKind::Hash(held), SettingKind::Hash(new)) => held.extend(new),
            (SettingKind::Array(held), SettingKind::Array(new)) => held.extend(new),
            (SettingKind::Array(held), kind) => {
                held.push(Setting { place: new.value.place, kind });
            }
            (SettingKind::Hash(_), _) => self.mistakes.push(new.place.mistake(format!(
                "\"{}\" is given as a hash before; write this as a hash too",
                new.name
            ))),
            (kind, new_kind) if *kind == new_kind => {}
            (kind, new_kind) => {
                let first = Setting { place: held.value.place.clone(), kind: kind.clone() };
                let mut all = vec![first];
                match new_kind {
                    SettingKind::Array(more) => all.extend(more),
                    kind => all.push(Setting { place: new.value.place, kind }),
                }
                *kind = SettingKind::Array(all);
            }
        }
    }

    fn value(&mut self) -> Parsed<Setting> {
        let place = self.place();
        let kind = match self.peek() {
            Some('"' | '\'') => SettingKind::Text(self.string()?),
            Some('[') => SettingKind::Array(self.array(&place)?),
            Some('{') => SettingKind::Hash(self.hash(&place)?),
            Some('-' | '0'..='9') => SettingKind::Number(self.number()?),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let word = self.word().to_owned();
                let after_word = self.at;
                self.skip();
                if self.eat("{") {
                    SettingKind::Plugin(self.plugin_body(Section::Codec, word, place.clone())?)
                } else {
                    self.at = after_word;
                    if word.contains('-') {
                        return Err(
                            place.mistake(format!("\"{word}\" needs quotes, because of its -"))
                        );
                    }
                    SettingKind::Text(word)
                }
            }
            Some('/') => {
                return Err(place
                    .mistake("a regular expression as a value; write it as a string in quotes"));
            }
            _ => return Err(self.unexpected("a value: a string, number, word, [ ] or { }")),
        };
        Ok(Setting { place, kind })
    }

    fn array(&mut self, open: &Place) -> Parsed<Vec<Setting>> {
        self.nest()?;
        self.at += 1;
        let mut values = Vec::new();
        self.skip();
        if self.eat("]") {
            self.depth -= 1;
            return Ok(values);
        }
        loop {
            self.skip();
            if self.rest().starts_with(']') {
                return Err(self.place().mistake("a comma before ]; remove it"));
            }
            values.push(self.value()?);
            self.skip();
            if self.eat("]") {
                self.depth -= 1;
                return Ok(values);
            }
            if self.at == self.text.len() {
                return Err(open.mistake("this [ is never closed; add a ]"));
            }
            if !self.eat(",") {
                return Err(self.unexpected(", or ] in the array"));
            }
        }
    }

    fn hash(&mut self, open: &Place) -> Parsed<Vec<(String, Setting)>> {
        self.nest()?;
        self.at += 1;
        let mut entries: Vec<(String, Setting)> = Vec::new();
        loop {
            self.skip();
            if self.eat("}") {
                self.depth -= 1;
                return Ok(entries);
            }
            let place = self.place();
            let key = match self.peek() {
                Some('"' | '\'') => self.raw_string()?.to_owned(),
                Some('-' | '0'..='9') => self.number()?,
                Some(c) if c.is_ascii_alphabetic() || c == '_' => self.word().to_owned(),
                Some(',') => {
                    return Err(place
                        .mistake("a comma in a hash; remove it, entries are separated by spaces"));
                }
                None => return Err(open.mistake("this { is never closed; add a }")),
                _ => return Err(self.unexpected("a key or the } of the hash")),
            };
            self.skip();
            self.expect("=>", "after the key of a hash")?;
            self.skip();
            let value = self.value()?;
            if entries.iter().any(|(held, _)| *held == key) {
                self.mistakes.push(place.mistake(format!(
                    "key \"{key}\" stands twice in this hash; put its values in one array"
                )));
            }
            entries.push((key, value));
        }
    }

    /// Conditions joined by and, or, xor, nand. `and` binds tighter than `or`.
    fn condition(&mut self) -> Parsed<Condition> {
        self.nest()?;
        let mut operands = vec![self.expression()?];
        let mut operators: Vec<(&str, Place)> = Vec::new();
        loop {
            let before = self.at;
            self.skip();
            let place = self.place();
            let Some(operator) =
                ["and", "or", "xor", "nand"].into_iter().find(|word| self.at_keyword(word))
            else {
                if ["&&", "||"].iter().any(|c| self.rest().starts_with(c)) {
                    return Err(self.unexpected("and or or, as Logstash writes them"));
                }
                self.at = before;
                break;
            };
            self.at += operator.len();
            operators.push((operator, place));
            operands.push(self.expression()?);
        }
        self.depth -= 1;
        if operators.len() > 1
            && let Some((operator, place)) =
                operators.iter().find(|(operator, _)| matches!(*operator, "xor" | "nand"))
        {
            return Err(place.mistake(format!(
                "{operator} in a chain has no precedence; put ( ) around its two sides"
            )));
        }
        let mut operands = operands.into_iter();
        let mut any: Vec<Condition> = operands.next().into_iter().collect();
        for ((operator, _), right) in operators.into_iter().zip(operands) {
            let Some(left) = any.pop() else { break };
            match operator {
                "and" => any.push(Condition::And(left.into(), right.into())),
                "xor" => any.push(Condition::Xor(left.into(), right.into())),
                "nand" => any.push(Condition::Nand(left.into(), right.into())),
                _ => any.extend([left, right]),
            }
        }
        any.into_iter()
            .reduce(|left, right| Condition::Or(left.into(), right.into()))
            .ok_or_else(|| self.unexpected("a condition"))
    }

    fn expression(&mut self) -> Parsed<Condition> {
        self.skip();
        if self.eat("(") {
            return self.parenthesis();
        }
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            self.skip();
            let inner = if self.eat("(") {
                self.parenthesis()?
            } else if self.rest().starts_with('[') {
                let operand = self.selector()?;
                self.reject_operator_after_not()?;
                Condition::Truthy(operand)
            } else {
                return Err(self.unexpected("( or [field] after !"));
            };
            return Ok(Condition::Not(inner.into()));
        }
        let place = self.place();
        let left = self.operand()?;
        let before = self.at;
        self.skip();
        let operator_place = self.place();
        for (text, comparison) in [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ] {
            if self.eat(text) {
                self.skip();
                let right = self.operand()?;
                return Ok(Condition::Compare(left, comparison, right));
            }
        }
        for (text, is_negated) in [("=~", false), ("!~", true)] {
            if self.eat(text) {
                self.skip();
                let place = self.place();
                let pattern = match self.peek() {
                    Some('/') => self.regex()?,
                    Some('"' | '\'') => self.string()?,
                    _ => return Err(self.unexpected("a /regular expression/ or a string after =~")),
                };
                let matches = Condition::Matches(left, pattern, place);
                return Ok(if is_negated { Condition::Not(matches.into()) } else { matches });
            }
        }
        if self.at_keyword("in") {
            self.at += "in".len();
            self.skip();
            return Ok(Condition::In(left, self.operand()?));
        }
        if self.at_keyword("not") {
            self.at += "not".len();
            self.skip();
            if !self.at_keyword("in") {
                return Err(self.unexpected("in after not"));
            }
            self.at += "in".len();
            self.skip();
            let inside = Condition::In(left, self.operand()?);
            return Ok(Condition::Not(inside.into()));
        }
        if self.rest().starts_with('=') {
            return Err(operator_place
                .mistake("= compares nothing; write == for equality, =~ for a pattern"));
        }
        self.at = before;
        match left {
            Operand::Array(_) => Err(place.mistake("an array alone is no condition; use in or ==")),
            left => Ok(Condition::Truthy(left)),
        }
    }

    /// `![a] == 1` reads as `(![a]) == 1`, which Logstash refuses too.
    fn reject_operator_after_not(&mut self) -> Parsed<()> {
        let before = self.at;
        self.skip();
        let is_operator =
            ["==", "!=", "<", ">", "=~", "!~"].iter().any(|o| self.rest().starts_with(o))
                || self.at_keyword("in")
                || self.at_keyword("not");
        if is_operator {
            return Err(self.place().mistake("! holds for the field alone; write !([field] == …)"));
        }
        self.at = before;
        Ok(())
    }

    fn parenthesis(&mut self) -> Parsed<Condition> {
        let condition = self.condition()?;
        self.skip();
        if !self.eat(")") {
            return Err(self.unexpected(") or an operator"));
        }
        Ok(condition)
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let place = self.place();
        match self.peek() {
            Some('"' | '\'') => Ok(Operand::Text(self.string()?)),
            Some('-' | '0'..='9') => {
                let text = self.number()?;
                let int = text.parse().map(Operand::Int).ok();
                int.or_else(|| text.parse().map(Operand::Float).ok())
                    .ok_or_else(|| place.mistake(format!("\"{text}\" is not a number")))
            }
            Some('[') => {
                // An array and a field look alike up to the first element.
                let inner = self.text[self.at + 1..].trim_start();
                let is_array = inner.starts_with(['"', '\'', ']', '['])
                    || (inner.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                        && inner.find([',', ']']).is_some_and(|end| {
                            inner[end..].starts_with(',')
                                || inner[..end].trim().parse::<f64>().is_ok()
                        }));
                if is_array { self.operand_array(&place) } else { self.selector() }
            }
            Some('/') => Err(place.mistake("a /regular expression/ may only stand after =~ or !~")),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let word = self.word();
                if self.rest().starts_with('(') {
                    return Err(place
                        .mistake(format!("\"{word}(\": Logstash has no functions in conditions")));
                }
                Err(place.mistake(format!(
                    "\"{word}\" is neither text nor field; write \"{word}\" or [{word}]"
                )))
            }
            _ => Err(self.unexpected("a [field], \"text\", number or ( in the condition")),
        }
    }

    fn operand_array(&mut self, open: &Place) -> Parsed<Operand> {
        self.nest()?;
        self.at += 1;
        let mut values = Vec::new();
        self.skip();
        if self.eat("]") {
            self.depth -= 1;
            return Ok(Operand::Array(values));
        }
        loop {
            self.skip();
            if self.rest().starts_with(']') {
                return Err(self.place().mistake("a comma before ]; remove it"));
            }
            values.push(self.operand()?);
            self.skip();
            if self.eat("]") {
                self.depth -= 1;
                return Ok(Operand::Array(values));
            }
            if self.at == self.text.len() {
                return Err(open.mistake("this [ is never closed; add a ]"));
            }
            if !self.eat(",") {
                return Err(self.unexpected(", or ] in the array"));
            }
        }
    }

    /// `[a][b]`: brackets without spaces between.
    fn selector(&mut self) -> Parsed<Operand> {
        let (place, start) = (self.place(), self.at);
        while self.rest().starts_with('[') {
            let Some(length) = self.rest()[1..].find(['[', ']', ',']) else {
                return Err(place.mistake("this [ is never closed; add a ]"));
            };
            self.at += 1 + length;
            if length == 0 || !self.eat("]") {
                return Err(self.unexpected("a field's name within [ ]"));
            }
        }
        FieldRef::parse(&self.text[start..self.at])
            .map(Operand::Field)
            .map_err(|error| place.mistake(error.to_string()))
    }

    fn regex(&mut self) -> Parsed<String> {
        let place = self.place();
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        while at < bytes.len() && bytes[at] != b'/' {
            at += if bytes[at] == b'\\' && bytes.get(at + 1) == Some(&b'/') { 2 } else { 1 };
        }
        if at >= bytes.len() {
            return Err(
                place.mistake("this / is never closed; add a / at the end of the expression")
            );
        }
        self.at = at + 1;
        let pattern = self.text[start..at].replace("\\/", "/");
        Ok(self.substitute(&pattern, &place))
    }

    /// A string with the environment put in.
    fn string(&mut self) -> Parsed<String> {
        let place = self.place();
        let raw = self.raw_string()?;
        Ok(self.substitute(raw, &place))
    }

    /// A string as written, without its quotes. An escaped quote does not end it, and stays escaped.
    fn raw_string(&mut self) -> Parsed<&'a str> {
        let place = self.place();
        let bytes = self.text.as_bytes();
        let (quote, start) = (bytes[self.at], self.at + 1);
        let mut at = start;
        while at < bytes.len() && bytes[at] != quote {
            at += if bytes[at] == b'\\' && bytes.get(at + 1) == Some(&quote) { 2 } else { 1 };
        }
        if at >= bytes.len() {
            return Err(place.mistake(format!(
                "this {0} is never closed; add a {0} at the end of the text",
                char::from(quote)
            )));
        }
        self.at = at + 1;
        Ok(&self.text[start..at])
    }

    /// Puts in `${NAME}` and `${NAME:default}`.
    fn substitute(&mut self, text: &str, place: &Place) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(start) = rest.find("${") {
            let inner = &rest[start + 2..];
            let name_end = inner
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(inner.len());
            let is_name = name_end > 0 && !inner.starts_with(|c: char| c.is_ascii_digit());
            let after = &inner[name_end..];
            let found = match (is_name, after.chars().next()) {
                (true, Some('}')) => Some((None, name_end + 1)),
                (true, Some(':')) => {
                    after.find('}').map(|end| (Some(&after[1..end]), name_end + end + 1))
                }
                _ => None,
            };
            let Some((default, used)) = found else {
                out.push_str(&rest[..start + 2]);
                rest = inner;
                continue;
            };
            out.push_str(&rest[..start]);
            let name = &inner[..name_end];
            match ((self.env)(name), default) {
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => self.mistakes.push(place.mistake(format!(
                    "environment variable {name} is not set; set it or write ${{{name}:default}}"
                ))),
            }
            rest = &inner[used..];
        }
        out.push_str(rest);
        out
    }

    fn number(&mut self) -> Parsed<String> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
        if digits == 0 {
            return Err(self.unexpected("a digit after -"));
        }
        let mut length = sign + digits;
        if rest[length..].starts_with('.') {
            let decimals = &rest[length + 1..];
            length += 1 + decimals.find(|c: char| !c.is_ascii_digit()).unwrap_or(decimals.len());
        }
        if rest[length..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.') {
            let end =
                rest.find(|c: char| c.is_whitespace() || "}],)#".contains(c)).unwrap_or(rest.len());
            return Err(self
                .place()
                .mistake(format!("\"{}\" is not a number; put it in quotes", &rest[..end])));
        }
        self.at += length;
        Ok(rest[..length].trim_end_matches('.').to_owned())
    }

    /// A bare or quoted name of a plugin or option.
    fn name(&mut self, wanted: &str) -> Parsed<String> {
        match self.peek() {
            Some('"' | '\'') => Ok(self.raw_string()?.to_owned()),
            _ => match self.word() {
                "" => Err(self.unexpected(wanted)),
                word => Ok(word.to_owned()),
            },
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Whether `word` stands here as a whole word.
    fn at_keyword(&self, word: &str) -> bool {
        self.rest().strip_prefix(word).is_some_and(|rest| {
            !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        })
    }

    fn nest(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.place().mistake(format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest().trim_start_matches([' ', '\t', '\r', '\n']);
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, text: &str) -> bool {
        let is_here = self.rest().starts_with(text);
        if is_here {
            self.at += text.len();
        }
        is_here
    }

    fn expect(&mut self, text: &str, why: &str) -> Parsed<()> {
        if self.eat(text) { Ok(()) } else { Err(self.unexpected(&format!("{text} {why}"))) }
    }

    /// The place of the next byte.
    fn place(&mut self) -> Place {
        let (from, mut line, mut column) =
            if self.located.0 <= self.at { self.located } else { (0, 1, 1) };
        for c in self.text[from..self.at].chars() {
            if c == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        self.located = (self.at, line, column);
        Place { file: self.file.clone(), line, column }
    }

    fn unexpected(&mut self, wanted: &str) -> Mistake {
        let found = match self.peek() {
            None => "the end of the file".to_owned(),
            Some(c) if c.is_ascii_alphanumeric() || c == '_' => {
                let at = self.at;
                let word = self.word();
                self.at = at;
                format!("\"{word}\"")
            }
            Some(c) => format!("\"{c}\""),
        };
        self.place().mistake(format!("found {found}; here must stand {wanted}"))
    }
}
