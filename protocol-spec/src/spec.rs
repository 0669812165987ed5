//! The declarations as Rust types.

/// All declarations.
#[derive(Debug, Default, Clone)]
pub struct Spec {
    /// One per `api` file, by key.
    pub apis: Vec<Api>,
    /// Messages that are not requests or responses, with the file's stem: headers and stored records.
    pub messages: Vec<(String, Message)>,
    /// Error codes in order.
    pub errors: Vec<ErrorCode>,
    /// Structures with a fixed byte layout.
    pub layouts: Vec<Layout>,
}

/// A request and its response.
#[derive(Debug, Clone)]
pub struct Api {
    /// The api key on the wire.
    pub key: i16,
    /// Kafka's name, in CamelCase.
    pub name: String,
    /// A description in one sentence.
    pub doc: String,
    /// The request.
    pub request: Message,
    /// The response.
    pub response: Message,
}

/// A top-level message.
#[derive(Debug, Clone)]
pub struct Message {
    /// The name in CamelCase.
    pub name: String,
    /// The record type of messages that are stored, or none.
    pub type_id: Option<i16>,
    /// The versions that exist.
    pub versions: Versions,
    /// The versions with compact lengths and tags.
    pub flexible: Option<Versions>,
    /// The fields in wire order.
    pub fields: Vec<Field>,
    /// The line of the declaration.
    pub line: usize,
}

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name in snake_case.
    pub name: String,
    /// The type of the field.
    pub kind: Kind,
    /// The versions that have it.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Option<Versions>,
    /// The tag, for a tagged field.
    pub tag: Option<u32>,
    /// True if the field keeps its non-compact encoding in flexible versions (RequestHeader's client id).
    pub inflexible: bool,
    /// The default as written; none for the type's zero value.
    pub default: Option<String>,
    /// The fields of a struct, or of the structs in an array.
    pub fields: Vec<Field>,
    /// The line of the declaration.
    pub line: usize,
}

/// A field's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A primitive by its name in the format: `int32`, `string`, `records` ...
    Primitive(Primitive),
    /// A struct, by name; its fields are in the field.
    Struct(String),
    /// An array.
    Array(Box<Kind>),
}

/// The primitive types of the Kafka protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Primitive {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
}

/// A range of versions, both ends included; `max` is `i16::MAX` for `N+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first version.
    pub min: i16,
    /// The last version.
    pub max: i16,
}

impl Versions {
    /// Every version.
    pub const ALL: Versions = Versions { min: 0, max: i16::MAX };

    /// Whether `version` is in the range.
    pub fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether all of `other` is in the range.
    pub fn covers(self, other: Versions) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    /// The intersection; none if it is empty.
    pub fn meet(self, other: Versions) -> Option<Versions> {
        let both = Versions { min: self.min.max(other.min), max: self.max.min(other.max) };
        (both.min <= both.max).then_some(both)
    }
}

/// One error code.
#[derive(Debug, Clone)]
pub struct ErrorCode {
    /// The code on the wire.
    pub code: i16,
    /// Kafka's name in capitals.
    pub name: String,
    /// Whether clients may retry.
    pub retriable: bool,
    /// Whether clients refresh their metadata before they retry.
    pub refreshes_metadata: bool,
}

/// A structure whose fields are at fixed byte offsets.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The name in CamelCase.
    pub name: String,
    /// A description in one sentence.
    pub doc: String,
    /// Its total size in bytes.
    pub size: usize,
    /// The name, type and byte offset of each field.
    pub fields: Vec<(String, Primitive, usize)>,
    /// The line of the declaration.
    pub line: usize,
}
