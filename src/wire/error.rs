//! Errors of decoding a message.

use super::Cursor;

/// The error in a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field extends beyond the end of the frame.
    #[error("the frame is {missing} bytes too short")]
    Truncated {
        /// Bytes that the field still requires, as far as is known.
        missing: usize,
    },
    /// A length below -1, or -1 in a field that is not nullable.
    #[error("the length {0} is invalid here")]
    Length(i64),
    /// A string beyond Kafka's limit of 32,767 bytes.
    #[error("a string of {0} bytes is longer than 32767")]
    StringTooLong(usize),
    /// A variable-length number of more than 5 (10) bytes.
    #[error("a variable-length number is too long")]
    Varint,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// More array items than the maximum per frame.
    #[error("more than {max} array items in one frame", max = super::ITEMS_MAX)]
    Items,
    /// Tags that are not in ascending order.
    #[error("tag {0} is out of order")]
    TagOrder(u32),
    /// Bytes remain after the last field.
    #[error("{0} bytes are left after the last field")]
    LeftOver(usize),
    /// A nom combinator failed.
    #[error("the bytes do not match ({0:?})")]
    Nom(nom::error::ErrorKind),
}

impl<'a> nom::error::ParseError<Cursor<'a>> for Error {
    fn from_error_kind(input: Cursor<'a>, kind: nom::error::ErrorKind) -> Self {
        match kind {
            nom::error::ErrorKind::Eof => Error::Truncated { missing: 1_usize.saturating_sub(input.len()) },
            kind => Error::Nom(kind),
        }
    }

    fn append(_: Cursor<'a>, _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

impl Error {
    /// The error as nom requires it: a failure, so that nom tries no alternative.
    pub fn fatal(self) -> nom::Err<Error> {
        nom::Err::Failure(self)
    }
}

impl From<nom::Err<Error>> for Error {
    fn from(error: nom::Err<Error>) -> Error {
        match error {
            nom::Err::Error(error) | nom::Err::Failure(error) => error,
            nom::Err::Incomplete(_) => Error::Truncated { missing: 1 },
        }
    }
}
