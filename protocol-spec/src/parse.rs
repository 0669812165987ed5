//! The parser of the line format, written with nom.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::{char, digit1, i16 as int16, space0, space1, u32 as uint32};
use nom::combinator::{all_consuming, map, map_res, opt, rest, value};
use nom::multi::many0;
use nom::sequence::{delimited, preceded, separated_pair, terminated};
use nom::{IResult, Parser};

use crate::{Api, Error, ErrorCode, Field, Kind, Layout, Message, Primitive, Spec, Versions};

/// Parses one file. `stem` is its name without folder and extension; it becomes the module name of the file's messages.
pub fn parse(file: &str, stem: &str, text: &str) -> Result<Spec, Error> {
    let mut lines = Lines::new(file, text);
    let doc = lines.doc.clone();
    let mut spec = Spec::default();
    while let Some((number, indent, line)) = lines.next() {
        if indent != 0 {
            return Err(lines.error(number, "a top-level line must not be indented"));
        }
        let read = all_consuming(top).parse(line).map_err(|_| lines.error(number, "expected api, message, errors or layout"))?.1;
        match read {
            Top::Api(key, name) => spec.apis.push(api(&mut lines, number, &doc, key, name)?),
            Top::Message(mut message) => {
                message.line = number;
                message.fields = lines.fields(2)?;
                spec.messages.push((stem.to_string(), message));
            }
            Top::Errors => spec.errors = lines.indented(error_code)?,
            Top::Layout(name, size) => {
                let fields = lines.indented(layout_field)?;
                spec.layouts.push(Layout { name, doc: doc.clone(), size, fields, line: number });
            }
            Top::Half(_) => return Err(lines.error(number, "request and response stand below an api line")),
        }
    }
    Ok(spec)
}

fn api(lines: &mut Lines, number: usize, doc: &str, key: i16, name: String) -> Result<Api, Error> {
    let mut half = |word: &str| -> Result<Message, Error> {
        let (number, _, line) = lines.next().ok_or_else(|| lines.error(number, "an api needs a request and a response"))?;
        match all_consuming(top).parse(line) {
            Ok((_, Top::Half(mut message))) if message.name == word => {
                message.name = format!("{name}{}{}", &word[..1].to_uppercase(), &word[1..]);
                message.line = number;
                message.fields = lines.fields(2)?;
                Ok(message)
            }
            _ => Err(lines.error(number, &format!("expected `{word} versions A-B`"))),
        }
    };
    let (request, response) = (half("request")?, half("response")?);
    Ok(Api { key, name, doc: doc.to_string(), request, response })
}

/// The lines that are not empty and not comments, with their numbers and indents.
struct Lines<'a> {
    file: &'a str,
    doc: String,
    left: std::iter::Peekable<std::vec::IntoIter<(usize, usize, &'a str)>>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let doc = text.lines().take_while(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim()).collect::<Vec<_>>().join(" ");
        let said: Vec<_> = text
            .lines()
            .enumerate()
            .map(|(i, l)| (i + 1, l.split('#').next().unwrap_or("").trim_end()))
            .filter(|(_, l)| !l.trim().is_empty())
            .map(|(n, l)| (n, l.len() - l.trim_start().len(), l.trim_start()))
            .collect();
        Lines { file, doc, left: said.into_iter().peekable() }
    }

    fn next(&mut self) -> Option<(usize, usize, &'a str)> {
        self.left.next()
    }

    fn error(&self, line: usize, what: &str) -> Error {
        Error { file: self.file.to_string(), line, what: what.to_string() }
    }

    /// The fields at `indent`, with their nested fields.
    fn fields(&mut self, indent: usize) -> Result<Vec<Field>, Error> {
        let mut fields = Vec::new();
        while let Some(&(number, at, line)) = self.left.peek() {
            if at < indent {
                break;
            }
            if at > indent {
                return Err(self.error(number, "indented more than the line above allows"));
            }
            self.left.next();
            let mut read = all_consuming(field)
                .parse(line)
                .map_err(|_| self.error(number, "expected `name: type [versions] [nullable [versions]] [tag N] [= default]`"))?
                .1;
            read.line = number;
            read.fields = self.fields(indent + 2)?;
            fields.push(read);
        }
        Ok(fields)
    }

    fn indented<T>(&mut self, parser: fn(&str) -> IResult<&str, T>) -> Result<Vec<T>, Error> {
        let mut read = Vec::new();
        while let Some(&(number, at, line)) = self.left.peek() {
            if at == 0 {
                break;
            }
            self.left.next();
            read.push(all_consuming(parser).parse(line).map_err(|_| self.error(number, "not a line of this kind"))?.1);
        }
        Ok(read)
    }
}

#[derive(Clone)]
enum Top {
    Api(i16, String),
    Half(Message),
    Message(Message),
    Errors,
    Layout(String, usize),
}

fn top(input: &str) -> IResult<&str, Top> {
    alt((
        map((preceded(terminated(tag("api"), space1), int16), preceded(space1, word)), |(key, name)| Top::Api(key, name)),
        map((alt((tag("request"), tag("response"))), message_tail), |(name, tail)| Top::Half(message(name.to_string(), None, tail))),
        map(
            (preceded(terminated(tag("message"), space1), word), opt(preceded((space1, tag("type"), space1), int16)), message_tail),
            |(name, id, tail)| Top::Message(message(name, id, tail)),
        ),
        value(Top::Errors, tag("errors")),
        map(preceded(terminated(tag("layout"), space1), separated_pair(word, (space1, tag("size"), space1), number)), |(name, size)| {
            Top::Layout(name, size)
        }),
    ))
    .parse(input)
}

