//! One connection to a broker; requests can be pipelined.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::timeout;

use super::Error;
use crate::env::{ByteStream, Network, Part, ReadHalf, WriteHalf, host_and_port, split_stream};
use crate::protocol::generated::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::generated::headers::ResponseHeader;
use crate::protocol::{Message, Request, encode_request, response_header_version};
use crate::wire::Frame;

/// The default deadline of a response: Kafka's `request.timeout.ms`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of a response.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// A version of ApiVersions that every current broker supports.
const API_VERSIONS: i16 = 3;
/// The size of a frame's length field.
const LENGTH_BYTES: usize = 4;
/// The minimum free buffer space for a read.
const READ_BYTES: usize = 64 * 1024;

/// A connection. Responses arrive in the order of the requests. The connection's deadline applies to each wait for the broker: connecting,
/// sending (while the broker reads nothing), and the next response. After a time-out the connection cannot be used for further calls: the late
/// response may still arrive and would be read as that of the next request, which then fails because of the correlation id.
#[derive(Debug)]
pub struct Connection {
    read: ReadHalf,
    write: WriteHalf,
    buffer: BytesMut,
    client_id: String,
    correlation_id: i32,
    deadline: Duration,
}

impl Connection {
    /// Connects to `host:port`. The deadline applies to this and to each later response.
    pub async fn open(network: &dyn Network, address: &str, client_id: &str, deadline: Duration) -> Result<Connection, Error> {
        let (host, port) = host_and_port(address)?;
        let connected = timeout(deadline, network.connect(host, port)).await.map_err(|_| Error::TimedOut("connecting", deadline))?;
        Ok(Connection::of(connected?.split()?, client_id, deadline))
    }

    /// Uses a stream that is already connected.
    pub fn over(stream: impl ByteStream, client_id: &str) -> Connection {
        Connection::of(split_stream(Box::new(stream)), client_id, REQUEST_TIMEOUT)
    }

    fn of((read, write): (ReadHalf, WriteHalf), client_id: &str, deadline: Duration) -> Connection {
        Connection { read, write, buffer: BytesMut::new(), client_id: client_id.to_string(), correlation_id: 0, deadline }
    }

    /// Sends the client's name and version, and returns the broker's supported APIs (KIP-511).
    pub async fn greet(&mut self) -> Result<ApiVersionsResponse, Error> {
        let who = ApiVersionsRequest {
            client_software_name: "dlog".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        self.call(&who, API_VERSIONS).await
    }

    /// Sends a request and returns its correlation id.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, Error> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = encode_request(request, version, self.correlation_id, &self.client_id);
        self.send_frame(frame).await?;
        Ok(self.correlation_id)
    }

    /// Sends an encoded frame, with its length before it.
    pub async fn send_frame(&mut self, frame: Bytes) -> Result<(), Error> {
        let length = Bytes::copy_from_slice(&(frame.len() as i32).to_be_bytes());
        self.write(&[Part::Bytes(length), Part::Bytes(frame)]).await
    }

    /// Sends bytes unchanged.
    pub async fn send_raw(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.write(&[Part::Bytes(bytes)]).await
    }

