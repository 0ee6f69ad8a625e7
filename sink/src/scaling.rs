//! What may be changed of a running sink, and by how much. Pure: threads are the crew's.

use elkfk_base::mistakes::did_you_mean;
use serde_json::Value;

/// How many threads there may be, and may not be less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) workers_max: usize,
    /// For each input.
    pub(crate) consumers_max: usize,
    /// Consumers of each input by its own `consumer_threads`; those always stay. Never empty.
    pub(crate) configured: Vec<usize>,
}

/// What a caller wants changed; `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    pub workers: Option<usize>,
    /// Of each input.
    pub consumers: Option<usize>,
}

/// A wish that can be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) workers: Option<usize>,
    /// Of each input, in the order of inputs.
    pub(crate) consumers: Option<Vec<usize>>,
    /// Why less was changed than was wished for.
    pub(crate) remark: Option<String>,
}

/// Why a wish cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{what} {wanted}: there may be 1 to {max}")]
    OutOfBounds { what: &'static str, wanted: usize, max: usize },
    #[error("{0}; give {{\"workers\": n}}, {{\"consumers\": n}} or both")]
    NotUnderstood(String),
}

const WORKERS: &str = "workers";
const CONSUMERS: &str = "consumers";

impl Bounds {
    /// What is configured may exceed a limit that was given or is the default: it is then the limit.
    pub(crate) fn new(
        workers: usize,
        workers_max: usize,
        configured: Vec<usize>,
        consumers_max: usize,
    ) -> Self {
        let consumers = configured.iter().copied().max().unwrap_or(1);
        Self {
            workers_max: workers_max.max(workers),
            consumers_max: consumers_max.max(consumers),
            configured,
        }
    }

    /// # Errors
    /// The first count that is out of bounds; nothing is to be changed then.
    pub(crate) fn grant(&self, wish: Wish) -> Result<Granted, Refused> {
        let within = |what, wanted: Option<usize>, max| match wanted {
            Some(wanted) if wanted == 0 || wanted > max => {
                Err(Refused::OutOfBounds { what, wanted, max })
            }
            wanted => Ok(wanted),
        };
        let workers = within(WORKERS, wish.workers, self.workers_max)?;
        let wanted = within(CONSUMERS, wish.consumers, self.consumers_max)?;
        let consumers = wanted
            .map(|wanted| self.configured.iter().map(|own| wanted.max(*own)).collect::<Vec<_>>());
        let remark = wanted.filter(|wanted| self.configured.iter().any(|own| own > wanted)).map(
            |wanted| match &self.configured[..] {
                [own] => format!(
                    "consumers {wanted}: stay at {own}, the consumer_threads of the input, which is the least there may be"
                ),
                all => format!(
                    "consumers {wanted}: inputs with more consumer_threads keep theirs, which is the least there may be: {all:?}"
                ),
            },
        );
        Ok(Granted { workers, consumers, remark })
    }
}

/// The consumers that every input has at least: the one number for all of them, which is what was
/// last wished for unless it was below each.
pub(crate) fn consumers_of_each(inputs: impl IntoIterator<Item = usize>) -> usize {
    inputs.into_iter().min().unwrap_or(0)
}

impl Wish {
    /// Reads `{"workers": 4, "consumers": 3}`; one of them may be left out.
    ///
    /// # Errors
    /// Anything else, with what was wrong of it.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, Refused> {
        let wrong = |text: String| Err(Refused::NotUnderstood(text));
        let fields = match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return wrong("the body is no JSON object".into()),
            Err(error) => return wrong(format!("the body is no JSON: {error}")),
        };
        let mut wish = Self::default();
        for (name, value) in &fields {
            let wanted = value.as_u64().and_then(|wanted| usize::try_from(wanted).ok());
            let held = match name.as_str() {
                WORKERS => &mut wish.workers,
                CONSUMERS => &mut wish.consumers,
                other => {
                    let hint = did_you_mean(other, [WORKERS, CONSUMERS]);
                    return wrong(format!("unknown field \"{other}\"{hint}"));
                }
            };
            if wanted.is_none() {
                return wrong(format!("{name} {value} is no count"));
            }
            *held = wanted;
        }
        if wish == Self::default() {
            return wrong("nothing is to be changed".into());
        }
        Ok(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(workers: usize) -> Wish {
        Wish { workers: Some(workers), consumers: None }
    }

    fn consumers(consumers: usize) -> Wish {
        Wish { workers: None, consumers: Some(consumers) }
    }

    #[test]
    fn counts_out_of_bounds_are_refused_with_the_limit() {
        let bounds = Bounds::new(2, 8, vec![1], 3);
        assert_eq!(bounds.grant(workers(8)).unwrap().workers, Some(8));
        let refused = |wish| bounds.grant(wish).unwrap_err().to_string();
        assert_eq!(refused(workers(9)), "workers 9: there may be 1 to 8");
        assert_eq!(refused(workers(0)), "workers 0: there may be 1 to 8");
        assert_eq!(refused(consumers(4)), "consumers 4: there may be 1 to 3");
        assert_eq!(refused(consumers(0)), "consumers 0: there may be 1 to 3");
        // Neither is changed then.
        let both = Wish { workers: Some(3), consumers: Some(4) };
        assert_eq!(refused(both), "consumers 4: there may be 1 to 3");
    }

    #[test]
    fn consumers_never_fall_below_what_is_configured() {
        let bounds = Bounds::new(2, 8, vec![2], 8);
        let granted = bounds.grant(consumers(1)).unwrap();
        assert_eq!(granted.consumers, Some(vec![2]));
        assert!(
            granted.remark.unwrap().starts_with("consumers 1: stay at 2, the consumer_threads")
        );
        assert_eq!(bounds.grant(consumers(2)).unwrap().remark, None);

        let bounds = Bounds::new(2, 8, vec![1, 3], 8);
        let granted = bounds.grant(consumers(2)).unwrap();
        assert_eq!(granted.consumers, Some(vec![2, 3]));
        assert!(granted.remark.unwrap().ends_with("[1, 3]"));
        assert_eq!(consumers_of_each([2, 3]), 2, "what was wished for");
        assert_eq!(bounds.grant(consumers(4)).unwrap().consumers, Some(vec![4, 4]));
    }

    #[test]
    fn what_is_configured_raises_the_limit() {
        let bounds = Bounds::new(48, 32, vec![1, 40], 32);
        assert_eq!((bounds.workers_max, bounds.consumers_max), (48, 40));
    }

    #[test]
    fn wishes_are_read_and_mistakes_named() {
        let read = |text: &str| Wish::from_json(text.as_bytes());
        assert_eq!(
            read(r#"{"workers": 4, "consumers": 3}"#),
            Ok(Wish { workers: Some(4), consumers: Some(3) })
        );
        assert_eq!(read(r#"{"consumers":3}"#), Ok(consumers(3)));
        for (text, wanted) in [
            ("", "the body is no JSON: "),
            ("[4]", "the body is no JSON object; give {\"workers\": n}"),
            ("{}", "nothing is to be changed; give "),
            (r#"{"worker": 4}"#, "unknown field \"worker\", did you mean \"workers\"?; give "),
            (r#"{"workers": "4"}"#, "workers \"4\" is no count"),
            (r#"{"workers": -1}"#, "workers -1 is no count"),
            (r#"{"consumers": null}"#, "consumers null is no count"),
            (r#"{"consumers": 1.5}"#, "consumers 1.5 is no count"),
        ] {
            let text = read(text).unwrap_err().to_string();
            assert!(text.starts_with(wanted), "{text}");
        }
    }
}
