//! The ladder's parameters for every topic, and what single topics have instead.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::ladder::Parameters;

/// Parameters in force: those of a topic, else those of all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    all: Parameters,
    topics: BTreeMap<String, Parameters>,
}

/// What is wrong with a file of parameters, all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(pub Vec<String>);

impl Settings {
    /// The same for every topic.
    pub fn all(parameters: Parameters) -> Self {
        Self { all: parameters, topics: BTreeMap::new() }
    }

    /// Reads parameters from JSON: an object of them, in which `topics` holds such an object for each topic
    /// that has others. `flags` win over the object of all topics, and a topic's own over both.
    ///
    /// `name` stands before each mistake.
    ///
    /// # Errors
    ///
    /// With every mistake.
    pub fn parse(name: &str, text: &str, flags: Map<String, Value>) -> Result<Self, SettingsError> {
        let one = |mistake: String| SettingsError(vec![format!("{name}: {mistake}")]);
        let mut all: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| one(error.to_string()))?;
        let topics = match all.remove("topics") {
            None => Map::new(),
            Some(Value::Object(topics)) => topics,
            Some(other) => return Err(one(format!("topics: {other} is no object of topics"))),
        };
        all.extend(flags);
        let mut mistakes = Vec::new();
        let mut settings = Self::all(read(&format!("{name}: "), all.clone(), &mut mistakes));
        for (topic, own) in topics {
            let place = format!("topics.{topic}: ");
            let Value::Object(own) = own else {
                mistakes.push(format!("{name}: {place}{own} is no object of parameters"));
                continue;
            };
            if own.contains_key("interval_s") {
                // One round looks at every topic.
                mistakes.push(format!("{name}: {place}interval_s is one for all topics"));
                continue;
            }
            let mut object = all.clone();
            object.extend(own);
            settings.topics.insert(topic, read(&format!("{name}: {place}"), object, &mut mistakes));
        }
        if mistakes.is_empty() { Ok(settings) } else { Err(SettingsError(mistakes)) }
    }

    /// Those of `topic`.
    pub fn of(&self, topic: &str) -> &Parameters {
        self.topics.get(topic).unwrap_or(&self.all)
    }

    /// Those of topics without their own.
    pub fn of_all(&self) -> &Parameters {
        &self.all
    }

    /// Every mistake of parameters that were not parsed here.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = self.all.mistakes();
        for (topic, own) in &self.topics {
            mistakes.extend(own.mistakes().into_iter().map(|m| format!("topics.{topic}: {m}")));
        }
        mistakes
    }
}

/// One object of parameters; what is wrong with it goes to `mistakes`, with `place` before it.
fn read(place: &str, object: Map<String, Value>, mistakes: &mut Vec<String>) -> Parameters {
    match serde_json::from_value::<Parameters>(Value::Object(object)) {
        Ok(parameters) => {
            mistakes.extend(parameters.mistakes().into_iter().map(|m| format!("{place}{m}")));
            parameters
        }
        Err(error) => {
            mistakes.push(format!("{place}{error}"));
            Parameters::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::Mode;

    #[test]
    fn a_topic_overrides_a_flag_and_a_flag_the_file() {
        let text =
            r#"{"hot_s": 30, "partitions_max": 16, "topics": {"audit": {"partitions_max": 4}}}"#;
        let mut flags = Map::new();
        flags.insert("partitions_max".into(), 32.into());
        flags.insert("mode".into(), "auto".into());
        let settings = Settings::parse("p.json", text, flags).unwrap();
        let (logs, audit) = (settings.of("logs"), settings.of("audit"));
        assert_eq!((logs.hot_s, logs.partitions_max, logs.mode), (30.0, 32, Mode::Auto));
        assert_eq!((audit.hot_s, audit.partitions_max, audit.mode), (30.0, 4, Mode::Auto));
        assert_eq!(Settings::parse("p", "{}", Map::new()).unwrap(), Settings::default());
    }

    #[test]
    fn mistakes_come_all_at_once_with_their_place() {
        let text = r#"{"hot_s": 0, "topics": {"a": {"hold": 1}, "b": {"interval_s": 5}, "c": 7}}"#;
        let SettingsError(mistakes) = Settings::parse("p.json", text, Map::new()).unwrap_err();
        let all = mistakes.join("\n");
        for part in [
            "p.json: hot_s = 0",
            "p.json: topics.a: unknown field `hold`",
            "p.json: topics.b: interval_s",
            "p.json: topics.c: 7 is no",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
        assert!(Settings::parse("p.json", "[]", Map::new()).is_err());
    }
}
