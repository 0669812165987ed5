//! Walks over the batches of a segment file.

use std::io;

use crate::env::File;
use crate::records::{BatchHeader, Error, layout};

/// Bytes that one read fetches: several small batches, or the header of a large one.
const CHUNK_BYTES: usize = 16 * 1024;

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The disk failed.
    Io(io::Error),
    /// The bytes at the position are no whole batch.
    Batch(Error),
}

/// Reads headers from a position on, without the records.
pub(super) struct Headers<'a> {
    file: &'a dyn File,
    position: u64,
    end: u64,
    chunk: Vec<u8>,
    chunk_position: u64,
}

impl<'a> Headers<'a> {
    /// Headers of the batches in `position..end`; `position` must be a batch's first byte.
    pub(super) fn new(file: &'a dyn File, position: u64, end: u64) -> Self {
        Headers { file, position, end, chunk: Vec::new(), chunk_position: position }
    }

    fn read(&mut self) -> Result<BatchHeader, Stop> {
        let from = (self.position - self.chunk_position) as usize;
        if self.chunk.len() < from + layout::SIZE {
            let size = CHUNK_BYTES.min((self.end - self.position) as usize);
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

/// All bytes of the batch at `position`.
pub(super) fn read_batch(file: &dyn File, position: u64, header: &BatchHeader) -> Result<Vec<u8>, Stop> {
    let mut bytes = vec![0; header.size()];
    let read = file.read_at(position, &mut bytes).map_err(Stop::Io)?;
    if read < bytes.len() { Err(Stop::Batch(Error::Empty)) } else { Ok(bytes) }
}
