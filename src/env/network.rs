//! Connections, and files that go to a socket without passing through this process.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::File;
use super::system::{send_file, send_slices, set_send_buffer_bytes};

/// The maximum number of bytes of one `sendfile` call, so that one large response does not occupy a worker for long.
const SEND_BYTES_MAX: usize = 512 << 10;
/// A slice of a file up to this size is copied: that is cheaper than a `sendfile` call and the packets before and after it.
const COPIED_MAX: usize = 16 << 10;
/// The maximum number of bytes that are collected for one send.
const GATHERED_MAX: usize = 256 << 10;
/// The read size when a range is only read to load it into the page cache.
const LOADED_AT_ONCE: usize = 128 << 10;
/// The socket's send buffer for large responses to a client on this machine while other clients are served. Over the loopback, megabytes enter a
/// socket at once, and sending and reading them occupies the cores for milliseconds. With a small buffer both sides sleep often. Measured with
/// two cores: at the 99th percentile other clients wait at most 2 times as long as alone, instead of 3 to 12 times; large responses are 15% slower.
const NARROW_BYTES: usize = 64 << 10;
/// The send buffer while no other client is served. The kernel limits it to its maximum.
const WIDE_BYTES: usize = 1 << 20;
/// How long other clients count as active after a response to one of them.
const COMPANY: Duration = Duration::from_millis(100);
/// The maximum number of slices of one `sendmsg` call.
const SLICES_MAX: usize = 1024;

/// The network of a broker: the machine's, or a simulated one.
pub trait Network: Send + Sync {
    /// Listens on `host:port`; port 0 means any free port.
    fn bind<'a>(&'a self, host: &'a str, port: u16) -> Pending<'a, Listener>;

    /// Connects to `host:port`. This may wait for as long as the network does: the caller sets the deadline. Dropping the future cancels the attempt.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Pending<'a, NewConnection>;
}

/// Splits `host:port`; an IPv6 address may be in brackets.
pub fn host_and_port(address: &str) -> io::Result<(&str, u16)> {
    let refuse = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not HOST:PORT"));
    let (host, port) = address.rsplit_once(':').ok_or_else(refuse)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host, port.parse().map_err(|_| refuse())?))
}

/// The listener of a network.
pub trait Accept: Send + Sync {
    /// The bound address.
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// The next connection. Dropping the future loses no connection.
    fn accept(&self) -> Pending<'_, NewConnection>;
}

/// A future with a result.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection's bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static> ByteStream for T {}

/// The machine's network. Brokers that share a network consider each other's clients (see [`Company`]).
#[derive(Debug, Default)]
pub struct RealNetwork {
    /// The number of responses that its accepted connections have sent.
    answers: Arc<AtomicU64>,
}

impl Network for RealNetwork {
    fn bind<'a>(&'a self, host: &'a str, port: u16) -> Pending<'a, Listener> {
        Box::pin(async move {
            let socket = TcpListener::bind((host, port)).await?;
            Ok(Listener::new(RealListener { socket, answers: self.answers.clone() }))
        })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Pending<'a, NewConnection> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
            Ok(NewConnection { stream: Stream::Socket(stream.into_std()?, None), peer, local })
        })
    }
}

struct RealListener {
    socket: TcpListener,
    answers: Arc<AtomicU64>,
}

impl Accept for RealListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn accept(&self) -> Pending<'_, NewConnection> {
        Box::pin(async move {
            let (stream, peer) = self.socket.accept().await?;
            stream.set_nodelay(true)?;
            let local = stream.local_addr()?;
            Ok(NewConnection { stream: Stream::Socket(stream.into_std()?, Some(self.answers.clone())), peer, local })
        })
    }
}

/// Accepts connections.
pub struct Listener(Box<dyn Accept>);

impl Listener {
    /// Wraps a network's listener.
    pub fn new(accept: impl Accept + 'static) -> Listener {
        Listener(Box::new(accept))
    }

    /// The bound address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_address()
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<NewConnection> {
        self.0.accept().await
    }
}

#[derive(Debug)]
enum Stream {
    /// Not registered with an event loop yet. An accepted connection has its network's response counter.
    Socket(std::net::TcpStream, Option<Arc<AtomicU64>>),
    Other(Box<dyn ByteStream>),
}

/// A new connection, accepted or outgoing, that is not used yet.
#[derive(Debug)]
pub struct NewConnection {
    stream: Stream,
    /// The other side's address.
    pub peer: SocketAddr,
    /// The address on our side.
    pub local: SocketAddr,
}

impl NewConnection {
    /// A connection of a network other than the machine's.
    pub fn new(stream: impl ByteStream, peer: SocketAddr, local: SocketAddr) -> NewConnection {
        NewConnection { stream: Stream::Other(Box::new(stream)), peer, local }
    }

