//! The codecs of a batch's records, with capped output.

use std::io::{Read, Write};

use super::Error;

/// How the records of a batch are compressed; the number is bits 0 to 2 of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    None = 0,
    /// A gzip member.
    Gzip = 1,
    /// Snappy in xerial's framing, which Java clients use; raw blocks are read as well.
    Snappy = 2,
    /// An LZ4 frame.
    Lz4 = 3,
    /// A zstd frame.
    Zstd = 4,
}

/// What a xerial stream begins with: magic, then version and lowest compatible version.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Bytes of magic and the two versions.
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes of a block that we write, as xerial does.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

impl Codec {
    /// The codec of a batch's attributes.
    pub fn from_attributes(attributes: i16) -> Result<Codec, Error> {
        Ok(match attributes & 7 {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            other => return Err(Error::Codec(other as u8)),
        })
    }

    /// As in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "uncompressed",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

/// Decompresses a block; more than `max` bytes are an error, found while they stream.
pub fn decompress(codec: Codec, block: &[u8], max: usize) -> Result<Vec<u8>, Error> {
    match codec {
        Codec::None => Ok(block.to_vec()),
        Codec::Gzip => read_capped(codec, flate2::read::MultiGzDecoder::new(block), max),
        Codec::Snappy => snappy(block, max),
        Codec::Lz4 => read_capped(codec, lz4_flex::frame::FrameDecoder::new(block), max),
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(block).map_err(|e| failed(codec, &e))?;
            read_capped(codec, decoder, max)
        }
    }
}

/// Compresses a block at the codec's default level.
pub fn compress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let result = match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        Codec::Snappy => Ok(xerial(bytes)?),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).and_then(|()| encoder.finish().map_err(std::io::Error::other))
        }
        Codec::Zstd => zstd::stream::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    result.map_err(|e| failed(codec, &e))
}

fn failed(codec: Codec, error: &dyn std::fmt::Display) -> Error {
    Error::Decompress { codec: codec.name(), what: error.to_string() }
}

fn read_capped(codec: Codec, reader: impl Read, max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    reader.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed(codec, &e))?;
    if bytes.len() > max { Err(Error::Bomb(max)) } else { Ok(bytes) }
}

fn snappy(block: &[u8], max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    if !block.starts_with(&XERIAL_MAGIC) {
        snappy_block(block, max, &mut bytes)?;
        return Ok(bytes);
    }
    let mut rest = block.get(XERIAL_HEADER_BYTES..).ok_or(failed(Codec::Snappy, &"the header is cut off"))?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(failed(Codec::Snappy, &"a block length is cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(length).ok_or(failed(Codec::Snappy, &"a block is cut off"))?;
        snappy_block(chunk, max, &mut bytes)?;
        rest = after;
    }
    Ok(bytes)
}

/// Appends one raw block. A block says its size in front: it is checked before anything is reserved.
fn snappy_block(block: &[u8], max: usize, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let length = snap::raw::decompress_len(block).map_err(|e| failed(Codec::Snappy, &e))?;
    // A block of n bytes cannot say more than about 64 n bytes (a copy of 64 takes three bytes, a short one two).
    if bytes.len() + length > max || length > block.len().saturating_mul(64) {
        return Err(Error::Bomb(max));
    }
    let start = bytes.len();
    bytes.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut bytes[start..]).map_err(|e| failed(Codec::Snappy, &e))?;
    Ok(())
}

fn xerial(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    for chunk in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let block = snap::raw::Encoder::new().compress_vec(chunk).map_err(|e| failed(Codec::Snappy, &e))?;
        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
        out.extend_from_slice(&block);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    proptest! {
        #[test]
        fn every_codec_gives_back_what_went_in(bytes in proptest::collection::vec(any::<u8>(), 0..100_000)) {
            for codec in CODECS {
                let block = compress(codec, &bytes).unwrap();
                prop_assert_eq!(&decompress(codec, &block, 100_000).unwrap(), &bytes, "{}", codec.name());
            }
        }

        #[test]
        fn hostile_blocks_give_errors(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in &CODECS[1..] {
                let _ = decompress(*codec, &bytes, 10_000);
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 10_000_000];
        for codec in &CODECS[1..] {
            let block = compress(*codec, &zeros).unwrap();
            assert_eq!(decompress(*codec, &block, 1_000_000), Err(Error::Bomb(1_000_000)), "{}", codec.name());
        }
    }

    #[test]
    fn raw_snappy_blocks_are_read_too() {
        let block = snap::raw::Encoder::new().compress_vec(b"hello hello hello").unwrap();
        assert_eq!(decompress(Codec::Snappy, &block, 100).unwrap(), b"hello hello hello");
    }
}
