//! How much room partitions take on the brokers' disks.

use std::collections::BTreeMap;

use elkfk_wire::kafka::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse,
    describe_log_dirs_request::DescribableLogDirTopic,
};

use crate::TopicPartition;
use crate::client::{Client, whole};
use crate::error::ClientError;

/// The disk of one log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDir {
    pub broker: i32,
    pub path: String,
    /// Of the file system; none from brokers before 3.3.
    pub total_bytes: Option<u64>,
    pub usable_bytes: Option<u64>,
    /// Replicas there of the partitions that were asked for.
    pub replicas: usize,
}

impl LogDir {
    /// Of the file system, 0 to 1.
    pub fn used_share(&self) -> Option<f64> {
        let (total, usable) = (self.total_bytes.filter(|total| *total > 0)?, self.usable_bytes?);
        Some(total.saturating_sub(usable) as f64 / total as f64)
    }
}

/// What the brokers keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSizes {
    /// Of the largest replica of each partition, in bytes.
    pub partitions: BTreeMap<TopicPartition, u64>,
    pub directories: Vec<LogDir>,
}

impl Client {
    /// The sizes of all partitions. A broker that does not answer leaves out what only it keeps.
    ///
    /// # Errors
    ///
    /// If no broker can be asked.
    pub async fn log_sizes(&self) -> Result<LogSizes, ClientError> {
        self.ask_log_sizes(None).await
    }

    /// The sizes of some partitions, as [`Client::log_sizes`] tells those of all.
    ///
    /// # Errors
    ///
    /// If no broker can be asked.
    pub async fn log_sizes_of(&self, places: &[&TopicPartition]) -> Result<LogSizes, ClientError> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for place in places {
            topics.entry(&place.topic).or_default().push(place.partition);
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| DescribableLogDirTopic { topic: topic.into(), partitions });
        self.ask_log_sizes(Some(topics.collect())).await
    }

    async fn ask_log_sizes(
        &self,
        topics: Option<Vec<DescribableLogDirTopic<'_>>>,
    ) -> Result<LogSizes, ClientError> {
        let request = DescribeLogDirsRequest { topics };
        let mut sizes = LogSizes::default();
        let mut failure = None;
        let mut is_asked = false;
        for broker in self.brokers().await?.brokers {
            match self.log_sizes_at(broker.id, &request, &mut sizes).await {
                Ok(()) => is_asked = true,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !is_asked => Err(error),
            _ => Ok(sizes),
        }
    }

    async fn log_sizes_at(
        &self,
        broker: i32,
        request: &DescribeLogDirsRequest<'_>,
        sizes: &mut LogSizes,
    ) -> Result<(), ClientError> {
        let connection = self.node(broker).await?;
        let version = connection.version::<DescribeLogDirsRequest<'_>>()?;
        let reply = connection.send(request, version).await?;
        let response: DescribeLogDirsResponse<'_> = reply.read()?;
        whole("describe log directories", response.error_code, None)?;
        for directory in &response.results {
            if directory.error_code != 0 {
                continue;
            }
            let known = |bytes: i64| u64::try_from(bytes).ok();
            sizes.directories.push(LogDir {
                broker,
                path: directory.log_dir.to_string(),
                total_bytes: known(directory.total_bytes),
                usable_bytes: known(directory.usable_bytes),
                replicas: directory.topics.iter().map(|topic| topic.partitions.len()).sum(),
            });
            for topic in &directory.topics {
                // A future replica is a copy on its way to another directory.
                for partition in topic.partitions.iter().filter(|one| !one.is_future_key) {
                    let place = TopicPartition::new(&*topic.name, partition.partition_index);
                    let size = sizes.partitions.entry(place).or_default();
                    *size = (*size).max(known(partition.partition_size).unwrap_or(0));
                }
            }
        }
        Ok(())
    }
}
