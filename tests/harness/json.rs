//! Frames written as JSON, encoded as a host would send them.

use data_encoding::BASE64_NOPAD;
use protocol::{
    Cid,
    cbor::write::{array, boolean, byte_string, integer, link, map, null, text},
};
use serde_json::{Map, Value};

/// Header and body, one behind the other, in DAG-CBOR.
///
/// `{"$link": …}` is a CID and `{"$bytes": …}` are bytes in base64.
pub fn frame(header: &Value, body: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode(header, &mut out);
    encode(body, &mut out);
    out
}

/// An event with its type given without the `#`.
pub fn event(kind: &str, body: &Value) -> Vec<u8> {
    frame(&serde_json::json!({ "op": 1, "t": format!("#{kind}") }), body)
}

/// # Panics
/// On numbers that are no integers, and on malformed links and bytes.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => null(out),
        Value::Bool(value) => boolean(out, *value),
        Value::Number(number) => integer(out, number.as_i64().unwrap()),
        Value::String(value) => text(out, value),
        Value::Array(items) => {
            array(out, items.len() as u64);
            for item in items {
                encode(item, out);
            }
        }
        Value::Object(pairs) => encode_object(pairs, out),
    }
}

fn encode_object(pairs: &Map<String, Value>, out: &mut Vec<u8>) {
    if let Some(cid) = pairs.get("$link") {
        let cid: Cid = cid.as_str().unwrap().parse().unwrap();
        return link(out, &cid);
    }
    if let Some(base64) = pairs.get("$bytes") {
        let base64 = base64.as_str().unwrap().trim_end_matches('=');
        return byte_string(out, &BASE64_NOPAD.decode(base64.as_bytes()).unwrap());
    }
    let mut keys: Vec<_> = pairs.keys().collect();
    keys.sort_by_key(|key| (key.len(), key.as_str()));
    map(out, keys.len() as u64);
    for key in keys {
        text(out, key);
        encode(&pairs[key.as_str()], out);
    }
}