    /// Its two halves, registered with the current event loop.
    pub fn split(self) -> io::Result<(ReadHalf, WriteHalf)> {
        match self.stream {
            Stream::Socket(stream, answers) => {
                let is_local = self.peer.ip().to_canonical().is_loopback();
                let (read, write) = TcpStream::from_std(stream)?.into_split();
                Ok((ReadHalf::Socket(read), WriteHalf::Socket(write, answers.map(|answers| Company::new(answers, is_local)))))
            }
            Stream::Other(stream) => Ok(split_stream(stream)),
        }
    }

    /// Its byte stream, for the client or server of another protocol.
    pub fn into_stream(self) -> io::Result<Box<dyn ByteStream>> {
        match self.stream {
            Stream::Socket(stream, _) => Ok(Box::new(TcpStream::from_std(stream)?)),
            Stream::Other(stream) => Ok(stream),
        }
    }
}

/// Counts the responses of a network, and detects whether other clients are served at the same time as this connection.
#[derive(Debug)]
pub struct Company {
    /// The number of responses that all connections of the network have sent.
    answers: Arc<AtomicU64>,
    /// Whether the peer is on this machine: only then it competes with other clients for the cores.
    is_local: bool,
    own_answers: u64,
    /// The number of other responses at its last large response; none before the first.
    other_answers: Option<u64>,
    seen: Option<Instant>,
    is_narrow: bool,
}

impl Company {
    fn new(answers: Arc<AtomicU64>, is_local: bool) -> Company {
        Company { answers, is_local, own_answers: 0, other_answers: None, seen: None, is_narrow: false }
    }

    fn count(&mut self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.own_answers += 1;
    }

    /// Whether other clients were served recently; `answers` is the number of all responses so far.
    fn is_there(&mut self, answers: u64, now: Instant) -> bool {
        let other_answers = answers - self.own_answers;
        if self.other_answers.replace(other_answers).is_some_and(|before| before != other_answers) {
            self.seen = Some(now);
        }
        self.seen.is_some_and(|seen| now - seen < COMPANY)
    }

    /// Changes the send buffer to the small or the large size, if the other one is set.
    fn make_room(&mut self, socket: &TcpStream) -> io::Result<()> {
        if !self.is_local {
            return Ok(());
        }
        let is_narrow = self.is_there(self.answers.load(Ordering::Relaxed), Instant::now());
        if is_narrow != self.is_narrow {
            set_send_buffer_bytes(socket, if is_narrow { NARROW_BYTES } else { WIDE_BYTES })?;
            self.is_narrow = is_narrow;
        }
        Ok(())
    }
}

/// The halves of a connection that is no socket. They do not use `sendfile`.
pub fn split_stream(stream: Box<dyn ByteStream>) -> (ReadHalf, WriteHalf) {
    let (read, write) = tokio::io::split(stream);
    (ReadHalf::Other(read), WriteHalf::Other(write))
}

/// The read half of a connection.
#[derive(Debug)]
pub enum ReadHalf {
    /// A socket's.
    Socket(OwnedReadHalf),
    /// Any other stream's.
    Other(tokio::io::ReadHalf<Box<dyn ByteStream>>),
}

impl ReadHalf {
    /// Waits until data or the end can be read. A stream that is no socket cannot report this, and counts as readable.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            ReadHalf::Socket(socket) => socket.readable().await,
            ReadHalf::Other(_) => Ok(()),
        }
    }

    /// Reads bytes into the free space of `buffer`; 0 is the end.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            ReadHalf::Socket(socket) => socket.read_buf(buffer).await,
            ReadHalf::Other(stream) => stream.read_buf(buffer).await,
        }
    }
}

/// A part of a response.
#[derive(Debug, Clone)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a file.
    File {
        /// The file.
        file: Arc<dyn File>,
        /// Its first byte.
        position: u64,
        /// The number of bytes.
        length: usize,
    },
}

/// Bytes that are sent together.
#[derive(Default)]
struct Gathered {
    parts: Vec<Bytes>,
    size: usize,
}

impl Gathered {
    fn push(&mut self, bytes: Bytes) {
        self.size += bytes.len();
        self.parts.push(bytes);
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.size = 0;
        std::mem::take(&mut self.parts)
    }
}

fn read_slice(file: &Arc<dyn File>, position: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    if file.read_at(position, &mut bytes)? < length {
        return Err(too_short());
    }
    Ok(bytes.into())
}

/// Loads a range into the page cache, on a thread that may block: the calling thread also serves other connections.
async fn load(file: &Arc<dyn File>, position: u64, length: usize) -> io::Result<()> {
    if file.is_cached(position, length) {
        return Ok(());
    }
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; LOADED_AT_ONCE.min(length)];
        (position..position + length as u64).step_by(LOADED_AT_ONCE).try_for_each(|at| file.read_at(at, &mut piece).map(drop))
    });
    read.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than the slice that is sent")
}

