//! What the autoscaler decided, read from its topic.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use elkfk_autoscaler::Event;
use elkfk_autoscaler::ladder::{
    Advice, Alarm, Decision, Effect, Inputs, explain as rungs, number, of_action, seconds,
};
use elkfk_autoscaler::shell::Decisions;
use elkfk_broker_client::Client;

use crate::args::{AutoscaleLog, AutoscaleStatus, DecisionsOf, Explain};
use crate::say::{asideln, or_end as say};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks while following.
const FOLLOW_WAIT: Duration = Duration::from_millis(500);
/// Of a log, held at once.
const LINES_MAX: usize = 100_000;

/// The events of a cluster from the first that is kept on.
struct Reader {
    decisions: Decisions,
    offset: i64,
    group: Option<String>,
}

impl Reader {
    /// None, said, where nothing was ever decided.
    async fn open(of: &DecisionsOf) -> Result<Option<Self>> {
        let client = Client::new(elkfk_broker_client::Config {
            timeout: TIMEOUT,
            ..elkfk_broker_client::Config::to(&of.bootstrap_server)
        });
        let decisions = Decisions::new(client, of.decisions_topic.clone());
        let ask = || format!("ask {} for topic {}", of.bootstrap_server, of.decisions_topic);
        if !decisions.exists().await.with_context(ask)? {
            asideln!("nothing was decided yet: there is no topic {}", of.decisions_topic);
            return Ok(None);
        }
        let offset = decisions.offset_since(0).await.with_context(ask)?;
        Ok(Some(Self { decisions, offset, group: of.group.clone() }))
    }

    /// The next events, and whether there are more at once.
    async fn next(&mut self, wait: Duration) -> Result<(Vec<Event>, bool)> {
        let page = self.decisions.read(self.offset, wait).await.context("read decisions")?;
        let is_more = !page.is_last() && page.next_offset > self.offset;
        self.offset = page.next_offset;
        let mut events = page.events;
        if let Some(group) = &self.group {
            events.retain(|event| event.of().0 == group);
        }
        Ok((events, is_more))
    }

    /// Every event up to now.
    async fn all(&mut self, mut take: impl FnMut(Event)) -> Result<()> {
        loop {
            let (events, is_more) = self.next(Duration::ZERO).await?;
            events.into_iter().for_each(&mut take);
            if !is_more {
                return Ok(());
            }
        }
    }
}

/// The last of each kind, of a group and topic.
#[derive(Default)]
struct Last {
    decision: Option<Decision>,
    acted: Option<Decision>,
    effect: Option<Effect>,
}

impl Last {
    fn take(&mut self, event: Event) {
        match event {
            Event::Decision(decision) => {
                if decision.action.is_some() {
                    // What became of the step before is not what became of this one.
                    self.effect = None;
                    self.acted = Some((*decision).clone());
                }
                self.decision = Some(*decision);
            }
            Event::Effect(effect) => self.effect = Some(effect),
        }
    }
}

async fn last_of_each(reader: &mut Reader) -> Result<BTreeMap<(String, String), Last>> {
    let mut last: BTreeMap<(String, String), Last> = BTreeMap::new();
    let take = |event: Event| {
        let (group, topic) = event.of();
        last.entry((topic.to_owned(), group.to_owned())).or_default().take(event);
    };
    reader.all(take).await?;
    Ok(last)
}

pub(super) async fn status(args: &AutoscaleStatus) -> Result<bool> {
    let Some(mut reader) = Reader::open(&args.of).await? else { return Ok(false) };
    let mut last = last_of_each(&mut reader).await?;
    last.retain(|_, last| last.decision.is_some());
    for ((topic, group), last) in &last {
        if args.json {
            let document = serde_json::json!({
                "group": group,
                "topic": topic,
                "decision": last.decision,
                "acted": last.acted,
                "effect": last.effect,
            });
            say(&format!("{document}\n"));
        } else if let Some(decision) = &last.decision {
            say(&status_text(decision, last.acted.as_ref(), last.effect.as_ref()));
        }
    }
    if last.is_empty() {
        asideln!("nothing was decided yet");
    }
    Ok(!last.is_empty())
}

fn status_text(decision: &Decision, acted: Option<&Decision>, effect: Option<&Effect>) -> String {
    let Decision { group, topic, inputs, .. } = decision;
    let mut text =
        format!("{topic} in {group}   mode {}   {}\n", decision.mode.name(), time(decision.at_ms));
    let _ = writeln!(text, "  {:<12} {}", "rule", decision.rule.name());
    let _ = writeln!(text, "  {:<12} {}", "why", decision.why);
    let _ = writeln!(text, "  {:<12} {}", "inputs", inputs_text(inputs));
    let _ = writeln!(text, "  {:<12} {}", "alarms", alarms_text(&decision.alarms));
    for advice in &decision.advice {
        let _ = writeln!(text, "  {:<12} {}", "offered", advice_text(advice));
    }
    let step = acted.and_then(|acted| Some((acted.at_ms, acted.action?)));
    let _ = match step {
        None => writeln!(text, "  {:<12} none", "last step"),
        Some((at_ms, action)) => {
            writeln!(text, "  {:<12} {}  {}", "last step", time(at_ms), of_action(action))
        }
    };
    if let Some(effect) = effect {
        let _ = writeln!(text, "  {:<12} {}: {}", "its effect", effect.verdict.name(), effect.why);
    } else if step.is_some() {
        let _ = writeln!(text, "  {:<12} not known yet", "its effect");
    }
    text
}

