//! Frames that are no events, or not quite.

use ports::RefusalReason::{
    DidSyntax, FrameMalformed, FrameText, FrameTooLarge, FrameUnknown, IdentityNotFound, SeqOrder,
    TimeSyntax,
};
use serde_json::{Value, json};

use crate::{
    harness::{author::TIME, json, pds},
    stage::{Case, Stage},
};

const COMMIT: &[u8] = b"\xa2\x61t\x67#commit\x62op\x01";
const IDENTITY: &[u8] = b"\xa2\x61t\x69#identity\x62op\x01";

/// An #identity of alice in parts: what stands between them is the case's.
fn identity(stage: &mut Stage<'_>, pairs: u8, extra: &[u8]) -> Vec<u8> {
    let mut out = IDENTITY.to_vec();
    out.push(0xa0 + 3 + pairs);
    out.extend(b"\x63did\x78\x20");
    out.extend(stage.alice.did.as_bytes());
    out.extend(b"\x63seq\x1a");
    out.extend((stage.next_seq() as u32).max(1 << 16).to_be_bytes());
    out.extend(b"\x64time\x78\x18");
    out.extend(TIME.as_bytes());
    out.extend(extra);
    stage.skip(1 << 16);
    out
}

fn bad_identity(stage: &mut Stage<'_>, pairs: u8, extra: &[u8]) {
    let message = identity(stage, pairs, extra);
    stage.bad_message(FrameMalformed, &message);
}

fn without(value: &Value, field: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(field);
    value
}

fn commit_with(stage: &mut Stage<'_>, change: impl FnOnce(&mut Value)) -> Value {
    let mut author = stage.author();
    let mut body = author.post();
    change(&mut body);
    body
}

fn malformed(stage: &mut Stage<'_>, change: impl FnOnce(&mut Value)) {
    let body = commit_with(stage, change);
    stage.bad(FrameMalformed, "commit", &body);
}

/// The seq is the case's.
fn numbered(stage: &mut Stage<'_>, seq: Value) -> Vec<u8> {
    let mut body = stage.alice.identity(None);
    body["seq"] = seq;
    json::event("identity", &body)
}

