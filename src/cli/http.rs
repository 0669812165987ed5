//! Asks a broker over HTTP.

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use crate::env::{Network, NewConnection, RealNetwork, host_and_port};

/// Connects to `host:port` on this machine's network.
pub(super) async fn reach(address: &str) -> std::io::Result<NewConnection> {
    let (host, port) = host_and_port(address)?;
    RealNetwork::default().connect(host, port).await
}

/// Status and body of `GET path`.
pub(super) async fn get(address: &str, path: &str) -> Result<(StatusCode, Bytes), String> {
    ask(Method::GET, address, path).await
}

/// Status and body of a request without a body.
pub(super) async fn ask(method: Method, address: &str, path: &str) -> Result<(StatusCode, Bytes), String> {
    let lost = |what: String| format!("cannot connect to {address} over HTTP: {what}; set the broker's HTTP address with --http");
    let stream = reach(address).await.and_then(NewConnection::into_stream).map_err(|e| lost(e.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(e.to_string()))?;
    // It ends with the answer.
    tokio::spawn(connection);
    let uri: Uri = path.parse().map_err(|e| lost(format!("{e}")))?;
    let request = Request::builder().method(method).uri(uri).header(header::HOST, address);
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| lost(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| lost(e.to_string()))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| lost(e.to_string()))?;
    Ok((status, body.to_bytes()))
}
