//! `kafka-consumer-groups`: listing, describing and deleting groups.
//!
//! Resetting offsets is in `consumer_groups/reset.rs`.

mod reset;

use std::collections::{BTreeMap, BTreeSet};

use elkfk_broker_client::{
    Client, GroupDescription, ListedGroup, Member, OffsetAt, TopicPartition,
};
use elkfk_wire::kafka::ErrorCode;

use super::errors::Exception;
use super::options::{Options, Spec, Takes, flag, value};
use super::{Failure, block_on, client, jvm_order, sayln};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("bootstrap-server", "host:port,…", "The brokers to ask. Required."),
    value("command-config", "file", "Settings of the client."),
    value("timeout", "ms", "How long to try; 5000."),
    flag("list", "List the groups."),
    flag("describe", "Show how far groups have read."),
    flag("delete", "Delete groups that have no members."),
    flag("reset-offsets", "Change how far a group has read; the group must have no members."),
    flag("delete-offsets", "Forget how far a group has read topics."),
    value("group", "name", "The group; may be given again."),
    flag("all-groups", "All groups."),
    value("topic", "name", "The topic, or topic:0,1 for some of its partitions; may be given again."),
    flag("all-topics", "All topics that the group has read."),
    flag("offsets", "Describe offsets and lag: the default."),
    flag("members", "Describe the members."),
    Spec { name: "state", takes: Takes::Perhaps("states"), help: "Describe or list the state; a list of states lists only groups in them." },
    flag("verbose", "Describe also which partitions members have."),
    flag("dry-run", "Only show what would be reset: the default."),
    flag("execute", "Reset."),
    flag("export", "Print what is reset as topic,partition,offset."),
    value("to-offset", "offset", "Reset to an offset."),
    value("from-file", "file", "Reset to what --export has written."),
    value("to-datetime", "YYYY-MM-DDTHH:mm:SS.sss", "Reset to the first record from then on; UTC if no zone is given."),
    value("by-duration", "PnDTnHnMnS", "Reset to the first record from so long ago on."),
    flag("to-earliest", "Reset to the start."),
    flag("to-latest", "Reset to the end."),
    flag("to-current", "Keep what is committed, else the end."),
    value("shift-by", "number", "Reset by so many records, forth or back."),
];

/// Stands where there is nothing to show.
const MISSING: &str = "-";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let options = Options::parse(OPTIONS, args).map_err(|e| e.uncaught())?;
    check(&options, args)?;
    let bootstrap = options.one("bootstrap-server")?.unwrap_or_default();
    let mut config = client(&options, bootstrap)?.config().clone();
    config.timeout = std::time::Duration::from_millis(options.number("timeout")?.unwrap_or(5000));
    let command = Command { options: &options, client: Client::new(config) };
    block_on(async {
        let done = match () {
            () if options.has("list") => command.list().await,
            () if options.has("describe") => command.describe().await,
            () if options.has("delete") => command.delete().await,
            () if options.has("reset-offsets") => reset::run(&command).await,
            () => command.delete_offsets().await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(Stop::Failure(failure)) => Err(failure),
            // Mistakes of the user are answered with the help.
            Err(Stop::Exception(e)) if e.class == "java.lang.IllegalArgumentException" => {
                Err(options.usage(e.message()))
            }
            Err(Stop::Exception(e)) => {
                // The real tool exits with 0 after this, too. What a broker refused it wraps in
                // another exception, whose message names the class.
                let is_own = e.class.starts_with("joptsimple.");
                let cause = if is_own { e.message().to_owned() } else { e.to_string() };
                print_error(&format!("Executing consumer group command failed due to {cause}"));
                if is_own {
                    crate::say::asideln!("{e}");
                    return Ok(());
                }
                crate::say::asideln!(
                    "java.util.concurrent.ExecutionException: {e}\nCaused by: {e}"
                );
                Ok(())
            }
        }
    })
}

/// How a command ends early.
enum Stop {
    Exception(Exception),
    Failure(Failure),
}

