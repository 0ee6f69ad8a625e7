//! `kafka-delete-records`.

use std::collections::BTreeMap;

use elkfk_broker_client::TopicPartition;

use super::errors::Exception;
use super::options::{Options, Spec, usage, value};
use super::{Failure, block_on, client, sayln};

#[rustfmt::skip]
pub(super) const OPTIONS: &[Spec] = &[
    value("bootstrap-server", "host:port,…", "The brokers to ask. Required."),
    value("offset-json-file", "file", "{\"partitions\":[{\"topic\":\"a\",\"partition\":0,\"offset\":7}],\"version\":1}; -1 is the end. Required."),
    value("command-config", "file", "Settings of the client."),
];

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let options = Options::parse(OPTIONS, args).map_err(|e| usage(OPTIONS, e.message))?;
    options.help_or_version(
        "This tool helps to delete records of the given partitions down to the specified offset.",
        args.is_empty(),
    )?;
    options.require("bootstrap-server")?;
    options.require("offset-json-file")?;
    let bootstrap = options.one("bootstrap-server")?.unwrap_or_default();
    let path = options.one("offset-json-file")?.unwrap_or_default();
    let text = std::fs::read_to_string(path)
        .map_err(|_| Failure::uncaught("java.nio.file.NoSuchFileException", path))?;
    let before = parse(&text)
        .map_err(|message| Failure::uncaught("kafka.common.AdminOperationException", &message))?;
    let client = client(&options, bootstrap)?;
    block_on(async {
        sayln!("Executing records delete operation");
        let deleted = client.delete_records(&before).await.map_err(|e| {
            let exception = Exception::from(e);
            Failure::uncaught(&exception.class, exception.message())
        })?;
        sayln!("Records delete operation completed:");
        for (place, result) in deleted {
            match result {
                Ok(low_watermark) => sayln!("partition: {place}\tlow_watermark: {low_watermark}"),
                Err(refused) => sayln!("partition: {place}\terror: {}", Exception::from(&refused)),
            }
        }
        Ok(())
    })
}

fn parse(text: &str) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let json: serde_json::Value = serde_json::from_str(text)
        .map_err(|_| "The input string is not a valid JSON".to_owned())?;
    let partitions = json.get("partitions").and_then(|p| p.as_array());
    let partitions = partitions.ok_or("Missing partitions field")?;
    let mut before = BTreeMap::new();
    for entry in partitions {
        let place = (|| {
            let topic = entry.get("topic")?.as_str()?;
            let partition = i32::try_from(entry.get("partition")?.as_i64()?).ok()?;
            Some((TopicPartition::new(topic, partition), entry.get("offset")?.as_i64()?))
        })();
        let (place, offset) = place.ok_or(format!("not a partition with an offset: {entry}"))?;
        if before.insert(place, offset).is_some() {
            return Err(format!("Offset json file contains duplicate topic partitions: {entry}"));
        }
    }
    Ok(before)
}
