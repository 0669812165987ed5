//! A stream that ends when it is told to, for connections whose tasks this program does not own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::ByteStream;

/// The stream, which reads and writes until `end` is cancelled. From then on reads return the end and writes fail, also those that wait.
pub fn ended_by(stream: Box<dyn ByteStream>, end: &CancellationToken) -> Box<dyn ByteStream> {
    Box::new(Ended { stream, read_end: Box::pin(end.clone().cancelled_owned()), write_end: Box::pin(end.clone().cancelled_owned()) })
}

/// Reads and writes may wait in different tasks, so each side has its own wake-up.
#[derive(Debug)]
struct Ended {
    stream: Box<dyn ByteStream>,
    read_end: Pin<Box<WaitForCancellationFutureOwned>>,
    write_end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ended {
    /// Either the end, or what the stream does.
    fn writing<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Box<dyn ByteStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.write_end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Pending => write(Pin::new(&mut self.stream), context),
        }
    }
}

impl AsyncRead for Ended {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.read_end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Ended {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writing(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing(context, |stream, context| stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_while_both_sides_wait() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let end = CancellationToken::new();
        let (mut read, mut write) = tokio::io::split(ended_by(Box::new(ours), &end));
        write.write_all(b"ping").await.unwrap();
        theirs.write_all(b"pong").await.unwrap();
        let mut bytes = [0; 4];
        read.read_exact(&mut bytes).await.unwrap();
        let ending = async {
            tokio::task::yield_now().await;
            end.cancel();
        };
        // The buffer of 4 bytes is full, so the write waits.
        let (read, written, ()) = tokio::join!(read.read(&mut bytes), write.write_all(b"more"), ending);
        assert_eq!((read.unwrap(), written.unwrap_err().kind()), (0, io::ErrorKind::ConnectionAborted));
    }
}