impl<E: Into<Exception>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Exception(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// The combinations that make no sense.
fn check(options: &Options, args: &[String]) -> Result<(), Failure> {
    if options.has("help") || options.has("version") || args.is_empty() {
        options.help_or_version("This tool helps to list all consumer groups, describe a consumer group, delete consumer group info, or reset consumer group offsets.", false)?;
    }
    let beside = [
        ("members", &["describe"][..]),
        ("verbose", &["describe"]),
        ("offsets", &["describe"]),
        ("state", &["describe", "list"]),
    ];
    for (option, allowed) in beside {
        if options.has(option) && !allowed.iter().any(|allowed| options.has(allowed)) {
            let message = format!(
                "Option(s) [{option}] are unavailable given other options on the command line"
            );
            return Err(Failure::uncaught("joptsimple.UnavailableOptionException", &message));
        }
    }
    options.require("bootstrap-server")?;
    let scope = "[group], [all-groups]";
    let has_scope = options.has("group") || options.has("all-groups");
    if options.has("describe") {
        if !has_scope {
            return Err(
                options.usage(format!("Option [describe] takes one of these options: {scope}"))
            );
        }
        let views = ["members", "offsets", "state"];
        if views.iter().filter(|view| options.has(view)).count() > 1 {
            return Err(options.usage("Option [describe] takes at most one of these options: [members], [offsets], [state]"));
        }
        if !options.all("state").is_empty() {
            return Err(options.usage("Option [describe] does not take a value for [state]"));
        }
    }
    if options.has("delete") {
        if !has_scope {
            return Err(
                options.usage(format!("Option [delete] takes one of these options: {scope}"))
            );
        }
        if options.has("topic") {
            return Err(options.usage("The consumer does not support topic-specific offset deletion from a consumer group."));
        }
    }
    if options.has("delete-offsets") && !(options.has("group") && options.has("topic")) {
        return Err(
            options.usage("Option [delete-offsets] takes the following options: [group], [topic]")
        );
    }
    if options.has("reset-offsets") {
        reset::check(options)?;
    }
    options.exclude("group", &["all-groups"])?;
    options.exclude("group", &["list"])?;
    options.exclude("topic", &["list", "describe"])?;
    let actions = ["list", "describe", "delete", "reset-offsets", "delete-offsets"];
    if actions.iter().filter(|action| options.has(action)).count() != 1 {
        return Err(options.usage("Command must include exactly one action: --list, --describe, --delete, --reset-offsets, --delete-offsets"));
    }
    Ok(())
}

fn print_error(message: &str) {
    sayln!("\nError: {message}");
}

/// Left-aligned in at least `width` characters, as Java's `%-15s`.
fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn widest<'t>(texts: impl Iterator<Item = &'t str>, at_least: usize) -> usize {
    texts.map(|text| text.chars().count()).fold(at_least, usize::max)
}

struct Command<'o> {
    options: &'o Options,
    client: Client,
}

/// A line of `--describe`.
struct Row {
    place: Option<TopicPartition>,
    offset: Option<i64>,
    log_end: Option<i64>,
    consumer_id: String,
    host: String,
    client_id: String,
}

