//! Requests of a controller to the others. A quorum of one voter has none.

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EmptyNode, OptionalSend, Snapshot};

use super::{Quorum, Vote};
use crate::cluster::Error;

/// The network of a sole voter: no other node can be reached.
#[derive(Debug)]
pub(super) struct Alone;

fn unreachable() -> Unreachable {
    Unreachable::new(&Error::NotController)
}

impl RaftNetworkFactory<Quorum> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _: u64, _: &EmptyNode) -> Alone {
        Alone
    }
}

impl RaftNetwork<Quorum> for Alone {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Quorum>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        Err(unreachable().into())
    }

    async fn vote(&mut self, _: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<Quorum>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Quorum, Fatal<u64>>> {
        Err(unreachable().into())
    }
}
