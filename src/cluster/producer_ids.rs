//! Producer ids for this broker, from blocks that the controller allocates.

use tokio::sync::Mutex;

use super::{ClusterHandle, Error, Event, Response};
use crate::model::ProducerId;

/// Allocates ids one by one.
#[derive(Debug)]
pub struct ProducerIds {
    cluster: ClusterHandle,
    broker: i32,
    /// The rest of the current block.
    block: Mutex<(i64, i64)>,
}

impl ProducerIds {
    /// Without a block yet.
    pub fn new(cluster: ClusterHandle, broker: i32) -> ProducerIds {
        ProducerIds { cluster, broker, block: Mutex::new((0, 0)) }
    }

    /// An id that no producer has ever used.
    pub async fn next(&self) -> Result<ProducerId, Error> {
        let mut block = self.block.lock().await;
        if block.0 == block.1 {
            let broker = self.broker;
            match self.cluster.submit(Event::AllocateProducerIds { broker }).await? {
                Response::ProducerIds(first, end) => *block = (first, end),
                other => unreachable!("the controller must answer a request for ids with ids, not {other:?}"),
            }
        }
        block.0 += 1;
        Ok(ProducerId(block.0 - 1))
    }
}