impl Command<'_> {
    /// Groups of consumers, in the order of the real tool.
    async fn groups(&self) -> Result<Vec<ListedGroup>, Stop> {
        let listed = self.client.list_groups().await?;
        if let Some(gap) = listed.gap() {
            crate::say::asideln!("warning: {gap}");
        }
        let mut groups = listed.groups;
        groups.retain(|group| matches!(group.protocol_type.as_str(), "" | "consumer"));
        jvm_order::java_hash_map(&mut groups, 16, |group| jvm_order::string_hash(&group.group));
        Ok(groups)
    }

    /// The groups that the command line names.
    async fn named_groups(&self) -> Result<Vec<String>, Stop> {
        if self.options.has("all-groups") {
            return Ok(self.groups().await?.into_iter().map(|group| group.group).collect());
        }
        let mut groups: Vec<String> = Vec::new();
        for group in self.options.all("group") {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        Ok(groups)
    }

    async fn list(&self) -> Result<(), Stop> {
        let groups = self.groups().await?;
        if !self.options.has("state") {
            for group in groups {
                sayln!("{}", group.group);
            }
            return Ok(());
        }
        const STATES: [&str; 5] =
            ["PreparingRebalance", "CompletingRebalance", "Stable", "Dead", "Empty"];
        let mut wanted = Vec::new();
        let input = self.options.one("state")?.unwrap_or_default();
        for state in input.split(',').map(str::trim).filter(|state| !state.is_empty()) {
            let known = STATES.iter().find(|known| known.eq_ignore_ascii_case(state));
            wanted.push(*known.ok_or_else(|| {
                let valid = STATES.join(", ");
                Exception::illegal_argument(format!(
                    "Invalid state list '{input}'. Valid states are: {valid}"
                ))
            })?);
        }
        let mut groups = groups;
        groups.retain(|group| wanted.is_empty() || wanted.contains(&group.state.as_str()));
        let width = widest(groups.iter().map(|group| group.group.as_str()), 15);
        sayln!("{} STATE", pad("GROUP", width));
        for group in groups {
            sayln!("{} {}", pad(&group.group, width), group.state);
        }
        Ok(())
    }

    async fn describe(&self) -> Result<(), Stop> {
        let names: BTreeSet<String> = self.named_groups().await?.into_iter().collect();
        for name in names {
            let group = self.client.describe_group(&name).await?;
            if self.options.has("members") {
                self.print_members(&group);
            } else if self.options.has("state") {
                print_state(&group);
            } else {
                self.print_offsets(&group).await?;
            }
        }
        Ok(())
    }

    async fn print_offsets(&self, group: &GroupDescription) -> Result<(), Stop> {
        let committed = self.client.committed_offsets(&group.group).await?;
        let mut rows = Vec::new();
        let mut members: Vec<&Member> =
            group.members.iter().filter(|member| !member.assignment.is_empty()).collect();
        let assigned = |member: &Member| member.assignment.values().map(Vec::len).sum::<usize>();
        members.sort_by_key(|member| std::cmp::Reverse(assigned(member)));
        let mut taken = BTreeSet::new();
        let offset =
            |place: &TopicPartition| committed.get(place).map(|committed| committed.offset);
        for member in members {
            let places = places(member);
            taken.extend(places.iter().cloned());
            let who = (&member.id[..], &member.host[..], &member.client_id[..]);
            rows.extend(self.rows(places, offset, who).await?);
        }
        let free = committed.keys().filter(|place| !taken.contains(place)).cloned().collect();
        rows.extend(self.rows(free, offset, (MISSING, MISSING, MISSING)).await?);
        if !has_something(&group.group, &group.state, rows.len()) {
            return Ok(());
        }
        let topic =
            |row: &Row| row.place.as_ref().map_or(MISSING.into(), |place| place.topic.clone());
        let group_width = widest(std::iter::once(group.group.as_str()), 15);
        let topics: Vec<String> = rows.iter().map(topic).collect();
        let topic_width = widest(topics.iter().map(String::as_str), 15);
        let id_width = widest(rows.iter().map(|row| row.consumer_id.as_str()), 15);
        let host_width = widest(rows.iter().map(|row| row.host.as_str()), 15);
        let line = |cells: [&str; 9]| {
            let widths = [group_width, topic_width, 10, 15, 15, 15, id_width, host_width, 0];
            let cells = cells.iter().zip(widths).map(|(cell, width)| pad(cell, width));
            cells.collect::<Vec<_>>().join(" ")
        };
        sayln!(
            "\n{}",
            line([
                "GROUP",
                "TOPIC",
                "PARTITION",
                "CURRENT-OFFSET",
                "LOG-END-OFFSET",
                "LAG",
                "CONSUMER-ID",
                "HOST",
                "CLIENT-ID"
            ])
        );
        for (row, topic) in rows.iter().zip(&topics) {
            let number = |number: Option<i64>| number.map_or(MISSING.to_owned(), |n| n.to_string());
            let partition = number(row.place.as_ref().map(|place| place.partition.into()));
            let lag = row.offset.zip(row.log_end).map(|(offset, end)| end - offset);
            let cells = [
                &group.group[..],
                topic,
                &partition,
                &number(row.offset),
                &number(row.log_end),
                &number(lag),
                &row.consumer_id,
                &row.host,
                &row.client_id,
            ];
            sayln!("{}", line(cells));
        }
        Ok(())
    }

    /// The lines of some partitions, in the order of the real tool.
    async fn rows(
        &self,
        mut places: Vec<TopicPartition>,
        offset: impl Fn(&TopicPartition) -> Option<i64>,
        (consumer_id, host, client_id): (&str, &str, &str),
    ) -> Result<Vec<Row>, Stop> {
        in_tool_order(&mut places);
        let ends = self.client.list_offsets(&places, OffsetAt::End).await?;
        let row = |place: TopicPartition| Row {
            offset: offset(&place),
            log_end: ends.get(&place).and_then(|end| end.as_ref().ok()?.offset),
            place: Some(place),
            consumer_id: consumer_id.to_owned(),
            host: host.to_owned(),
            client_id: client_id.to_owned(),
        };
        Ok(places.into_iter().map(row).collect())
    }

    fn print_members(&self, group: &GroupDescription) {
        if !has_something(&group.group, &group.state, group.members.len()) {
            return;
        }
        let members = &group.members;
        let instance = |member: &Member| member.instance_id.clone().unwrap_or_default();
        let instances: Vec<String> = members.iter().map(instance).collect();
        let has_instances = instances.iter().any(|instance| !instance.is_empty());
        let widths = [
            widest(std::iter::once(group.group.as_str()), 15),
            widest(members.iter().map(|m| m.id.as_str()), 15),
            widest(instances.iter().map(String::as_str), 17),
            widest(members.iter().map(|m| m.host.as_str()), 15),
            widest(members.iter().map(|m| m.client_id.as_str()), 15),
            15,
        ];
        let line = |cells: [&str; 6]| {
            let cells = cells.iter().zip(widths).enumerate();
            let cells = cells.filter(|(i, _)| *i != 2 || has_instances);
            cells.map(|(_, (cell, width))| pad(cell, width) + " ").collect::<String>()
        };
        let verbose = self.options.has("verbose");
        let head =
            line(["GROUP", "CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS"]);
        sayln!("\n{head}{}", if verbose { "ASSIGNMENT" } else { "" });
        for (member, instance) in members.iter().zip(&instances) {
            let count = member.assignment.values().map(Vec::len).sum::<usize>().to_string();
            let cells =
                [&group.group[..], &member.id, instance, &member.host, &member.client_id, &count];
            let assignment = member.assignment.iter().map(|(topic, partitions)| {
                let partitions: Vec<_> = partitions.iter().map(i32::to_string).collect();
                format!("{topic}({})", partitions.join(","))
            });
            let assignment = assignment.collect::<Vec<_>>().join(", ");
            let assignment = match (verbose, assignment.as_str()) {
                (false, _) => "",
                (true, "") => MISSING,
                (true, assignment) => assignment,
            };
            sayln!("{}{assignment}", line(cells));
        }
    }

    async fn delete(&self) -> Result<(), Stop> {
        let mut deleted = Vec::new();
        let mut failed = Vec::new();
        for group in self.named_groups().await? {
            match self.client.delete_group(&group).await? {
                Ok(()) => deleted.push(group),
                Err(refused) => failed.push((group, Exception::from(&refused))),
            }
        }
        let names = format!("'{}'", deleted.join("', '"));
        if failed.is_empty() {
            sayln!("Deletion of requested consumer groups ({names}) was successful.");
            return Ok(());
        }
        print_error("Deletion of some consumer groups failed:");
        for (group, exception) in failed {
            sayln!(
                "* Group '{group}' could not be deleted due to: java.util.concurrent.ExecutionException: {exception}"
            );
        }
        if !deleted.is_empty() {
            sayln!("\nThese consumer groups were deleted successfully: {names}");
        }
        Ok(())
    }

    async fn delete_offsets(&self) -> Result<(), Stop> {
        let group = self.options.one("group")?.unwrap_or_default();
        let topics = self.options.all("topic");
        let mut results: BTreeMap<(String, String), (TopicPartition, String)> = BTreeMap::new();
        let mut add = |place: TopicPartition, status: String| {
            // Sorted as text, partitions too, as the real tool does.
            let key = (format!("{}{}", place.topic, place.partition), place.topic.clone());
            results.insert(key, (place, status));
        };
        let (places, unknown) = self.places(topics).await?;
        for (topic, exception) in unknown {
            add(TopicPartition::new(topic, -1), format!("Error: {exception}"));
        }
        let answer = self.client.delete_offsets(group, &places).await?;
        let mut whole = None;
        match answer {
            Ok(answers) => {
                for (place, answer) in answers {
                    let status = match answer {
                        Ok(()) => "Successful".to_owned(),
                        Err(refused) => {
                            whole = whole.or(Some(refused.code));
                            format!("Error: {}", Exception::from(&refused))
                        }
                    };
                    add(place, status);
                }
            }
            Err(refused) => {
                whole = Some(refused.code);
                for place in places {
                    add(place, format!("Error: {}", Exception::from(&refused)));
                }
            }
        }
        match whole {
            None => sayln!(
                "Request succeed for deleting offsets with topic {} group {group}",
                topics.join(", ")
            ),
            Some(ErrorCode::INVALID_GROUP_ID) => print_error(&format!("'{group}' is not valid.")),
            Some(ErrorCode::GROUP_ID_NOT_FOUND) => {
                print_error(&format!("'{group}' does not exist."))
            }
            Some(ErrorCode::GROUP_AUTHORIZATION_FAILED) => {
                print_error(&format!("Access to '{group}' is not authorized."))
            }
            Some(ErrorCode::NON_EMPTY_GROUP) => print_error(&format!(
                "Deleting offsets of a consumer group '{group}' is forbidden if the group is not empty."
            )),
            Some(
                ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC
                | ErrorCode::TOPIC_AUTHORIZATION_FAILED
                | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ) => print_error("Encounter some partition level error, see the follow-up details:"),
            Some(code) => print_error(&format!("Encounter some unknown error: {code}")),
        }
        sayln!("\n{} {} {}", pad("TOPIC", 30), pad("PARTITION", 15), pad("STATUS", 15));
        for (place, status) in results.into_values() {
            let partition = match place.partition {
                -1 => "Not Provided".to_owned(),
                partition => partition.to_string(),
            };
            sayln!("{} {} {}", pad(&place.topic, 30), pad(&partition, 15), pad(&status, 15));
        }
        Ok(())
    }

    /// The partitions that `topic` and `topic:0,1` name, and the topics that do not exist.
    async fn places(
        &self,
        topics: &[String],
    ) -> Result<(Vec<TopicPartition>, Vec<(String, Exception)>), Stop> {
        let mut places = Vec::new();
        for arg in topics.iter().filter(|arg| arg.contains(':')) {
            let Some((topic, partitions)) = arg.split_once(':').filter(|(_, p)| !p.contains(':'))
            else {
                return Err(Exception::illegal_argument(format!(
                    "Invalid topic arg '{arg}', expected topic name and partitions"
                ))
                .into());
            };
            for partition in partitions.split(',') {
                let partition = partition.parse().map_err(|_| {
                    Exception::illegal_argument(format!(
                        "Invalid partition '{partition}' specified in topic arg '{arg}''"
                    ))
                })?;
                places.push(TopicPartition::new(topic, partition));
            }
        }
        let names: Vec<&str> =
            topics.iter().filter(|arg| !arg.contains(':')).map(String::as_str).collect();
        let mut unknown = Vec::new();
        if !names.is_empty() {
            let cluster = self.client.metadata(Some(&names)).await?;
            for topic in &cluster.topics {
                if !topic.error.is_none() {
                    let refused = elkfk_broker_client::Refused { code: topic.error, message: None };
                    unknown.push((topic.name.clone(), Exception::from(&refused)));
                }
                let partitions = topic.partitions.iter();
                places.extend(partitions.map(|p| TopicPartition::new(&topic.name, p.index)));
            }
        }
        Ok((places, unknown))
    }
}

