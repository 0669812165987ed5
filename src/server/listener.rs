//! Accepts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connection;
use super::services::{Caller, Endpoint, Services};
use super::visits::Visit;
use crate::env::{ByteStream, Listener, Tasks, split_stream};

/// The first and the longest wait after a failed accept, for example at the limit of open files.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Serves one existing connection, for example from this process itself.
pub async fn serve_stream(stream: Box<dyn ByteStream>, endpoint: Endpoint, services: Arc<Services>, stop: CancellationToken) {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let visit = Arc::new(Visit::new(services.visits.clone(), nowhere.ip()));
    let caller = Caller { services, endpoint: Arc::new(endpoint), local: nowhere, peer: nowhere, visit };
    let (read, write) = split_stream(stream);
    connection::run(read, write, caller, stop).await;
}

/// Accepts connections until told to stop. Each is one of the `tasks`: a panic in a request stops the broker, because the state that the request was
/// changing may be inconsistent.
pub async fn serve(listener: Listener, endpoint: Endpoint, services: Arc<Services>, stop: CancellationToken, tasks: Tasks) {
    let endpoint = Arc::new(endpoint);
    let mut back_off = BACK_OFF.0;
    loop {
        let connections_open = services.budgets.connections.clone();
        // Cancelling loses a connection on which nothing was read or written yet.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = async {
                let accepted = listener.accept().await?;
                // Like Kafka's acceptor: a connection above the limit is accepted and waits until another one closes.
                Ok::<_, std::io::Error>((connections_open.acquire(|| services.connections_max()).await, accepted))
            } => accepted,
        };
        match accepted {
            Ok((permit, accepted)) => {
                back_off = BACK_OFF.0;
                let visit = Arc::new(Visit::new(services.visits.clone(), accepted.peer.ip().to_canonical()));
                let (local, peer) = (accepted.local, accepted.peer);
                let caller = Caller { services: services.clone(), endpoint: endpoint.clone(), local, peer, visit };
                // A token of its own, so that connections on different threads do not share its lock.
                let stop = stop.child_token();
                let serving = async move {
                    let _permit = permit;
                    match accepted.split() {
                        Ok((read, write)) => connection::run(read, write, caller, stop).await,
                        Err(error) => warn!(peer = %caller.peer, %error, "a connection could not be served"),
                    }
                };
                tasks.spawn_in(&services.env.workers.next(), "a connection", serving);
            }
            Err(error) => {
                warn!(listener = %endpoint.name, %error, "a connection could not be accepted; is the limit of open files reached?");
                stop.run_until_cancelled(tokio::time::sleep(back_off)).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}
