//! The same messages through the `kafka-protocol` crate: random values, every version that both know, both directions.

use bytes::{Bytes, BytesMut};
use dlog::protocol::{Message, decode_whole, encode_to_bytes};
use dlog::wire::{Form, Writer};
use kafka_protocol::protocol::{Decodable, Encodable, Message as Theirs};
use protocol_spec::{Field, Kind, Primitive, Spec};

/// A small generator of random numbers (SplitMix64): a seed gives the same messages again.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Writes a random value of a message by its declaration, independent of the generated code.
struct Random<'a> {
    chance: &'a mut Chance,
    version: i16,
    flexible: bool,
}

impl Random<'_> {
    fn fields(&mut self, fields: &[Field], writer: &mut Writer) {
        let version = self.version;
        for field in fields.iter().filter(|f| f.tag.is_none() && f.versions.contains(version)) {
            self.field(field, writer);
        }
        if self.flexible {
            let tagged: Vec<&Field> = fields.iter().filter(|f| f.tag.is_some() && f.versions.contains(version)).collect();
            let mut tags = dlog::wire::Tags::new();
            for field in tagged {
                // A tagged field that holds its default is not written, and a random one is unlikely to: numbers are made odd and large.
                if self.chance.below(2) == 0 && field.nullable.is_none() && !matches!(field.kind, Kind::Struct(_)) {
                    tags.add(field.tag.unwrap(), |writer| self.value(field, writer, true));
                }
            }
            writer.tags(tags);
        }
    }

    fn form(&self, field: &Field) -> Form {
        if self.flexible && !field.inflexible { Form::Compact } else { Form::Plain }
    }

    fn field(&mut self, field: &Field, writer: &mut Writer) {
        let null = field.nullable.is_some_and(|v| v.contains(self.version)) && self.chance.below(3) == 0;
        let form = self.form(field);
        match (&field.kind, null) {
            (Kind::Struct(_), true) => writer.int8(-1),
            (Kind::Struct(_), false) if field.nullable.is_some() => {
                writer.int8(1);
                self.value(field, writer, false);
            }
            (Kind::Primitive(Primitive::String), true) => writer.nullable_string(None, form),
            (_, true) => writer.nullable_bytes(None, form),
            (_, false) => self.value(field, writer, false),
        }
    }

    fn value(&mut self, field: &Field, writer: &mut Writer, not_empty: bool) {
        let form = self.form(field);
        match &field.kind {
            Kind::Primitive(Primitive::Bool) if not_empty => writer.boolean(true),
            Kind::Primitive(Primitive::String) if not_empty => writer.string("x", form),
            Kind::Primitive(p) => self.primitive(*p, form, writer),
            Kind::Struct(_) => self.fields(&field.fields, writer),
            Kind::Array(of) => {
                let count = if not_empty { 1 + self.chance.below(2) } else { self.chance.below(4) };
                let items = vec![(); count as usize];
                writer.array(&items, form, |writer, ()| match &**of {
                    Kind::Primitive(p) => self.primitive(*p, form, writer),
                    _ => self.fields(&field.fields, writer),
                });
            }
        }
    }

    fn primitive(&mut self, primitive: Primitive, form: Form, writer: &mut Writer) {
        let bits = self.chance.next() | 1;
        match primitive {
            Primitive::Bool => writer.boolean(bits & 2 != 0),
            Primitive::Int8 => writer.int8(bits as i8),
            Primitive::Int16 => writer.int16(bits as i16),
            Primitive::Uint16 => writer.uint16(bits as u16),
            Primitive::Int32 => writer.int32(bits as i32),
            Primitive::Uint32 => writer.uint32(bits as u32),
            Primitive::Int64 => writer.int64(bits as i64),
            Primitive::Float64 => writer.float64(bits as i32 as f64),
            Primitive::Uuid => writer.uuid(dlog::model::Uuid((u128::from(bits) << 64 | u128::from(self.chance.next())).to_be_bytes())),
            Primitive::String => writer.string(&"abcäxyz"[..[0, 1, 3, 5][(bits >> 8) as usize % 4]], form),
            Primitive::Bytes | Primitive::Records => {
                let length = (bits >> 8) as usize % 40;
                writer.bytes(&Bytes::from(vec![bits as u8; length]), form);
            }
        }
    }
}

