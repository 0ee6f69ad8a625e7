//! DescribeLogDirs, versions 1 to 4: sizes of partitions on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use elkfk_wire::kafka::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use super::{Answer, Context, Request, code};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DescribeLogDirsRequest<'_> = request.decode()?;
    let is_wanted = |topic: &str, partition: i32| {
        let topics = message.topics.as_ref();
        topics.is_none_or(|topics| {
            topics
                .iter()
                .any(|wanted| wanted.topic == topic && wanted.partitions.contains(&partition))
        })
    };
    let partitions = context.broker.logs.partitions();
    let results = context.broker.logs.directories().iter().map(|directory| {
        let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        let here = partitions.iter().filter(|it| Arc::ptr_eq(it.directory(), directory));
        for partition in here.filter(|it| is_wanted(it.topic(), it.partition())) {
            let described = DescribeLogDirsPartition {
                partition_index: partition.partition(),
                partition_size: i64::try_from(partition.bytes()).unwrap_or(i64::MAX),
                offset_lag: 0,
                is_future_key: false,
            };
            topics.entry(partition.topic().to_owned()).or_default().push(described);
        }
        let (total_bytes, usable_bytes) = space(directory.path());
        let topics = topics.into_iter();
        DescribeLogDirsResult {
            error_code: match directory.failed() {
                Some(_) => code(ErrorCode::KAFKA_STORAGE_ERROR),
                None => 0,
            },
            log_dir: absolute(directory.path()).into(),
            topics: topics
                .map(|(name, partitions)| DescribeLogDirsTopic { name: name.into(), partitions })
                .collect(),
            total_bytes,
            usable_bytes,
        }
    });
    let results = results.collect();
    request.answer(&DescribeLogDirsResponse { results, ..Default::default() })
}

fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// Bytes of the file system and those an ordinary user may still fill; -1 where it does not say.
fn space(path: &std::path::Path) -> (i64, i64) {
    let Ok(stat) = rustix::fs::statvfs(path) else { return (-1, -1) };
    let bytes =
        |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    (bytes(stat.f_blocks), bytes(stat.f_bavail))
}
