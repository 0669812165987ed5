//! TCP, and files that go to a socket without passing through this process.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::File;

/// Bytes that one `sendfile` call may move, so that one big answer does not hold a worker for long.
const SEND_BYTES_MAX: usize = 1 << 20;
/// A slice of a file up to this size is copied: that costs less than a `sendfile` and the packets before and after it.
const COPIED_MAX: usize = 16 << 10;
/// Bytes that are gathered before they leave.
const GATHERED_MAX: usize = 256 << 10;
/// Bytes that are read at once only so that they are in the page cache.
const LOADED_AT_ONCE: usize = 128 << 10;
/// Slices that one `sendmsg` call may take.
const SLICES_MAX: usize = 1024;

/// Accepts connections.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on `host:port`; port 0 takes a free one.
    pub async fn bind(host: &str, port: u16) -> io::Result<Listener> {
        Ok(Listener(TcpListener::bind((host, port)).await?))
    }

    /// The address that was taken.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Accepted { stream: stream.into_std()?, peer, local })
    }

    /// The listener of another protocol's server.
    pub fn into_inner(self) -> TcpListener {
        self.0
    }
}

/// A connection that no event loop has yet.
#[derive(Debug)]
pub struct Accepted {
    stream: std::net::TcpStream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The address that it reached.
    pub local: SocketAddr,
}

impl Accepted {
    /// Its two halves, served by the event loop that this runs in.
    pub fn split(self) -> io::Result<(ReadHalf, WriteHalf)> {
        let (read, write) = TcpStream::from_std(self.stream)?.into_split();
        Ok((ReadHalf(read), WriteHalf(write)))
    }
}

/// Connects to `host:port`.
pub async fn connect(address: &str) -> io::Result<(ReadHalf, WriteHalf)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((ReadHalf(read), WriteHalf(write)))
}

/// Connects to `host:port` for another protocol's client.
pub async fn connect_stream(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// What comes in.
#[derive(Debug)]
pub struct ReadHalf(OwnedReadHalf);

impl ReadHalf {
    /// Waits until there is something to read, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Reads some bytes into the room that `buffer` has; 0 is the end.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.0.read_buf(buffer).await
    }
}

/// A piece of an answer.
#[derive(Debug, Clone)]
pub enum Part {
    /// Bytes at hand.
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

/// Bytes that leave together.
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

/// Brings a range into the page cache, on a thread that may wait for the disk: this one serves other connections too.
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

/// What goes out.
#[derive(Debug)]
pub struct WriteHalf(OwnedWriteHalf);

impl WriteHalf {
    /// Writes all of the parts: those at hand and the small ones of files together, the others from the file to the socket within the kernel
    /// where both allow it. A peer that takes nothing for as long as `patience` is an error of the kind `TimedOut`.
    pub async fn write(&mut self, parts: &[Part], patience: Duration) -> io::Result<()> {
        let mut gathered = Gathered::default();
        for part in parts {
            if gathered.size >= GATHERED_MAX {
                self.send_bytes(&gathered.take(), true, patience).await?;
            }
            match part {
                Part::Bytes(bytes) => gathered.push(bytes.clone()),
                Part::File { file, position, length } if *length <= COPIED_MAX => {
                    load(file, *position, *length).await?;
                    gathered.push(read_slice(file, *position, *length)?);
                }
                Part::File { file, position, length } => {
                    self.send_bytes(&gathered.take(), true, patience).await?;
                    self.send_file(file, *position, *length, patience).await?;
                }
            }
        }
        self.send_bytes(&gathered.take(), false, patience).await
    }

    /// `more` says that the rest of the last packet follows at once.
    async fn send_bytes(&self, parts: &[Bytes], more: bool, patience: Duration) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|bytes| IoSlice::new(bytes)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        while !left.is_empty() {
            let some = &left[..left.len().min(SLICES_MAX)];
            let sent = self.ready(patience, |socket| sendmsg(socket, some, &mut SendAncillaryBuffer::default(), flags)).await?;
            IoSlice::advance_slices(&mut left, sent);
        }
        Ok(())
    }

    async fn send_file(&self, file: &Arc<dyn File>, mut position: u64, mut left: usize, patience: Duration) -> io::Result<()> {
        while left > 0 {
            let some = left.min(SEND_BYTES_MAX);
            load(file, position, some).await?;
            let sent = match file.descriptor() {
                Some(descriptor) => self.ready(patience, |socket| sendfile(socket, descriptor, Some(&mut position), some)).await?,
                None => {
                    self.send_bytes(&[read_slice(file, position, some)?], some < left, patience).await?;
                    position += some as u64;
                    some
                }
            };
            if sent == 0 {
                return Err(too_short());
            }
            left -= sent;
        }
        Ok(())
    }

    /// Calls the system once the socket takes bytes.
    async fn ready(&self, patience: Duration, mut send: impl FnMut(&TcpStream) -> Result<usize, Errno>) -> io::Result<usize> {
        let socket: &TcpStream = self.0.as_ref();
        let sent = socket.async_io(Interest::WRITABLE, || Ok(send(socket)?));
        tokio::time::timeout(patience, sent).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Says that nothing more will come.
    pub async fn shut_down(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
