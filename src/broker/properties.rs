//! Reads properties files like `java.util.Properties.load`.
//!
//! | Java's rule | example |
//! |---|---|
//! | `=`, `:` or white space ends a key | `num.partitions 3` |
//! | `\` before a separator, `#`, `!` or `\` makes it an ordinary character | `PLAINTEXT\://host\:9092` |
//! | `\t`, `\n`, `\r`, `\f` are control characters, `\uXXXX` is a UTF-16 unit | `caf\u00e9` |
//! | an odd number of `\` at the end of a line continues it; white space at the start of the next line is dropped | `log.dirs=/a,\` |
//! | `#` or `!` as the first character that is not white space begins a comment, which cannot be continued | `# comment \` |
//! | a line without a separator is a key with an empty value | `broker.rack` |
//!
//! Java reads bytes as ISO-8859-1. We read UTF-8 if the file is valid UTF-8, which is the same for ASCII and is what editors write today,
//! and ISO-8859-1 otherwise.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// White space within a line, by Java's definition.
const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];
/// Digits of a `\uXXXX` escape.
const ESCAPE_DIGITS: usize = 4;

/// The text of a file: UTF-8 if it is valid, otherwise ISO-8859-1. A byte order mark is ignored.
pub(super) fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_string(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Keys and values of a file, for other rooms.
pub fn read_properties(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    parse(&decode(bytes))
}

/// Keys and values; if a key occurs twice, the last value wins. The error contains the line number.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    for (number, line) in logical_lines(text) {
        let (key, value) = entry(&line).map_err(|what| format!("line {number}: {what}"))?;
        values.insert(key, value);
    }
    Ok(values)
}

/// Lines with their continuations, without comments and blank lines, each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, natural) in text.replace("\r\n", "\n").split(['\n', '\r']).enumerate() {
        let natural = natural.trim_start_matches(BLANKS);
        if open.is_none() && (natural.is_empty() || natural.starts_with(['#', '!'])) {
            continue;
        }
        let (number, mut line) = open.take().unwrap_or((at + 1, String::new()));
        let is_continued = natural.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        line.push_str(if is_continued { natural.strip_suffix('\\').unwrap_or(natural) } else { natural });
        if is_continued {
            open = Some((number, line));
        } else {
            lines.push((number, line));
        }
    }
    lines.extend(open);
    lines
}

/// The key and the value of a logical line.
fn entry(line: &str) -> Result<(String, String), String> {
    let mut rest = line.chars().peekable();
    let key = unescaped(&mut rest, |c| BLANKS.contains(&c) || matches!(c, '=' | ':'))?;
    while rest.next_if(|c| BLANKS.contains(c)).is_some() {}
    if rest.next_if(|c| matches!(c, '=' | ':')).is_some() {
        while rest.next_if(|c| BLANKS.contains(c)).is_some() {}
    }
    Ok((key, unescaped(&mut rest, |_| false)?))
}

/// Characters up to one that `ends`, with escapes replaced.
fn unescaped(rest: &mut Peekable<Chars>, ends: impl Fn(char) -> bool) -> Result<String, String> {
    // UTF-16, because Java's escapes represent a character outside of the basic plane as two units.
    let mut units: Vec<u16> = Vec::new();
    while let Some(c) = rest.next_if(|c| !ends(*c)) {
        let c = match if c == '\\' { rest.next() } else { None } {
            None if c == '\\' => break,
            None => c,
            Some('u') => {
                let digits: String = rest.by_ref().take(ESCAPE_DIGITS).collect();
                let is_hex = digits.len() == ESCAPE_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
                units.push(unit.ok_or_else(|| format!("\\u{digits} must have four hexadecimal digits"))?);
                continue;
            }
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('f') => '\u{c}',
            Some(other) => other,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_java_reads_them() {
        // Checked against java.util.Properties of OpenJDK 17.
        for (line, key, value) in [
            ("num.partitions=3", "num.partitions", "3"),
            ("num.partitions 3", "num.partitions", "3"),
            ("num.partitions\t: 3", "num.partitions", "3"),
            ("  a = = b", "a", "= b"),
            ("a=b ", "a", "b "),
            ("listeners=PLAINTEXT\\://host\\:9092", "listeners", "PLAINTEXT://host:9092"),
            ("listeners: PLAINTEXT://:9092", "listeners", "PLAINTEXT://:9092"),
            ("a\\=b\\ c=d", "a=b c", "d"),
            ("log.dirs=/a,\\\n   /b,\\\r\n\t/c", "log.dirs", "/a,/b,/c"),
            ("a=b\\\\\nc", "a", "b\\"),
            ("a=b\\\n# no comment", "a", "b# no comment"),
            ("a=b\\\n\n", "a", "b"),
            ("rack=caf\\u00e9\\t1\\q", "rack", "café\t1q"),
            ("rack=\\ud83d\\ude00", "rack", "😀"),
            ("broker.rack", "broker.rack", ""),
            ("a=b\\", "a", "b"),
            ("a=1\na=2", "a", "2"),
        ] {
            assert_eq!(parse(line).unwrap().get(key).map(String::as_str), Some(value), "{line:?}");
        }
        assert!(parse("# a=b\\\n ! c=d\n \t\n\n").unwrap().is_empty());
        assert_eq!(parse("# a=b\\\nc=d").unwrap().len(), 1, "a comment is not continued");
    }

    #[test]
    fn a_bad_escape_names_its_line() {
        for bad in ["x=1\na=\\u12", "x=1\na=\\u12g4", "x=1\na=\\u+123"] {
            assert!(parse(bad).unwrap_err().starts_with("line 2: \\u"), "{bad}");
        }
    }

    #[test]
    fn bytes_are_utf_8_or_latin_1() {
        assert_eq!(decode("rack=café".as_bytes()), "rack=café");
        assert_eq!(decode(b"rack=caf\xe9"), "rack=caf\u{e9}");
        assert_eq!(decode(b"\xef\xbb\xbfa=b"), "a=b");
    }
}
