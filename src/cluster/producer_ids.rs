//! Producer ids for this broker, from blocks that the controller hands out.

use tokio::sync::Mutex;

use super::{ClusterHandle, Error, Event, Response};
use crate::model::ProducerId;

/// What is left of the current block.
#[derive(Debug, Default)]
pub struct ProducerIds(Mutex<(i64, i64)>);

impl ProducerIds {
    /// An id that no producer has ever had.
    pub async fn next(&self, cluster: &ClusterHandle, broker: i32) -> Result<ProducerId, Error> {
        let mut block = self.0.lock().await;
        if block.0 == block.1 {
            match cluster.submit(Event::AllocateProducerIds { broker }).await? {
                Response::ProducerIds(first, end) => *block = (first, end),
                other => unreachable!("the controller answers a request for ids with ids, not {other:?}"),
            }
        }
        block.0 += 1;
        Ok(ProducerId(block.0 - 1))
    }
}