/// The partitions of a member.
fn places(member: &Member) -> Vec<TopicPartition> {
    let topics = member.assignment.iter();
    topics.flat_map(|(topic, ps)| ps.iter().map(move |p| TopicPartition::new(topic, *p))).collect()
}

/// By partition, then as a Scala map holds them.
fn in_tool_order(places: &mut [TopicPartition]) {
    let hash = |place: &TopicPartition| jvm_order::partition_hash(&place.topic, place.partition);
    jvm_order::java_hash_map(places, 16, hash);
    places.sort_by_key(|place| place.partition);
    jvm_order::scala_map(places, hash);
}

/// Says what is special about a group; false if there is nothing to show of it.
fn has_something(group: &str, state: &str, rows: usize) -> bool {
    match state {
        "Dead" => print_error(&format!("Consumer group '{group}' does not exist.")),
        "Empty" => crate::say::asideln!("\nConsumer group '{group}' has no active members."),
        "PreparingRebalance" | "CompletingRebalance" => {
            crate::say::asideln!("\nWarning: Consumer group '{group}' is rebalancing.");
        }
        _ => {}
    }
    state != "Dead" && rows > 0
}

fn print_state(group: &GroupDescription) {
    if !has_something(&group.group, &group.state, 1) {
        return;
    }
    let coordinator =
        format!("{}:{} ({})", group.coordinator.host, group.coordinator.port, group.coordinator.id);
    // The width goes to the column of the group, a slip of the real tool.
    let width = coordinator.chars().count().max(25);
    let line = |cells: [&str; 5]| {
        let cells = cells.iter().zip([width, 25, 20, 15, 0]).map(|(cell, width)| pad(cell, width));
        cells.collect::<Vec<_>>().join(" ")
    };
    let members = group.members.len().to_string();
    sayln!(
        "\n{}\n{}",
        line(["GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS"]),
        line([&group.group, &coordinator, &group.protocol, &group.state, &members]),
    );
}