pub(crate) const CASES: &[Case] = &[
    ("an empty message", |stage| stage.bad_message(FrameMalformed, b"")),
    ("a header alone", |stage| stage.bad_message(FrameMalformed, COMMIT)),
    ("half a header", |stage| stage.bad_message(FrameMalformed, &COMMIT[..6])),
    ("a header that is a list", |stage| stage.bad_message(FrameMalformed, b"\x82\x01\x02\xa0")),
    ("a header without op", |stage| {
        stage.bad_message(FrameMalformed, b"\xa1\x61t\x67#commit\xa0");
    }),
    ("a header without t", |stage| stage.bad_message(FrameMalformed, b"\xa1\x62op\x01\xa0")),
    ("an op that is text", |stage| stage.bad_message(FrameMalformed, b"\xa1\x62op\x611\xa0")),
    ("an op of the future", |stage| stage.bad_message(FrameUnknown, b"\xa1\x62op\x07\xa0")),
    ("a body that is text", |stage| {
        stage.bad_message(FrameMalformed, &[COMMIT, b"\x65hello"].concat());
    }),
    ("events of former times", |stage| {
        for kind in ["handle", "migrate", "tombstone", "labels", "brandNew"] {
            let body = json!({ "did": stage.alice.did, "time": TIME });
            stage.bad(FrameUnknown, kind, &body);
        }
    }),
    ("a message behind the body", |stage| {
        let mut message = identity(stage, 0, b"");
        message.push(0xa0);
        stage.bad_message(FrameMalformed, &message);
    }),
    ("an integer in the long form", |stage| bad_identity(stage, 1, b"\x65later\x18\x01")),
    ("a text in the long form", |stage| bad_identity(stage, 1, b"\x65later\x78\x01a")),
    ("an indefinite list", |stage| bad_identity(stage, 1, b"\x65later\x9f\x01\xff")),
    ("an indefinite text", |stage| bad_identity(stage, 1, b"\x65later\x7f\x61a\xff")),
    ("keys out of order", |stage| bad_identity(stage, 2, b"\x65zzzzz\x01\x65later\x01")),
    ("a key twice", |stage| bad_identity(stage, 2, b"\x65later\x01\x65later\x01")),
    ("a key that is a number", |stage| bad_identity(stage, 1, b"\x05\x01")),
    ("a float", |stage| bad_identity(stage, 1, b"\x65later\xfb\x3f\xf0\0\0\0\0\0\0")),
    ("half a float", |stage| bad_identity(stage, 1, b"\x65later\xf9\x3c\x00")),
    ("undefined", |stage| bad_identity(stage, 1, b"\x65later\xf7")),
    ("a simple value", |stage| bad_identity(stage, 1, b"\x65later\xf8\xff")),
    ("a tag other than 42", |stage| bad_identity(stage, 1, b"\x65later\xc1\x01")),
    ("a link without its zero", |stage| bad_identity(stage, 1, b"\x65later\xd8\x2a\x42\x01\x71")),
    ("text that is not UTF-8", |stage| bad_identity(stage, 1, b"\x65later\x62\xff\xfe")),
    ("a reserved additional value", |stage| bad_identity(stage, 1, b"\x65later\x1c")),
    ("forty lists in each other", |stage| {
        let mut extra = b"\x65later".to_vec();
        extra.extend([0x81; 40]);
        extra.push(0x01);
        bad_identity(stage, 1, &extra);
    }),
    ("fields of the future", |stage| {
        let message = identity(stage, 1, b"\x65later\x82\xa1\x61a\xf6\x43abc");
        stage.message(&message);
        stage.expect_frame(&message);
    }),
    ("a seq that is missing", |stage| {
        let message = json::event("identity", &stage.alice.identity(None));
        stage.bad_message(FrameMalformed, &message);
    }),
    ("a seq that is text, negative, or null", |stage| {
        for seq in [json!("5"), json!(-5), Value::Null] {
            let message = numbered(stage, seq);
            stage.bad_message(FrameMalformed, &message);
        }
    }),
    ("a seq of zero", |stage| {
        let message = numbered(stage, json!(0));
        stage.bad_message(SeqOrder, &message);
    }),
    ("a seq beyond 2^53", |stage| {
        for seq in [1_i64 << 53, i64::MAX] {
            let message = numbered(stage, json!(seq));
            stage.bad_message(SeqOrder, &message);
        }
    }),
    ("a seq that has been before", |stage| {
        let body = stage.alice.identity(None);
        stage.good("identity", &body);
        let seq = stage.next_seq() - 1;
        for seq in [seq, seq - 1] {
            let message = numbered(stage, json!(seq));
            stage.bad_message(SeqOrder, &message);
        }
    }),
    ("holes in the numbering", |stage| {
        for _ in 0..5 {
            stage.skip(1_000_000);
            let body = stage.alice.post();
            stage.good("commit", &body);
        }
    }),
    ("a did that is missing, a number, or null", |stage| {
        for did in [None, Some(json!(5)), Some(Value::Null)] {
            malformed(stage, |body| match did {
                Some(did) => body["repo"] = did,
                None => *body = without(body, "repo"),
            });
        }
    }),
    ("dids that are none", |stage| {
        for did in ["", "did", "did:", "did:plc:", "DID:PLC:x", "did:plc:a b", "did:web:a.com?x"] {
            let body = json!({ "did": did, "time": TIME });
            stage.bad(DidSyntax, "identity", &body);
        }
        let long = format!("did:plc:{}", "a".repeat(3000));
        stage.bad(DidSyntax, "identity", &json!({ "did": long, "time": TIME }));
    }),
    ("dids that nobody can resolve", |stage| {
        for did in ["did:key:zQ3shabc", "did:plc:SHOUTINGSHOUTINGSHOUTING", "did:plc:short"] {
            let body = json!({ "did": did, "time": TIME });
            stage.bad(IdentityNotFound, "identity", &body);
        }
    }),
    ("did:web of the relay's own network", |stage| {
        for did in ["did:web:10.0.0.1", "did:web:a.internal", "did:web:localhost", "did:web:a"] {
            let body = json!({ "did": did, "time": TIME });
            stage.bad(IdentityNotFound, "identity", &body);
        }
    }),
    ("times that are none", |stage| {
        for time in ["", "yesterday", "2026-01-01T00:00:00", "2026-01-01", "1767225600"] {
            let mut body = stage.alice.identity(None);
            body["time"] = json!(time);
            stage.bad(TimeSyntax, "identity", &body);
        }
    }),
    ("times in other forms", |stage| {
        for time in ["2026-01-01T00:00:00Z", "2026-01-01T02:00:00.123456789+02:00"] {
            let mut body = stage.alice.account(true, None);
            body["time"] = json!(time);
            body["note"] = json!(time);
            stage.good("account", &body);
        }
    }),
    ("a time that is missing or a number", |stage| {
        malformed(stage, |body| *body = without(body, "time"));
        malformed(stage, |body| body["time"] = json!(1_767_225_600));
    }),
    ("fields of a commit that are missing", |stage| {
        for field in ["rev", "ops", "blocks", "commit", "since"] {
            malformed(stage, |body| *body = without(body, field));
        }
    }),
    ("fields of a commit that are of another kind", |stage| {
        for field in ["rev", "ops", "blocks", "commit", "since", "tooBig", "blobs", "prevData"] {
            malformed(stage, |body| body[field] = json!({ "a": 1 }));
        }
    }),
    ("a message of more than five million bytes", |stage| {
        let mut message = identity(stage, 1, b"");
        message.extend(b"\x65later\x5a\x00\x50\x00\x00");
        message.resize(message.len() + 0x0050_0000, 7);
        stage.bad_message(FrameTooLarge, &message);
    }),
    ("a text message", |stage| {
        let mut bytes = Vec::new();
        pds::write_frame(&mut bytes, 0x81, b"hello");
        stage.raw(&bytes);
        stage.refused(FrameText, 1);
    }),
    ("pings, pongs and fragments around events", |stage| {
        let message = identity(stage, 0, b"");
        let (first, rest) = message.split_at(10);
        let mut bytes = Vec::new();
        pds::write_frame(&mut bytes, 0x89, b"ping");
        pds::write_frame(&mut bytes, 0x02, first);
        pds::write_frame(&mut bytes, 0x8a, b"pong");
        pds::write_frame(&mut bytes, 0x00, &[]);
        pds::write_frame(&mut bytes, 0x80, rest);
        stage.raw(&bytes);
        stage.expect_frame(&message);
    }),
    ("a header with fields of the future", |stage| {
        let message = identity(stage, 0, b"");
        let body = &message[IDENTITY.len()..];
        let header = b"\xa3\x61t\x69#identity\x62op\x01\x63new\x82\x01\xf6";
        let message = [&header[..], body].concat();
        stage.message(&message);
        stage.expect_frame(&message);
    }),
    ("a t without its sign, or of no letters", |stage| {
        for header in [&b"\xa2\x61t\x66commit\x62op\x01"[..], b"\xa2\x61t\x60\x62op\x01"] {
            stage.bad_message(FrameUnknown, &[header, b"\xa0"].concat());
        }
    }),
    ("a t that is a number, or null", |stage| {
        for t in [&b"\x01"[..], b"\xf6", b"\x80"] {
            let message = [b"\xa2\x61t".as_slice(), t, b"\x62op\x01\xa0"].concat();
            stage.bad_message(FrameMalformed, &message);
        }
    }),
    ("a header twice", |stage| {
        stage.bad_message(FrameMalformed, &[IDENTITY, IDENTITY, b"\xa0"].concat());
    }),
    ("an event that ends in the middle", |stage| {
        let message = identity(stage, 1, b"\x65later\x43abc");
        for end in [IDENTITY.len() + 1, IDENTITY.len() + 20, message.len() - 1] {
            stage.bad_message(FrameMalformed, &message[..end]);
        }
    }),
    ("a seq that is a float", |stage| {
        let mut message = IDENTITY.to_vec();
        message.extend(b"\xa3\x63did\x78\x20");
        message.extend(stage.alice.did.as_bytes());
        message.extend(b"\x63seq\xfb\x40\xf0\x00\x00\x00\x00\x00\x00\x64time\x78\x18");
        message.extend(TIME.as_bytes());
        stage.bad_message(FrameMalformed, &message);
    }),
    ("thirty lists in each other, and a map with ten thousand fields", |stage| {
        let mut extra = b"\x65later".to_vec();
        extra.extend([0x81; 28]);
        extra.push(0x01);
        let message = identity(stage, 1, &extra);
        stage.message(&message);
        stage.expect_frame(&message);
        let mut extra = b"\x65later\xb9\x27\x10".to_vec();
        for number in 0..10_000 {
            extra.extend(format!("\x65{number:05}\x01").as_bytes());
        }
        let message = identity(stage, 1, &extra);
        stage.message(&message);
        stage.expect_frame(&message);
    }),
    ("four megabytes of the future", |stage| {
        let mut message = identity(stage, 1, b"");
        message.extend(b"\x65later\x5a\x00\x40\x00\x00");
        message.resize(message.len() + 0x0040_0000, 7);
        stage.message(&message);
        stage.expect_frame(&message);
    }),
    ("a number out of nowhere, of an event that is none, and the numbers go on", |stage| {
        let message = numbered(stage, json!((1_i64 << 53) - 1));
        let cut = message.len() - TIME.len();
        stage.bad_message(FrameMalformed, &message[..cut]);
        let body = stage.alice.post();
        stage.good("commit", &body);
    }),
    ("an #info", |stage| {
        for body in [json!({ "name": "OutdatedCursor", "message": "x" }), json!({ "name": "Odd" })]
        {
            stage.message(&json::event("info", &body));
        }
    }),
    ("a thousand bad messages in a row", |stage| {
        for _ in 0..1000 {
            stage.bad_message(FrameMalformed, b"\xa1");
        }
    }),
];