/// The write half of a connection.
#[derive(Debug)]
pub enum WriteHalf {
    /// A socket's; an accepted connection has a [`Company`].
    Socket(OwnedWriteHalf, Option<Company>),
    /// Any other stream's.
    Other(tokio::io::WriteHalf<Box<dyn ByteStream>>),
}

impl WriteHalf {
    /// Writes all parts. To a socket, bytes in memory and small file slices are sent together; larger slices are sent from the file to the socket
    /// within the kernel, if both support it. If the peer reads nothing for as long as `patience`, the error has the kind `TimedOut`.
    pub async fn write(&mut self, parts: &[Part], patience: Duration) -> io::Result<()> {
        match self {
            WriteHalf::Socket(socket, company) => {
                company.iter_mut().for_each(Company::count);
                Sender { socket: (*socket).as_ref(), company: company.as_mut(), patience }.send(parts).await
            }
            WriteHalf::Other(stream) => copy(parts, stream, patience).await,
        }
    }
}

/// Writes parts to a stream that is no socket.
async fn copy(parts: &[Part], stream: &mut (impl AsyncWrite + Unpin), patience: Duration) -> io::Result<()> {
    for part in parts {
        match part {
            Part::Bytes(bytes) => write_all(stream, bytes, patience).await?,
            Part::File { file, position, length } => {
                for at in (0..*length).step_by(GATHERED_MAX) {
                    let (position, length) = (position + at as u64, GATHERED_MAX.min(length - at));
                    load(file, position, length).await?;
                    write_all(stream, &read_slice(file, position, length)?, patience).await?;
                }
            }
        }
    }
    stream.flush().await
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(patience, stream.write(bytes)).await? {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written?..],
        }
    }
    Ok(())
}

/// Writes parts to a socket.
struct Sender<'a> {
    socket: &'a TcpStream,
    company: Option<&'a mut Company>,
    patience: Duration,
}

impl Sender<'_> {
    async fn send(&mut self, parts: &[Part]) -> io::Result<()> {
        let mut gathered = Gathered::default();
        for part in parts {
            if gathered.size >= GATHERED_MAX {
                self.send_bytes(&gathered.take(), true).await?;
            }
            match part {
                Part::Bytes(bytes) => gathered.push(bytes.clone()),
                Part::File { file, position, length } if *length <= COPIED_MAX => {
                    load(file, *position, *length).await?;
                    gathered.push(read_slice(file, *position, *length)?);
                }
                Part::File { file, position, length } => {
                    self.send_bytes(&gathered.take(), true).await?;
                    self.send_file(file, *position, *length).await?;
                }
            }
        }
        self.send_bytes(&gathered.take(), false).await
    }

    /// `more` means that the rest of the last packet follows at once.
    async fn send_bytes(&self, parts: &[Bytes], more: bool) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let some = &left[..left.len().min(SLICES_MAX)];
            let sent = self.ready(|socket| send_slices(socket, some, more)).await?;
            IoSlice::advance_slices(&mut left, sent);
        }
        Ok(())
    }

    async fn send_file(&mut self, file: &Arc<dyn File>, mut position: u64, mut left: usize) -> io::Result<()> {
        if let Some(company) = &mut self.company {
            company.make_room(self.socket)?;
        }
        while left > 0 {
            let some = left.min(SEND_BYTES_MAX);
            load(file, position, some).await?;
            let sent = match file.descriptor() {
                Some(descriptor) => self.ready(|socket| send_file(socket, descriptor, &mut position, some)).await?,
                None => {
                    self.send_bytes(&[read_slice(file, position, some)?], some < left).await?;
                    position += some as u64;
                    some
                }
            };
            if sent == 0 {
                return Err(too_short());
            }
            left -= sent;
            if left > 0 {
                // Lets the thread serve its other connections.
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Calls the system once the socket is writable.
    async fn ready(&self, mut send: impl FnMut(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let sent = async {
            loop {
                self.socket.writable().await?;
                match send(self.socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    sent => return sent,
                }
            }
        };
        timeout(self.patience, sent).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn company_is_who_was_answered_in_the_last_tenth_of_a_second() {
        let begin = Instant::now();
        let mut company = Company::new(Arc::default(), true);
        // Time in ms, own responses and all so far, and the expected result.
        let cases = [
            (0, 1, 8, false),
            (1, 2, 9, false),
            (2, 3, 11, true),
            (60, 9, 17, true),
            (101, 10, 18, true),
            (102, 11, 19, false),
            (103, 11, 40, true),
        ];
        for (ms, own_answers, answers, expected) in cases {
            company.own_answers = own_answers;
            assert_eq!(company.is_there(answers, begin + Duration::from_millis(ms)), expected, "after {ms} ms");
        }
    }
}
