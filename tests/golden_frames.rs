//! Frames that real clients exchanged with Apache Kafka decode and encode back to the same bytes.

use bytes::Bytes;
use dlog::protocol::generated::headers::{RequestHeader, ResponseHeader};
use dlog::protocol::{ApiKey, Message, request_header_version, response_header_version};
use dlog::wire::{Frame, Writer};

fn from_hex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect::<Vec<u8>>().into()
}

/// Decodes header and body and encodes both again.
fn again<H: Message, B: Message>(bytes: &Bytes, header_version: i16, version: i16) -> Result<Bytes, String> {
    let frame = Frame::new(bytes.clone());
    let (rest, header) = H::decode(frame.cursor(), header_version).map_err(|e| format!("header: {e:?}"))?;
    let (rest, body) = B::decode(rest, version).map_err(|e| format!("{}: {e:?}", B::NAME))?;
    if !rest.is_empty() {
        return Err(format!("{}: {} bytes left over", B::NAME, rest.len()));
    }
    let mut writer = Writer::default();
    header.encode(&mut writer, header_version);
    body.encode(&mut writer, version);
    Ok(writer.into_bytes())
}

macro_rules! by_key {
    ($($module:ident, $name:ident, $request:ident, $response:ident;)*) => {
        fn round_trip(key: ApiKey, version: i16, direction: &str, bytes: &Bytes) -> Result<Bytes, String> {
            use dlog::protocol::generated::*;
            match key {
                $(
                    ApiKey::$name if direction == "req" => {
                        again::<RequestHeader, $module::$request>(bytes, request_header_version(key, version), version)
                    }
                    ApiKey::$name => again::<ResponseHeader, $module::$response>(bytes, response_header_version(key, version), version),
                )*
            }
        }
    };
}
dlog::each_api!(by_key);

#[test]
fn every_golden_frame_decodes_and_encodes_to_the_same_bytes() {
    let text = include_str!("golden/golden-frames.tsv");
    let mut count = 0;
    let mut failures = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.starts_with("client\t")) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [client, key, version, direction, hex] = columns[..] else { panic!("line {}: five columns", number + 1) };
        let key = ApiKey::from_code(key.parse().unwrap()).unwrap_or_else(|| panic!("line {}: api {key} has no spec", number + 1));
        let bytes = from_hex(hex);
        let mut version: i16 = version.parse().unwrap();
        if key == ApiKey::ApiVersions && version == 5 {
            // Kafka 4.3 does not know version 5: it answers in version 0 (KIP-511), and the request is one of a version to come.
            if direction == "req" {
                let header = RequestHeader::decode(Frame::new(bytes.clone()).cursor(), 2).map(|(_, h)| h.request_api_version);
                assert_eq!(header.ok(), Some(5));
            } else {
                version = 0;
            }
        }
        count += 1;
        match round_trip(key, version, direction, &bytes) {
            Ok(same) if same == bytes => {}
            Ok(other) => {
                failures.push(format!("line {}: {client} {key:?} v{version} {direction}\n  was {bytes:x}\n  is  {other:x}", number + 1))
            }
            Err(error) => failures.push(format!("line {}: {client} {key:?} v{version} {direction}: {error}", number + 1)),
        }
    }
    assert_eq!(count, 641);
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[..failures.len().min(20)].join("\n"));
}
