//! The codecs of a batch's records, with limited output.

use std::io::{Read, Write};

use super::Error;

/// How the records of a batch are compressed; the number is bits 0 to 2 of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
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

/// The first bytes of a xerial stream: the magic, followed by version and lowest compatible version.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Bytes of magic and the two versions.
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes of each block that is written, as in xerial.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

impl Codec {
    /// The codec in a batch's attributes.
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

    /// The name in `compression.type`.
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

/// Checks that a block begins with a frame of its codec, without decompressing it: magic numbers, versions and reserved bits.
///
/// | codec | the first bytes |
/// |---|---|
/// | gzip | `1f 8b 08`, flags without the three reserved bits (RFC 1952) |
/// | snappy | xerial's magic and a complete block, or a raw block: its elements add up to the length at its front |
/// | lz4 | `04 22 4d 18`, version 1, block size 4 to 7 |
/// | zstd | `28 b5 2f fd`, or a skippable frame (RFC 8878) |
pub fn check_frame(codec: Codec, block: &[u8]) -> Result<(), Error> {
    let fits = match (codec, block) {
        (Codec::None, _) => true,
        (Codec::Gzip, [0x1f, 0x8b, 8, flags, ..]) => flags & 0xe0 == 0,
        (Codec::Lz4, [0x04, 0x22, 0x4d, 0x18, flags, sizes, ..]) => flags >> 6 == 1 && (0x40..=0x70).contains(sizes),
        (Codec::Zstd, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) => true,
        (Codec::Snappy, block) if block.starts_with(&XERIAL_MAGIC) => {
            let first = block.get(XERIAL_HEADER_BYTES..).and_then(|rest| rest.split_first_chunk::<4>());
            first.is_some_and(|(length, rest)| rest.get(..u32::from_be_bytes(*length) as usize).is_some_and(is_snappy_block))
        }
        (Codec::Snappy, block) => is_snappy_block(block),
        _ => false,
    };
    if fits { Ok(()) } else { Err(failed(codec, &"it does not begin with a frame of this codec")) }
}

/// Whether a block is a raw snappy block, which has no magic number: the sizes of its elements, found without copying a byte, must add up to the
/// length at its front.
fn is_snappy_block(block: &[u8]) -> bool {
    let walk = || {
        let length = snap::raw::decompress_len(block).ok()?;
        let length_bytes = block.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let (mut rest, mut produced) = (block.get(length_bytes..)?, 0);
        while let Some((tag, after)) = rest.split_first() {
            let (long, short) = (usize::from(tag >> 2), usize::from(tag >> 2 & 7));
            let (size, distance, next) = match tag & 3 {
                0 if long < 60 => (long + 1, None, after.get(long + 1..)?),
                0 => {
                    let (bytes, after) = after.split_at_checked(long - 59)?;
                    let size = little_endian(bytes).checked_add(1)?;
                    (size, None, after.get(size..)?)
                }
                1 => (short + 4, Some(usize::from(tag >> 5) << 8 | usize::from(*after.first()?)), after.get(1..)?),
                2 => (long + 1, Some(little_endian(after.get(..2)?)), after.get(2..)?),
                _ => (long + 1, Some(little_endian(after.get(..4)?)), after.get(4..)?),
            };
            if distance.is_some_and(|distance| distance == 0 || distance > produced) {
                return None;
            }
            produced += size;
            rest = next;
        }
        (produced > 0 && produced == length).then_some(())
    };
    walk().is_some()
}

fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Decompresses a block. More than `max` bytes are an error, which is detected during decompression.
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
    let mut rest = block.get(XERIAL_HEADER_BYTES..).ok_or(failed(Codec::Snappy, &"the header is truncated"))?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(failed(Codec::Snappy, &"a block length is truncated"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(length).ok_or(failed(Codec::Snappy, &"a block is truncated"))?;
        snappy_block(chunk, max, &mut bytes)?;
        rest = after;
    }
    Ok(bytes)
}

/// Appends one raw block. A block begins with its decompressed size, which is checked before memory is reserved.
fn snappy_block(block: &[u8], max: usize, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let length = snap::raw::decompress_len(block).map_err(|e| failed(Codec::Snappy, &e))?;
    // A block of n bytes cannot decompress to more than about 64 n bytes (a copy of 64 has three bytes, a short one two).
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
    fn a_frame_of_another_codec_is_not_taken_for_its_own() {
        let codecs = &CODECS[1..];
        let bytes = b"some bytes that are compressed".repeat(10);
        for written in codecs {
            let block = compress(*written, &bytes).unwrap();
            for said in codecs {
                assert_eq!(check_frame(*said, &block).is_ok(), said == written, "{} read as {}", written.name(), said.name());
            }
            assert!(check_frame(*written, &block[..2]).is_err(), "{} cut off", written.name());
        }
        // Uncompressed records with the attributes of a codec, as a faulty client once sent them.
        let plain = [18, 0, 0, 0, 2, b'k', 6, b'a', b'b', b'c', 0];
        for codec in codecs {
            assert!(check_frame(*codec, &plain).is_err() && check_frame(*codec, &[]).is_err(), "{}", codec.name());
        }
        assert!(check_frame(Codec::Snappy, &snap::raw::Encoder::new().compress_vec(&bytes).unwrap()).is_ok());
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
