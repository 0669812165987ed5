//! DescribeTransactions: returns the state of the transactions of transactional ids (KIP-664).

use crate::coordinator::TransactionView;
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TopicData, TransactionState,
};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<DescribeTransactionsRequest>) -> DescribeTransactionsResponse {
    let one = |id: &String| {
        let found = match call.caller.services.transactions.describe(id) {
            _ if id.is_empty() => Err(ErrorCode::InvalidRequest),
            Ok(view) => view.ok_or(ErrorCode::TransactionalIdNotFound),
            Err(error) => Err(error),
        };
        let failed = |error: ErrorCode| TransactionState { error_code: error.code(), transactional_id: id.clone(), ..Default::default() };
        found.map_or_else(failed, described)
    };
    DescribeTransactionsResponse { transaction_states: call.request.transactional_ids.iter().map(one).collect(), ..Default::default() }
}

fn described(view: TransactionView) -> TransactionState {
    let mut topics: Vec<TopicData> = Vec::new();
    for partition in view.partitions {
        match topics.last_mut().filter(|t| *t.topic == *partition.topic) {
            Some(topic) => topic.partitions.push(partition.partition),
            None => topics.push(TopicData { topic: partition.topic.to_string(), partitions: vec![partition.partition] }),
        }
    }
    TransactionState {
        error_code: 0,
        transactional_id: view.id,
        transaction_state: view.state.name().to_string(),
        transaction_timeout_ms: view.timeout_ms,
        transaction_start_time_ms: view.start_ms,
        producer_id: view.producer.id.0,
        producer_epoch: view.producer.epoch.0,
        topics,
    }
}
