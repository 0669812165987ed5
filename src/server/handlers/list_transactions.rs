//! ListTransactions: returns the transactional ids of this broker, by state, producer, age and pattern (KIP-664, KIP-994, KIP-1152).

use regex::Regex;

use crate::coordinator::{TransactionState, TransactionView};
use crate::protocol::ErrorCode;
use crate::protocol::generated::list_transactions::{ListTransactionsRequest, ListTransactionsResponse, ListedTransaction};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<ListTransactionsRequest>) -> ListTransactionsResponse {
    let (request, transactions) = (&call.request, &call.caller.services.transactions);
    let failed = |error: ErrorCode| ListTransactionsResponse { error_code: error.code(), ..Default::default() };
    let pattern = match request.transactional_id_pattern.as_ref().filter(|p| !p.is_empty()).map(|p| Regex::new(&format!("^(?:{p})$"))) {
        Some(Err(_)) => return failed(ErrorCode::InvalidRegularExpression),
        Some(Ok(pattern)) => Some(pattern),
        None => None,
    };
    let all = match transactions.list() {
        Ok(all) => all,
        Err(error) => return failed(error),
    };
    let is_known =
        |name: &String| TransactionState::ALL.iter().any(|s| s.name() == name) || TransactionState::OTHERS.contains(&name.as_str());
    let unknown_state_filters: Vec<String> = request.state_filters.iter().filter(|name| !is_known(name)).cloned().collect();
    let is_wanted = |view: &TransactionView| {
        let by_state = request.state_filters.is_empty() || request.state_filters.iter().any(|name| name == view.state.name());
        let by_producer = request.producer_id_filters.is_empty() || request.producer_id_filters.contains(&view.producer.id.0);
        let is_old = || view.start_ms >= 0 && transactions.age_ms(view.start_ms) > request.duration_filter;
        let by_age = request.duration_filter < 0 || is_old();
        by_state && by_producer && by_age && pattern.as_ref().is_none_or(|pattern| pattern.is_match(&view.id))
    };
    let listed = |view: TransactionView| ListedTransaction {
        producer_id: view.producer.id.0,
        transaction_state: view.state.name().to_string(),
        transactional_id: view.id,
    };
    let transaction_states = all.into_iter().filter(is_wanted).map(listed).collect();
    ListTransactionsResponse { unknown_state_filters, transaction_states, ..Default::default() }
}
