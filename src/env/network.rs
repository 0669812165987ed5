//! TCP, and files that go to a socket without passing through this process.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::File;

/// Bytes that one `sendfile` call may move, so that one big answer does not hold a worker for long.
const SEND_BYTES_MAX: usize = 1 << 20;

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

    /// The next connection: its two halves, the peer's address and the address it reached.
    pub async fn accept(&self) -> io::Result<(ReadHalf, WriteHalf, SocketAddr, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (read, write) = stream.into_split();
        Ok((ReadHalf(read), WriteHalf(write), peer, local))
    }

    /// The listener of another protocol's server.
    pub fn into_inner(self) -> TcpListener {
        self.0
    }
}

/// What comes in.
#[derive(Debug)]
pub struct ReadHalf(OwnedReadHalf);

impl ReadHalf {
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

/// What goes out.
#[derive(Debug)]
pub struct WriteHalf(OwnedWriteHalf);

impl WriteHalf {
    /// Writes all of a part: from file to socket within the kernel where both allow it.
    pub async fn write(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Bytes(bytes) => self.0.write_all(bytes).await,
            Part::File { file, position, length } => self.send_file(file, *position, *length).await,
        }
    }

    async fn send_file(&mut self, file: &Arc<dyn File>, mut position: u64, mut left: usize) -> io::Result<()> {
        while left > 0 {
            let socket: &TcpStream = self.0.as_ref();
            let sent = match file.descriptor() {
                Some(descriptor) => {
                    let send = || Ok(rustix::fs::sendfile(socket, descriptor, Some(&mut position), left.min(SEND_BYTES_MAX))?);
                    socket.async_io(Interest::WRITABLE, send).await?
                }
                None => self.copy_some(file, &mut position, left).await?,
            };
            if sent == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than the slice that is sent"));
            }
            left -= sent;
        }
        Ok(())
    }

    async fn copy_some(&mut self, file: &Arc<dyn File>, position: &mut u64, left: usize) -> io::Result<usize> {
        let mut bytes = vec![0; left.min(SEND_BYTES_MAX)];
        let count = file.read_at(*position, &mut bytes)?;
        self.0.write_all(&bytes[..count]).await?;
        *position += count as u64;
        Ok(count)
    }

    /// Says that nothing more will come.
    pub async fn shut_down(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
