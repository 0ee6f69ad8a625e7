//! `kafka-consumer-groups --reset-offsets`.

use std::collections::BTreeMap;

use elkfk_broker_client::{OffsetAt, TopicPartition};

use super::super::options::Options;
use super::super::{Failure, jvm_order, log_line, say, sayln};
use super::{Command, Exception, Stop, pad, print_error};

const SCENARIOS: [&str; 8] = [
    "to-offset",
    "shift-by",
    "to-datetime",
    "by-duration",
    "to-earliest",
    "to-latest",
    "to-current",
    "from-file",
];

/// The combinations that make no sense.
pub(super) fn check(options: &Options) -> Result<(), Failure> {
    if options.has("dry-run") && options.has("execute") {
        return Err(
            options.usage("Option [reset-offsets] only accepts one of [execute] and [dry-run]")
        );
    }
    if !options.has("dry-run") && !options.has("execute") {
        crate::say::asideln!(
            "WARN: No action will be performed as the --execute option is missing.In a future major release, the default behavior of this command will be to prompt the user before executing the reset rather than doing a dry run. You should add the --dry-run option explicitly if you are scripting this command and want to keep the current default behavior without prompting."
        );
    }
    if !options.has("group") && !options.has("all-groups") {
        return Err(options
            .usage("Option [reset-offsets] takes one of these options: [group], [all-groups]"));
    }
    for scenario in SCENARIOS {
        let others: Vec<&str> = SCENARIOS.into_iter().filter(|other| *other != scenario).collect();
        options.exclude(scenario, &others)?;
    }
    Ok(())
}

/// Groups, each with the offsets it is set to, in the order in which they are printed.
type Plan = Vec<(String, Vec<(TopicPartition, i64)>)>;

pub(super) async fn run(command: &Command<'_>) -> Result<(), Stop> {
    let options = command.options;
    let groups = command.named_groups().await?;
    let mut plan = Plan::new();
    for group in groups {
        let state = command.client.describe_group(&group).await?.state;
        if state != "Empty" && state != "Dead" {
            print_error(&format!(
                "Assignments can only be reset if the group '{group}' is inactive, but the current state is {state}."
            ));
            plan.push((group, Vec::new()));
            continue;
        }
        let places = scope(command, &group).await?;
        let mut offsets = prepare(command, &group, places).await?;
        jvm_order::scala_map(&mut offsets, |(place, _)| {
            jvm_order::partition_hash(&place.topic, place.partition)
        });
        if options.has("execute") {
            let offsets: BTreeMap<TopicPartition, i64> = offsets.iter().cloned().collect();
            for (_, committed) in command.client.commit_offsets(&group, &offsets).await? {
                committed.map_err(|refused| Exception::from(&refused))?;
            }
        }
        plan.push((group, offsets));
    }
    if options.has("export") {
        export(&plan, options.all("group").len() == 1);
        return Ok(());
    }
    if !plan.is_empty() {
        sayln!(
            "\n{} {} {} {}",
            pad("GROUP", 30),
            pad("TOPIC", 30),
            pad("PARTITION", 10),
            pad("NEW-OFFSET", 15)
        );
    }
    for (group, offsets) in &plan {
        for (place, offset) in offsets {
            let partition = pad(&place.partition.to_string(), 10);
            let offset = pad(&offset.to_string(), 15);
            sayln!("{} {} {partition} {offset}", pad(group, 30), pad(&place.topic, 30));
        }
    }
    Ok(())
}

fn export(plan: &Plan, is_single: bool) {
    let mut rows = String::new();
    for (group, offsets) in plan {
        for (TopicPartition { topic, partition }, offset) in offsets {
            if !is_single {
                rows += &format!("{group},");
            }
            rows += &format!("{topic},{partition},{offset}\n");
        }
    }
    say(&(rows + "\n"));
}

