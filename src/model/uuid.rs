//! Topic, cluster, directory and incarnation ids.

use std::fmt;

/// 16 bytes, displayed as in Kafka: 22 characters of URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// The id that means "none".
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// A version 4 UUID from 16 random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Uuid {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }

    /// Parses the base64 form.
    pub fn parse(text: &str) -> Option<Uuid> {
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (at, letter) in text.bytes().enumerate() {
            let value = ALPHABET.iter().position(|a| *a == letter)? as u128;
            // 21 characters encode 126 bits; the last one encodes two bits followed by four zeros.
            if at == 21 && value & 0x0f != 0 {
                return None;
            }
            bits = if at < 21 { bits << 6 | value } else { bits << 2 | value >> 4 };
        }
        Some(Uuid(bits.to_be_bytes()))
    }

    /// The form with dashes, as in member ids: `8-4-4-4-12` hexadecimal digits.
    pub fn dashed(self) -> String {
        let hex = format!("{:032x}", u128::from_be_bytes(self.0));
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for at in 0..22 {
            let value = if at < 21 { bits >> (122 - 6 * at) } else { bits << 4 } & 0x3f;
            write!(f, "{}", ALPHABET[value as usize] as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_there_and_back() {
        let id = "5L6g3nShT-eMCtK--X86sw";
        assert_eq!(Uuid::parse(id).map(|u| u.to_string()).as_deref(), Some(id));
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let all = Uuid([255; 16]);
        assert_eq!(Uuid::parse(&all.to_string()), Some(all));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "short", "5L6g3nShT-eMCtK--X86s!", "_____________________w____", "______________________"] {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }
}
