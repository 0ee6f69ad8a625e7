//! Producer ids, in blocks of 1000 taken from `/latest_producer_id_block` as Kafka takes them.

use tracing::debug;

use super::{Cluster, ClusterError, While, znodes};

const BLOCK: i64 = 1000;

/// What is left of the block this broker took.
#[derive(Debug, Default)]
pub(super) struct Block {
    next: i64,
    /// Exclusive.
    end: i64,
}

impl Cluster {
    /// An id that no producer of this cluster has had.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, ClusterError> {
        let mut block = self.producer_ids.lock().await;
        if block.next >= block.end {
            *block = self.take_block().await?;
        }
        let id = block.next;
        block.next += 1;
        Ok(id)
    }

    async fn take_block(&self) -> Result<Block, ClusterError> {
        let client = self.client();
        loop {
            let (data, stat) =
                client.get(znodes::PRODUCER_IDS).await.during("read producer ids")?;
            let first = match data.is_empty() {
                true => 0,
                false => {
                    let path = znodes::PRODUCER_IDS.into();
                    znodes::decode_producer_ids(&data)
                        .and_then(|last| last.checked_add(1))
                        .filter(|first| *first <= i64::MAX - BLOCK)
                        .ok_or(ClusterError::Malformed { path })?
                }
            };
            let json = znodes::encode_producer_ids(self.broker_id, first, first + BLOCK - 1);
            match client.set(znodes::PRODUCER_IDS, json.as_bytes(), Some(stat.version)).await {
                Ok(_) => {
                    debug!(first, "producer ids taken");
                    return Ok(Block { next: first, end: first + BLOCK });
                }
                // Another broker was faster.
                Err(error) if error.is_bad_version() => {}
                Err(error) => return Err(error).during("take producer ids"),
            }
        }
    }
}