/// Which partitions are to be reset.
async fn scope(command: &Command<'_>, group: &str) -> Result<Vec<TopicPartition>, Stop> {
    let options = command.options;
    if options.has("all-topics") {
        return Ok(command.client.committed_offsets(group).await?.into_keys().collect());
    }
    if options.has("topic") {
        let (places, unknown) = command.places(options.all("topic")).await?;
        return match unknown.into_iter().next() {
            Some((_, exception)) => Err(exception.into()),
            None => Ok(places),
        };
    }
    match options.has("from-file") {
        true => Ok(Vec::new()),
        false => Err(options
            .usage("One of the reset scopes should be defined: --all-topics, --topic.")
            .into()),
    }
}

/// What they are set to.
async fn prepare(
    command: &Command<'_>,
    group: &str,
    places: Vec<TopicPartition>,
) -> Result<Vec<(TopicPartition, i64)>, Stop> {
    let options = command.options;
    if let Some(offset) = options.number::<i64>("to-offset")? {
        let wanted = places.into_iter().map(|place| (place, offset)).collect();
        return within_range(command, wanted).await;
    }
    if options.has("to-earliest") {
        return at(command, places, OffsetAt::Start).await;
    }
    if options.has("to-latest") {
        return at(command, places, OffsetAt::End).await;
    }
    if let Some(shift) = options.number::<i64>("shift-by")? {
        let committed = command.client.committed_offsets(group).await?;
        let mut wanted = Vec::new();
        for place in places {
            let Some(current) = committed.get(&place) else {
                return Err(Exception::illegal_argument(format!("Cannot shift offset for partition {place} since there is no current committed offset")).into());
            };
            let offset = current.offset.saturating_add(shift);
            wanted.push((place, offset));
        }
        return within_range(command, wanted).await;
    }
    if let Some(text) = options.one("to-datetime")? {
        let ms = datetime_ms(text).ok_or_else(|| {
            Exception::new("java.text.ParseException", format!("Unparseable date: \"{text}\""))
        })?;
        return since(command, places, ms).await;
    }
    if let Some(text) = options.one("by-duration")? {
        let ms = duration_ms(text).ok_or_else(|| {
            Exception::new(
                "java.time.format.DateTimeParseException",
                "Text cannot be parsed to a Duration",
            )
        })?;
        return since(command, places, jiff::Timestamp::now().as_millisecond() - ms).await;
    }
    if let Some(file) = options.one("from-file")? {
        let text = std::fs::read_to_string(file)
            .map_err(|_| Exception::new("java.nio.file.NoSuchFileException", file))?;
        let wanted = from_csv(&text, options.all("group")).ok_or_else(|| {
            Exception::new(
                "com.fasterxml.jackson.databind.RuntimeJsonMappingException",
                format!("{file} is not topic,partition,offset or group,topic,partition,offset"),
            )
        })?;
        return match wanted.into_iter().find(|(named, _)| named == group) {
            Some((_, wanted)) => within_range(command, wanted).await,
            None => {
                print_error(&format!("No reset plan for group {group} found"));
                Ok(Vec::new())
            }
        };
    }
    if options.has("to-current") {
        let committed = command.client.committed_offsets(group).await?;
        let (known, unknown): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|place| committed.contains_key(place));
        let mut wanted: Vec<_> =
            known.into_iter().map(|place| (place.clone(), committed[&place].offset)).collect();
        wanted.extend(at(command, unknown, OffsetAt::End).await?);
        return Ok(wanted);
    }
    let scenarios = SCENARIOS.map(|scenario| format!("[{scenario}]")).join(", ");
    Err(options
        .usage(format!(
            "Option '[reset-offsets]' requires one of the following scenarios: {scenarios}"
        ))
        .into())
}

async fn at(
    command: &Command<'_>,
    places: Vec<TopicPartition>,
    at: OffsetAt,
) -> Result<Vec<(TopicPartition, i64)>, Stop> {
    let mut listed = command.client.list_offsets(&places, at).await?;
    let mut offsets = Vec::new();
    for place in places {
        match listed.remove(&place) {
            Some(Ok(listed)) => offsets.push((place, listed.offset.unwrap_or(0))),
            Some(Err(refused)) => return Err(Exception::from(&refused).into()),
            None => {}
        }
    }
    Ok(offsets)
}