fn inputs_text(inputs: &Inputs) -> String {
    let sink = match inputs.workers_max {
        0 => "no sink answers".to_owned(),
        max => format!(
            "{} of {max} workers; Elasticsearch blocks {:.0} %",
            inputs.workers,
            inputs.blocked_share * 100.0
        ),
    };
    format!(
        "{}/s arrive, {}/s are consumed, {} records wait, the oldest for {}; {} of {} consumers, {} of {} partitions; {sink}",
        number(inputs.arrival_per_s),
        number(inputs.consumed_per_s),
        number(inputs.lag_records as f64),
        seconds(inputs.time_lag_s),
        inputs.consumers,
        inputs.consumers_max,
        inputs.partitions,
        inputs.partitions_max
    )
}

fn alarms_text(alarms: &[Alarm]) -> String {
    let text = |alarm: &Alarm| match alarm {
        Alarm::Stalled { partitions, count } => {
            let named: Vec<_> = partitions.iter().map(u32::to_string).collect();
            let more = if *count as usize > partitions.len() { ", …" } else { "" };
            format!("stalled: partition {}{more}", named.join(", "))
        }
        Alarm::HotFile { path } => format!("hot file: {path}"),
        Alarm::HotPartition { partition } => format!("hot partition: {partition}"),
        Alarm::Retention { group } => format!("retention: {group} is about to lose records unread"),
        other => other.name().to_owned(),
    };
    match alarms {
        [] => "none".to_owned(),
        alarms => alarms.iter().map(text).collect::<Vec<_>>().join("; "),
    }
}

fn advice_text(advice: &Advice) -> String {
    match advice {
        Advice::BulkConcurrency => {
            "more bulk requests at once, if Elasticsearch has capacity left".to_owned()
        }
        Advice::Retention { retention_ms, slowest_group } => format!(
            "retention.ms={retention_ms} ({}) deletes nothing that {slowest_group} has yet to read",
            seconds(*retention_ms as f64 / 1000.0)
        ),
    }
}

pub(super) async fn log(args: &AutoscaleLog) -> Result<bool> {
    let Some(mut reader) = Reader::open(&args.of).await? else { return Ok(false) };
    let is_wanted = |event: &Event| {
        let is_step = match event {
            Event::Decision(decision) => decision.action.is_some() || decision.advised.is_some(),
            Event::Effect(_) => true,
        };
        args.topic.as_deref().is_none_or(|topic| topic == event.of().1) && (is_step || !args.acted)
    };
    let most = args.lines.min(LINES_MAX);
    let mut kept: VecDeque<Event> = VecDeque::new();
    let take = |event: Event| {
        if is_wanted(&event) {
            kept.push_back(event);
        }
        if kept.len() > most {
            kept.pop_front();
        }
    };
    reader.all(take).await?;
    let tell = |event: &Event| -> Result<()> {
        let text = if args.json { serde_json::to_string(event)? } else { line(event) };
        say(&format!("{text}\n"));
        Ok(())
    };
    kept.iter().try_for_each(tell)?;
    if !args.follow {
        return Ok(true);
    }
    loop {
        let (events, _) = reader.next(FOLLOW_WAIT).await?;
        events.iter().filter(|event| is_wanted(event)).try_for_each(tell)?;
    }
}

fn line(event: &Event) -> String {
    let (group, topic) = event.of();
    let (name, why) = match event {
        Event::Decision(decision) => (decision.rule.name().to_owned(), &decision.why),
        Event::Effect(effect) => (format!("effect: {}", effect.verdict.name()), &effect.why),
    };
    format!("{}  {topic} in {group}  {name:<23} {why}", time(event.at_ms()))
}

pub(super) async fn explain(args: &Explain) -> Result<bool> {
    let Some(mut reader) = Reader::open(&args.of).await? else { return Ok(false) };
    let mut last = last_of_each(&mut reader).await?;
    last.retain(|(topic, _), last| *topic == args.topic && last.decision.is_some());
    for last in last.values() {
        let Some(decision) = &last.decision else { continue };
        say(&explanation(decision));
        if let Some(effect) = &last.effect {
            say(&format!("\nThe last step, {}: {}\n", time(effect.of_ms), effect.why));
        }
    }
    if last.is_empty() {
        asideln!("nothing was decided about {} yet", args.topic);
    }
    Ok(!last.is_empty())
}

fn explanation(decision: &Decision) -> String {
    let mut text = format!(
        "{} in {}, {}, mode {}: {}\n\n",
        decision.topic,
        decision.group,
        time(decision.at_ms),
        decision.mode.name(),
        decision.rule.name()
    );
    let asked = rungs(decision);
    let width = asked.iter().map(|rung| rung.rung.chars().count()).max().unwrap_or(0);
    for rung in &asked {
        let state = if rung.is_last { "→" } else { "✓" };
        let _ = writeln!(text, "{state} {:<width$}  {}", rung.rung, rung.text);
    }
    if !decision.alarms.is_empty() {
        let _ = writeln!(text, "\nAlarms: {}.", alarms_text(&decision.alarms));
    }
    for advice in &decision.advice {
        let _ = writeln!(text, "\nOffered, never taken: {}.", advice_text(advice));
    }
    text
}

/// As clocks here show it.
fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => {
            let at = at.to_zoned(jiff::tz::TimeZone::system());
            at.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => ms.to_string(),
    }
}