fn message(name: String, type_id: Option<i16>, (versions, flexible): (Versions, Option<Versions>)) -> Message {
    Message { name, type_id, versions, flexible, fields: Vec::new(), line: 0 }
}

fn message_tail(input: &str) -> IResult<&str, (Versions, Option<Versions>)> {
    let latest_unstable = opt((space1, tag("latest-unstable")));
    terminated(
        (preceded((space1, tag("versions"), space1), versions), opt(preceded((space1, tag("flexible"), space1), versions))),
        latest_unstable,
    )
    .parse(input)
}

#[derive(Clone)]
enum Mark {
    Versions(Versions),
    Nullable(Option<Versions>),
    Tag(u32),
    Inflexible,
}

fn field(input: &str) -> IResult<&str, Field> {
    let (input, (name, kind)) = separated_pair(word, (char(':'), space1), kind).parse(input)?;
    let mark = alt((
        map(preceded(tag("nullable"), opt(preceded(space1, versions))), Mark::Nullable),
        map(preceded((tag("tag"), space1), uint32), Mark::Tag),
        value(Mark::Inflexible, tag("inflexible")),
        map(versions, Mark::Versions),
    ));
    let (input, marks) = many0(preceded(space1, mark)).parse(input)?;
    let (input, default) = opt(preceded((space1, char('='), space0), map(rest, str::to_string))).parse(input)?;
    let none =
        Field { name, kind, versions: Versions::ALL, nullable: None, tag: None, inflexible: false, default, fields: Vec::new(), line: 0 };
    let read = marks.into_iter().fold((none, false), |(mut field, mut all), mark| {
        match mark {
            Mark::Versions(versions) => field.versions = versions,
            Mark::Nullable(Some(versions)) => field.nullable = Some(versions),
            Mark::Nullable(None) => all = true,
            Mark::Tag(tag) => field.tag = Some(tag),
            Mark::Inflexible => field.inflexible = true,
        }
        (field, all)
    });
    let (mut field, nullable_throughout) = read;
    if nullable_throughout {
        field.nullable = Some(field.versions);
    }
    Ok((input, field))
}

fn kind(input: &str) -> IResult<&str, Kind> {
    alt((
        map(delimited(char('['), kind, char(']')), |k| Kind::Array(Box::new(k))),
        map(primitive, Kind::Primitive),
        map(word, Kind::Struct),
    ))
    .parse(input)
}

fn primitive(input: &str) -> IResult<&str, Primitive> {
    use Primitive::*;
    map_res(word, |word| {
        Ok::<_, ()>(match word.as_str() {
            "bool" => Bool,
            "int8" => Int8,
            "int16" => Int16,
            "uint16" => Uint16,
            "int32" => Int32,
            "uint32" => Uint32,
            "int64" => Int64,
            "float64" => Float64,
            "uuid" => Uuid,
            "string" => String,
            "bytes" => Bytes,
            "records" => Records,
            _ => return Err(()),
        })
    })
    .parse(input)
}

/// `3`, `3+` or `3-7`.
fn versions(input: &str) -> IResult<&str, Versions> {
    let (input, min) = int16(input)?;
    alt((value(Versions { min, max: i16::MAX }, char('+')), map(preceded(char('-'), int16), |max| Versions { min, max }), |input| {
        Ok((input, Versions { min, max: min }))
    }))
    .parse(input)
}

fn error_code(input: &str) -> IResult<&str, ErrorCode> {
    map(
        (int16, preceded(space1, word), opt(preceded(space1, tag("retriable"))), opt(preceded(space1, tag("metadata")))),
        |(code, name, retriable, metadata)| ErrorCode {
            code,
            name,
            retriable: retriable.is_some(),
            refreshes_metadata: metadata.is_some(),
        },
    )
    .parse(input)
}

fn layout_field(input: &str) -> IResult<&str, (String, Primitive, usize)> {
    map((word, preceded((char(':'), space1), primitive), preceded((space1, char('@')), number)), |(name, kind, at)| (name, kind, at))
        .parse(input)
}

fn number(input: &str) -> IResult<&str, usize> {
    map_res(digit1, str::parse).parse(input)
}

fn word(input: &str) -> IResult<&str, String> {
    map(take_while1(|c: char| c.is_ascii_alphanumeric() || c == '_'), str::to_string).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_line_gives_all_its_marks() {
        let (_, field) = field("topics: [Topic] 2-7 nullable 3+ tag 4 = null").unwrap();
        assert_eq!(field.kind, Kind::Array(Box::new(Kind::Struct("Topic".into()))));
        assert_eq!((field.versions.min, field.versions.max), (2, 7));
        assert_eq!(field.nullable, Some(Versions { min: 3, max: i16::MAX }));
        assert_eq!((field.tag, field.default.as_deref()), (Some(4), Some("null")));
    }

    #[test]
    fn an_error_names_file_and_line() {
        let error = parse("x.spec", "x", "api 1 A\n\nrequest versions 0\n  a int32\n").unwrap_err();
        assert_eq!((error.file.as_str(), error.line), ("x.spec", 4));
    }

    #[test]
    fn an_api_without_a_response_is_refused() {
        assert!(parse("x.spec", "x", "api 1 A\nrequest versions 0\n").is_err());
    }
}
