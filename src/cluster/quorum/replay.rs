//! What the log contains when it is opened, as the items that its readers get.

use tokio::sync::mpsc;

use crate::cluster::batches::{Content, Form};
use crate::cluster::partition_image::UNASSIGNED_DIRECTORY;
use crate::cluster::{Committed, Entry, Error, LeaderChange, MetadataImage, MetadataRecord, Snapshot};
use crate::model::Uuid;
use crate::protocol::generated::cluster_metadata::NoOpRecord;
use crate::records::BatchHeader;

/// Converts the stored batches to the delivered items.
pub(super) struct Replay {
    pub(super) committed: mpsc::UnboundedSender<Committed>,
    /// The state of a log of an early release, up to the first recorded change of the leader.
    pub(super) implied: Option<Implied>,
    pub(super) last_ms: i64,
    pub(super) must_convert: bool,
}

/// The result of an early release's records: in those, a broker's registration started a new leader epoch in every partition that it led.
#[derive(Default)]
pub(super) struct Implied {
    image: MetadataImage,
    end: i64,
    epoch: i32,
    removed: Vec<Uuid>,
}

impl Replay {
    fn deliver(&self, committed: Committed) {
        // There is no reader while Kafka's metadata is taken over.
        let _ = self.committed.send(committed);
    }

    pub(super) fn snapshot(&mut self, snapshot: Snapshot, form: Form) {
        match (form, &mut self.implied) {
            (Form::Implied, Some(implied)) => {
                snapshot.records.into_iter().for_each(|record| implied.apply(record));
                (implied.end, implied.epoch) = (snapshot.end, snapshot.epoch);
            }
            _ => {
                self.implied = None;
                self.deliver(Committed::Snapshot(snapshot));
            }
        }
    }

    pub(super) fn batch(&mut self, header: &BatchHeader, content: Content) -> Result<(), Error> {
        let (epoch, offset) = (header.leader_epoch.0, header.base_offset.0);
        self.last_ms = header.max_timestamp;
        match (content, &mut self.implied) {
            (Content::Records(records), Some(implied)) => {
                records.into_iter().for_each(|record| implied.apply(record));
                (implied.end, implied.epoch) = (header.next_offset().0, epoch);
            }
            (Content::Records(records), None) => self.deliver(Committed::Entry(Entry { epoch, offset, records })),
            (Content::LeaderChange(leader), _) => {
                self.convert();
                self.deliver(Committed::LeaderChange(LeaderChange { epoch, offset, leader }));
            }
            (_, _) => {
                let records = vec![MetadataRecord::NoOp(NoOpRecord::default()); header.records_count.max(0) as usize];
                self.deliver(Committed::Entry(Entry { epoch, offset, records }));
            }
        }
        Ok(())
    }

    /// Delivers the state of an early release, if there is one, as a snapshot. After it, each change is a record.
    pub(super) fn convert(&mut self) {
        let Some(Implied { image, end, epoch, removed }) = self.implied.take().filter(|implied| implied.end > 0) else { return };
        self.must_convert = true;
        self.deliver(Committed::Snapshot(Snapshot { end, epoch, records: image.to_records(), removed }));
    }
}

impl Implied {
    fn apply(&mut self, mut record: MetadataRecord) {
        match &mut record {
            MetadataRecord::RegisterBroker(broker) => {
                broker.rack = broker.rack.take().filter(|rack| !rack.is_empty());
                self.image.apply_implied(broker.broker_id);
            }
            MetadataRecord::Partition(partition) => {
                let unassigned = partition.directories.iter_mut().filter(|id| **id == Uuid::ZERO);
                unassigned.for_each(|id| *id = UNASSIGNED_DIRECTORY);
            }
            MetadataRecord::RemoveTopic(topic) => self.removed.push(topic.topic_id),
            _ => {}
        }
        self.image.apply(&record);
    }
}
