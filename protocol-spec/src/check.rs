//! Checks of a specification.

use std::collections::BTreeSet;

use crate::{Error, Field, Kind, Message, Primitive, Spec, Versions};

/// Rejects invalid specifications: tags before flexible versions, gaps in versions, defaults of the wrong type, duplicate names.
pub fn check(file: &str, spec: &Spec) -> Result<(), Error> {
    let messages = spec.apis.iter().flat_map(|api| [&api.request, &api.response]).chain(spec.messages.iter().map(|(_, m)| m));
    for message in messages {
        Checker { file, message }.message()?;
    }
    for api in &spec.apis {
        if api.request.versions != api.response.versions {
            return Err(error(file, api.request.line, "request and response must have the same versions"));
        }
    }
    for layout in &spec.layouts {
        let mut at = 0;
        for (name, kind, begin) in &layout.fields {
            if *begin != at {
                return Err(error(file, layout.line, &format!("{name} must begin at byte {at}, where the field before it ends")));
            }
            at += fixed_size(*kind).ok_or_else(|| error(file, layout.line, "a layout holds numbers only"))?;
        }
        if at != layout.size {
            return Err(error(file, layout.line, &format!("the fields take {at} bytes, not {}", layout.size)));
        }
    }
    Ok(())
}

/// The size of a primitive, if it is fixed.
pub(crate) fn fixed_size(kind: Primitive) -> Option<usize> {
    Some(match kind {
        Primitive::Bool | Primitive::Int8 => 1,
        Primitive::Int16 | Primitive::Uint16 => 2,
        Primitive::Int32 | Primitive::Uint32 => 4,
        Primitive::Int64 | Primitive::Float64 => 8,
        Primitive::Uuid => 16,
        Primitive::String | Primitive::Bytes | Primitive::Records => return None,
    })
}

fn error(file: &str, line: usize, what: &str) -> Error {
    Error { file: file.to_string(), line, what: what.to_string() }
}

struct Checker<'a> {
    file: &'a str,
    message: &'a Message,
}

impl Checker<'_> {
    fn message(&self) -> Result<(), Error> {
        let Message { versions, flexible, line, .. } = self.message;
        if versions.min > versions.max || versions.max == i16::MAX {
            return Err(self.error(*line, "a message has a first and a last version"));
        }
        if let Some(flexible) = flexible
            && (flexible.max != i16::MAX || flexible.min > versions.max)
        {
            return Err(self.error(*line, "flexible versions are `N+` and begin within the message's"));
        }
        self.fields(&self.message.fields)
    }

    fn fields(&self, fields: &[Field]) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        let mut tags = BTreeSet::new();
        for field in fields {
            if !names.insert(&field.name) {
                return Err(self.error(field.line, &format!("{} is declared twice", field.name)));
            }
            if let Some(tag) = field.tag
                && !tags.insert(tag)
            {
                return Err(self.error(field.line, &format!("tag {tag} is used twice")));
            }
            self.field(field)?;
        }
        if tags.iter().next_back().is_some_and(|last| *last as usize + 1 != tags.len()) {
            return Err(self.error(fields[0].line, "tags leave a gap"));
        }
        Ok(())
    }

    fn field(&self, field: &Field) -> Result<(), Error> {
        let own =
            field.versions.meet(self.message.versions).ok_or_else(|| self.error(field.line, "no version of the message has this field"))?;
        if let Some(nullable) = field.nullable {
            if nullable.meet(own).is_none() {
                return Err(self.error(field.line, "nullable only in versions that lack the field"));
            }
            if matches!(field.kind, Kind::Primitive(p) if fixed_size(p).is_some()) {
                return Err(self.error(field.line, "a number cannot be null"));
            }
        }
        if field.tag.is_some() && !self.message.flexible.unwrap_or(Versions { min: i16::MAX, max: i16::MAX }).covers(own) {
            return Err(self.error(field.line, "a tag before the flexible versions"));
        }
        self.default(field)?;
        let holds_struct = match &field.kind {
            Kind::Struct(_) => true,
            Kind::Array(of) => matches!(**of, Kind::Struct(_)),
            Kind::Primitive(_) => false,
        };
        if holds_struct == field.fields.is_empty() {
            return Err(self.error(field.line, "a struct has fields, and nothing else has"));
        }
        self.fields(&field.fields)
    }

    fn default(&self, field: &Field) -> Result<(), Error> {
        let Some(default) = &field.default else { return Ok(()) };
        let fits = match (&field.kind, default.as_str()) {
            (_, "null") => field.nullable.is_some(),
            (Kind::Primitive(Primitive::Bool), text) => text == "true",
            (Kind::Primitive(Primitive::String), text) => !text.is_empty(),
            (Kind::Primitive(p), text) => fixed_size(*p).is_some() && text.parse::<i64>().is_ok(),
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.error(field.line, &format!("{default} is no default for this type"))) }
    }

    fn error(&self, line: usize, what: &str) -> Error {
        error(self.file, line, what)
    }
}

#[cfg(test)]
mod tests {
    use crate::{check, parse};

    fn refused(text: &str) -> String {
        let spec = parse("x.spec", "x", text).expect("the text parses");
        check("x.spec", &spec).expect_err("the text is nonsense").what
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            ("message M versions 0-3 flexible 2+\n  a: int32 1+ tag 0\n", "a tag before the flexible versions"),
            ("message M versions 0-3\n  a: int32 4+\n", "no version of the message has this field"),
            ("message M versions 0-3\n  a: int32 nullable\n", "a number cannot be null"),
            ("message M versions 0-3\n  a: int32\n  a: int32\n", "a is declared twice"),
            ("message M versions 0-3 flexible 0+\n  a: int32 tag 1\n", "tags leave a gap"),
            ("message M versions 0-3\n  a: bool = 7\n", "7 is no default for this type"),
            ("message M versions 0-3\n  a: string = null\n", "null is no default for this type"),
            ("message M versions 0-3\n  a: [T]\n", "a struct has fields, and nothing else has"),
            ("layout L size 5\n  a: int32 @0\n", "the fields take 4 bytes, not 5"),
            ("layout L size 5\n  a: int8 @0\n  b: int32 @2\n", "b must begin at byte 1, where the field before it ends"),
            ("api 1 A\nrequest versions 0-1\nresponse versions 0-2\n", "request and response must have the same versions"),
        ];
        for (text, want) in cases {
            assert_eq!(refused(text), want, "{text}");
        }
    }
}