/// Versions compared for one message.
fn compare<Ours: Message, Other: Decodable + Encodable + Theirs>(message: &protocol_spec::Message, chance: &mut Chance) -> usize {
    let mut versions = 0;
    let theirs = Other::VERSIONS;
    for version in Ours::MIN_VERSION.max(theirs.min)..=Ours::MAX_VERSION.min(theirs.max) {
        versions += 1;
        for _ in 0..40 {
            let seed = chance.0;
            let mut writer = Writer::default();
            let flexible = message.flexible.is_some_and(|v| v.contains(version));
            Random { chance, version, flexible }.fields(&message.fields, &mut writer);
            let bytes = writer.into_bytes();
            let what = format!("{} v{version}, seed {seed}: {bytes:x}", Ours::NAME);

            let ours: Ours = decode_whole(&bytes, version).unwrap_or_else(|e| panic!("{what}\nwe cannot decode it: {e}"));
            let encoded = encode_to_bytes(&ours, version);
            assert_eq!(encoded, bytes, "{what}\nwe encode other bytes");

            let mut input = encoded.clone();
            let theirs = Other::decode(&mut input, version).unwrap_or_else(|e| panic!("{what}\nthe crate cannot decode it: {e}"));
            assert!(input.is_empty(), "{what}\nthe crate leaves bytes over");
            let mut again = BytesMut::new();
            theirs.encode(&mut again, version).unwrap_or_else(|e| panic!("{what}\nthe crate cannot encode it: {e}"));
            let back: Ours =
                decode_whole(&again.freeze(), version).unwrap_or_else(|e| panic!("{what}\nwe cannot decode the crate's bytes: {e}"));
            assert_eq!(encode_to_bytes(&back, version), bytes, "{what}\nthe crate's bytes mean something else");
        }
    }
    versions
}

macro_rules! compare_all {
    ($($module:ident, $name:ident, $request:ident, $response:ident;)*) => {
        fn compare_apis(spec: &Spec, chance: &mut Chance) -> usize {
            use dlog::protocol::generated as ours;
            use kafka_protocol::messages as theirs;
            let mut versions = 0;
            $({
                let api = spec.apis.iter().find(|api| api.name == stringify!($name)).expect("generated from the spec");
                versions += compare::<ours::$module::$request, theirs::$request>(&api.request, chance);
                versions += compare::<ours::$module::$response, theirs::$response>(&api.response, chance);
            })*
            versions
        }
    };
}
dlog::each_api!(compare_all);

#[test]
fn the_kafka_protocol_crate_reads_what_we_write_and_we_read_what_it_writes() {
    let spec = protocol_spec::load(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-spec")).expect("the specs are sound");
    let seed = std::env::var("DLOG_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut chance = Chance(seed);
    let mut versions = compare_apis(&spec, &mut chance);
    let message = |name: &str| &spec.messages.iter().find(|(_, m)| m.name == name).expect("declared").1;
    use dlog::protocol::generated::{consumer_protocol as ours, headers};
    use kafka_protocol::messages as theirs;
    versions += compare::<headers::RequestHeader, theirs::RequestHeader>(message("RequestHeader"), &mut chance);
    versions += compare::<headers::ResponseHeader, theirs::ResponseHeader>(message("ResponseHeader"), &mut chance);
    versions += compare::<ours::ConsumerProtocolSubscription, theirs::ConsumerProtocolSubscription>(
        message("ConsumerProtocolSubscription"),
        &mut chance,
    );
    versions +=
        compare::<ours::ConsumerProtocolAssignment, theirs::ConsumerProtocolAssignment>(message("ConsumerProtocolAssignment"), &mut chance);
    println!("{versions} message versions compared, seed {seed}");
    assert!(versions > 200, "only {versions} versions compared");
}