    async fn write(&mut self, parts: &[Part]) -> Result<(), Error> {
        match self.write.write(parts, self.deadline).await {
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Error::TimedOut("sending", self.deadline)),
            written => Ok(written?),
        }
    }

    /// The frame of the next response, without its length.
    pub async fn frame(&mut self) -> Result<Bytes, Error> {
        let deadline = self.deadline;
        timeout(deadline, self.next_frame()).await.map_err(|_| Error::TimedOut("waiting for a response", deadline))?
    }

    /// Dropping the future loses nothing: received bytes stay in the buffer.
    async fn next_frame(&mut self) -> Result<Bytes, Error> {
        self.fill(LENGTH_BYTES).await?;
        // The length stays in the buffer until the frame is complete.
        let length = self.buffer.as_ref().get_i32();
        let size = usize::try_from(length).ok().filter(|size| *size <= ANSWER_BYTES_MAX);
        let what = || format!("its length is {length}");
        let size = size.ok_or_else(|| Error::Malformed { name: "a request", version: 0, what: what() })?;
        self.fill(LENGTH_BYTES + size).await?;
        self.buffer.advance(LENGTH_BYTES);
        Ok(self.buffer.split_to(size).freeze())
    }

    /// The next response, which must be of this request type, with its correlation id.
    pub async fn receive<R: Request>(&mut self, version: i16) -> Result<(i32, R::Response), Error> {
        let frame = Frame::new(self.frame().await?);
        let malformed = |what: String| Error::Malformed { name: R::NAME, version, what };
        let (rest, header) =
            ResponseHeader::decode(frame.cursor(), response_header_version(R::KEY, version)).map_err(|e| malformed(e.to_string()))?;
        let (rest, response) = R::Response::decode(rest, version).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes are left over", rest.len())));
        }
        Ok((header.correlation_id, response))
    }

    /// Sends a request and waits for its response.
    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, Error> {
        let sent = self.send(request, version).await?;
        let (answered, response) = self.receive::<R>(version).await?;
        if sent != answered {
            return Err(Error::Malformed { name: R::NAME, version, what: format!("number {answered} instead of {sent}") });
        }
        Ok(response)
    }

    async fn fill(&mut self, size: usize) -> Result<(), Error> {
        while self.buffer.len() < size {
            self.buffer.reserve((size - self.buffer.len()).max(READ_BYTES));
            if self.read.read(&mut self.buffer).await? == 0 {
                return Err(Error::Closed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::env::{Listener, NewConnection, Pending};

    const CONNECTING: Duration = Duration::from_secs(3);

    /// A network on which no connection attempt ends.
    struct Silence;

    impl Network for Silence {
        fn bind<'a>(&'a self, _host: &'a str, _port: u16) -> Pending<'a, Listener> {
            Box::pin(std::future::pending())
        }

        fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> Pending<'a, NewConnection> {
            Box::pin(std::future::pending())
        }
    }

    /// The response to the request with this correlation id.
    fn answer(correlation_id: i32) -> Vec<u8> {
        // Length, number, error, no APIs, throttle time, no tags.
        let body = [&correlation_id.to_be_bytes()[..], &[0, 0], &[1], &[0; 4], &[0]].concat();
        [&(body.len() as i32).to_be_bytes()[..], &body].concat()
    }

    fn connection() -> (Connection, DuplexStream) {
        let (ours, theirs) = duplex(4096);
        (Connection::over(ours, "test"), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_waits_for_the_broker_has_a_deadline() {
        let refused = Connection::open(&Silence, "nowhere:1", "test", CONNECTING).await.unwrap_err();
        assert!(matches!(refused, Error::TimedOut("connecting", CONNECTING)), "{refused}");
        let (mut connection, _theirs) = connection();
        let begin = tokio::time::Instant::now();
        let late = connection.greet().await.unwrap_err();
        assert!(matches!(late, Error::TimedOut("waiting for a response", REQUEST_TIMEOUT)), "{late}");
        assert_eq!(begin.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
        let mut sent = Ok(());
        while sent.is_ok() {
            // The peer does not read: at some point the writes stop.
            sent = connection.send_raw(Bytes::from_static(&[0; 1024])).await;
        }
        assert!(matches!(sent, Err(Error::TimedOut("sending", REQUEST_TIMEOUT))), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_after_its_deadline_is_not_taken_for_the_next_one() {
        let (mut connection, mut theirs) = connection();
        let bytes = answer(1);
        theirs.write_all(&bytes[..7]).await.unwrap();
        assert!(matches!(connection.greet().await, Err(Error::TimedOut(..))));
        theirs.write_all(&bytes[7..]).await.unwrap();
        let mixed = connection.greet().await.unwrap_err().to_string();
        assert!(mixed.contains("number 1 instead of 2"), "{mixed}");
        theirs.write_all(&answer(2)).await.unwrap();
        theirs.write_all(&answer(3)).await.unwrap();
        assert_eq!(connection.receive::<ApiVersionsRequest>(API_VERSIONS).await.unwrap().0, 2);
        assert_eq!(connection.greet().await.unwrap().error_code, 0);
    }
}
