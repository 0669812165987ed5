//! The file with this node's vote: `quorum-state`, with the fields of Kafka's file of that name.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Vote;
use crate::cluster::Error;
use crate::env::Disk;

/// The file's name, in the directory of the metadata log.
const NAME: &str = "quorum-state";
/// The leader's id while no leader is known.
const NO_LEADER: i64 = -1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuorumState {
    leader_id: i64,
    leader_epoch: u64,
    voted_id: i64,
    #[serde(rename = "data_version")]
    version: u16,
}

/// The stored vote; none if there is no file.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Vote>, Error> {
    let path = directory.join(NAME);
    if !disk.exists(&path) {
        return Ok(None);
    }
    let bytes = disk.read(&path).map_err(|e| Error::Storage(format!("cannot read {}: {e}", path.display())))?;
    let unreadable = |what: &str| Error::Storage(format!("{} is damaged ({what}); restore it from a copy", path.display()));
    let state: QuorumState = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e.to_string()))?;
    let voted = u64::try_from(state.voted_id).map_err(|_| unreadable("votedId is negative"))?;
    let is_known = state.leader_id == state.voted_id;
    Ok(Some(if is_known { Vote::new_committed(state.leader_epoch, voted) } else { Vote::new(state.leader_epoch, voted) }))
}

/// Stores a vote; it is durable when this returns.
pub(super) fn write(disk: &dyn Disk, directory: &Path, vote: &Vote) -> Result<(), Error> {
    let voted_id = vote.leader_id.voted_for().map_or(NO_LEADER, |id| id as i64);
    let leader_id = if vote.is_committed() { voted_id } else { NO_LEADER };
    let state = QuorumState { leader_id, leader_epoch: vote.leader_id.term, voted_id, version: 0 };
    let path = directory.join(NAME);
    let bytes = serde_json::to_vec(&state).expect("numbers can be written");
    disk.replace(&path, &bytes).map_err(|e| Error::Storage(format!("cannot write {}: {e}", path.display())))
}