/// The first record from a moment on; the end where there is none.
async fn since(
    command: &Command<'_>,
    places: Vec<TopicPartition>,
    ms: i64,
) -> Result<Vec<(TopicPartition, i64)>, Stop> {
    let listed = command.client.list_offsets(&places, OffsetAt::Timestamp(ms)).await?;
    let ends = at(command, places, OffsetAt::End).await?;
    let mut offsets = Vec::new();
    for (place, end) in ends {
        let found = match &listed[&place] {
            Ok(listed) => listed.offset,
            Err(refused) => return Err(Exception::from(refused).into()),
        };
        if found.is_none() {
            sayln!(
                "\nWarn: Partition {} from topic {} is empty. Falling back to latest known offset.",
                place.partition,
                place.topic
            );
        }
        offsets.push((place, found.unwrap_or(end)));
    }
    Ok(offsets)
}

/// Moves offsets outside of the log to its nearer end, with a warning.
async fn within_range(
    command: &Command<'_>,
    wanted: Vec<(TopicPartition, i64)>,
) -> Result<Vec<(TopicPartition, i64)>, Stop> {
    let places: Vec<TopicPartition> = wanted.iter().map(|(place, _)| place.clone()).collect();
    let starts = at(command, places.clone(), OffsetAt::Start).await?;
    let ends = at(command, places, OffsetAt::End).await?;
    let mut offsets = Vec::new();
    for (((place, wanted), (_, start)), (_, end)) in wanted.into_iter().zip(starts).zip(ends) {
        let warn = |how: &str, bound: i64| {
            let message = format!(
                "New offset ({wanted}) is {how} offset for topic partition {place}. Value will be set to {bound}"
            );
            log_line("WARN", &message, "kafka.admin.ConsumerGroupCommand$");
            bound
        };
        let offset = match wanted {
            wanted if wanted > end => warn("higher than latest", end),
            wanted if wanted < start => warn("lower than earliest", start),
            wanted => wanted,
        };
        offsets.push((place, offset));
    }
    Ok(offsets)
}

/// `2026-01-31T12:00:00.000`, UTC unless a zone follows.
fn datetime_ms(text: &str) -> Option<i64> {
    let (_, time) = text.split_once('T')?;
    let has_zone = time.contains(['Z', '+', '-']);
    let text = if has_zone { text.to_owned() } else { format!("{text}Z") };
    Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// `P1DT2H3M4S`, days of 24 hours.
fn duration_ms(text: &str) -> Option<i64> {
    // jiff would take "1 week ago", too.
    let span: jiff::Span = text.starts_with(['P', '-', '+']).then(|| text.parse().ok())??;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(duration.as_millis()).ok()
}

/// `topic,partition,offset` for a single group, `group,topic,partition,offset` for any.
fn from_csv(text: &str, groups: &[String]) -> Option<Plan> {
    let mut plan = Plan::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
        let (group, topic, partition, offset) = match (&cells[..], groups) {
            (&[topic, partition, offset], [group]) => (group.as_str(), topic, partition, offset),
            (&[group, topic, partition, offset], _) => (group, topic, partition, offset),
            _ => return None,
        };
        let row = (TopicPartition::new(topic, partition.parse().ok()?), offset.parse().ok()?);
        match plan.iter_mut().find(|(known, _)| known == group) {
            Some((_, rows)) => rows.push(row),
            None => plan.push((group.to_owned(), vec![row])),
        }
    }
    Some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_durations_are_iso() {
        assert_eq!(datetime_ms("1970-01-02T00:00:01.500"), Some(86_401_500));
        assert_eq!(datetime_ms("1970-01-02T01:00:00+01:00"), Some(86_400_000));
        assert_eq!(datetime_ms("yesterday"), None);
        assert_eq!(duration_ms("P1DT1H1M1S"), Some(90_061_000));
        assert_eq!(duration_ms("1 week ago"), None);
    }

    #[test]
    fn plans_are_read_with_and_without_groups() {
        let group = ["g".to_owned()];
        let expected = vec![("g".to_owned(), vec![(TopicPartition::new("t", 1), 7)])];
        assert_eq!(from_csv("t,1,7\n", &group), Some(expected.clone()));
        assert_eq!(from_csv("\"g\",t,1,7\n", &[]), Some(expected));
        assert_eq!(from_csv("t,1", &group), None);
    }
}
