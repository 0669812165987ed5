//! Walks over the batches of a segment file.

use std::io;
use std::ops::ControlFlow;

use crate::env::File;
use crate::records::{BatchHeader, Error, layout};

/// Bytes per read if batches are small. Of larger batches only the headers are read.
const CHUNK_BYTES: usize = 16 * 1024;

/// Bytes per read of a walk over whole batches; for a larger batch the buffer grows.
const PIECE_BYTES: usize = 1 << 20;

/// Why a walk stopped early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The disk failed.
    Io(io::Error),
    /// There is no whole, valid batch at the position.
    Batch(Error),
}

/// Reads headers from a position on, without the records.
pub(super) struct Headers<'a> {
    file: &'a dyn File,
    position: u64,
    end: u64,
    chunk: Vec<u8>,
    chunk_position: u64,
    /// Size of the previous batch.
    last_size: usize,
}

impl<'a> Headers<'a> {
    /// Headers of the batches in `position..end`; `position` must be the first byte of a batch.
    pub(super) fn new(file: &'a dyn File, position: u64, end: u64) -> Self {
        Headers { file, position, end, chunk: Vec::new(), chunk_position: position, last_size: usize::MAX }
    }

    fn read(&mut self) -> Result<BatchHeader, Stop> {
        let from = (self.position - self.chunk_position) as usize;
        if self.chunk.len() < from + layout::SIZE {
            let wanted = if self.last_size < CHUNK_BYTES { CHUNK_BYTES } else { layout::SIZE };
            let size = wanted.min((self.end - self.position) as usize);
            self.chunk.resize(size, 0);
            let read = self.file.read_at(self.position, &mut self.chunk).map_err(Stop::Io)?;
            self.chunk.truncate(read);
            self.chunk_position = self.position;
        }
        let from = (self.position - self.chunk_position) as usize;
        let header = BatchHeader::read(&self.chunk[from.min(self.chunk.len())..]).map_err(Stop::Batch)?;
        if self.position + header.size() as u64 > self.end {
            return Err(Stop::Batch(Error::Empty));
        }
        self.last_size = header.size();
        Ok(header)
    }
}

impl Iterator for Headers<'_> {
    type Item = Result<(u64, BatchHeader), Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let read = self.read().map(|header| (self.position, header));
        self.position = read.as_ref().map_or(self.end, |(position, header)| position + header.size() as u64);
        Some(read)
    }
}

/// Walks over whole batches with their bytes, compares their checksums, and reads large pieces. Stops at the first invalid batch, or when `each`
/// breaks. `each` receives the position, the header and all bytes of a batch.
pub(super) fn walk_batches<B>(
    file: &dyn File,
    mut position: u64,
    end: u64,
    mut each: impl FnMut(u64, &BatchHeader, &[u8]) -> ControlFlow<B>,
) -> Result<Option<B>, Stop> {
    let mut piece = vec![0; PIECE_BYTES.min(end.saturating_sub(position) as usize)];
    let mut filled = 0;
    while position < end {
        // The rest of the last piece is at the front, and begins at `position`.
        let wanted = piece.len().min((end - position) as usize);
        filled += file.read_at(position + filled as u64, &mut piece[filled..wanted]).map_err(Stop::Io)?;
        let mut done = 0;
        loop {
            let header = match BatchHeader::read(&piece[done..filled]) {
                Ok(header) if position + (done + header.size()) as u64 > end => return Err(Stop::Batch(Error::Empty)),
                Ok(header) => header,
                Err(Error::Empty) if filled == wanted && position + (filled as u64) < end => break,
                Err(error) => return if done == filled { Ok(None) } else { Err(Stop::Batch(error)) },
            };
            let Some(batch) = piece[done..filled].get(..header.size()) else { break };
            header.check_crc(batch).map_err(Stop::Batch)?;
            if let ControlFlow::Break(value) = each(position + done as u64, &header, batch) {
                return Ok(Some(value));
            }
            done += header.size();
        }
        if filled < wanted {
            return Err(Stop::Batch(Error::Empty));
        }
        if done == 0 {
            let header = BatchHeader::read(&piece[..filled]).map_err(Stop::Batch)?;
            piece.resize(header.size(), 0);
        }
        piece.copy_within(done..filled, 0);
        (position, filled) = (position + done as u64, filled - done);
    }
    Ok(None)
}

/// All bytes of the batch at `position`.
pub(super) fn read_batch(file: &dyn File, position: u64, header: &BatchHeader) -> Result<Vec<u8>, Stop> {
    let mut bytes = vec![0; header.size()];
    let read = file.read_at(position, &mut bytes).map_err(Stop::Io)?;
    if read < bytes.len() { Err(Stop::Batch(Error::Empty)) } else { Ok(bytes) }
}
