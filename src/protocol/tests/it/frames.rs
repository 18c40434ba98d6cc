//! Frames that are made, changed or refused.

use protocol::{
    Cid, DecodeErrorKind as Kind, cbor,
    frame::{self, AccountEvent, Body, FRAME_BYTES_MAX, FrameKind, Skim},
};

use crate::data;

type Field<'a> = (&'a str, Vec<u8>);

fn value(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn text(text: &str) -> Vec<u8> {
    value(|out| cbor::write::text(out, text))
}

fn link() -> Vec<u8> {
    value(|out| cbor::write::link(out, &Cid::of_dag_cbor(b"commit")))
}

/// A frame of these fields, put in order.
fn make(t: &str, fields: &[Field<'_>]) -> Vec<u8> {
    let mut fields: Vec<&Field<'_>> = fields.iter().collect();
    fields.sort_by_key(|(key, _)| (key.len(), *key));
    value(|out| {
        cbor::write::map(out, 2);
        cbor::write::text(out, "t");
        cbor::write::text(out, t);
        cbor::write::text(out, "op");
        cbor::write::unsigned(out, 1);
        cbor::write::map(out, fields.len() as u64);
        for (key, value) in fields {
            cbor::write::text(out, key);
            out.extend_from_slice(value);
        }
    })
}

fn commit_fields() -> Vec<Field<'static>> {
    vec![
        ("seq", value(|out| cbor::write::unsigned(out, 70_000))),
        ("repo", text("did:plc:jxez6oruacp4rzleeldguf7x")),
        ("time", text("2026-11-25T00:00:00.000Z")),
        ("rev", text("3m6f2c4zqks2x")),
        ("since", value(cbor::write::null)),
        ("commit", link()),
        ("blocks", value(|out| cbor::write::byte_string(out, b""))),
        ("ops", value(|out| cbor::write::array(out, 0))),
        ("blobs", value(|out| cbor::write::array(out, 0))),
        ("rebase", value(|out| cbor::write::boolean(out, false))),
        ("tooBig", value(|out| cbor::write::boolean(out, false))),
    ]
}

fn refusal(frame: &[u8]) -> Option<Kind> {
    frame::parse(frame).err().map(|error| error.kind)
}

#[test]
fn account_frames_of_the_relay() {
    for status in [None, Some("takendown")] {
        let frame =
            frame::account_frame("did:web:example.com", "2026-11-25T00:00:00Z", false, status);
        let event = frame::parse(&frame).unwrap();
        assert_eq!((event.seq, event.did), (0, "did:web:example.com"));
        assert_eq!(event.time, "2026-11-25T00:00:00Z");
        assert_eq!(event.body, Body::Account(AccountEvent { active: false, status }));
        assert_eq!(frame[event.seq_span], [0]);
    }
}

#[test]
fn notices() {
    let frame = frame::info_frame("OutdatedCursor", "gone");
    let message = Some("gone");
    assert_eq!(frame::skim(&frame), Ok(Skim::Info { name: "OutdatedCursor", message }));
    let frame = frame::error_frame("ConsumerTooSlow", "gone");
    assert_eq!(frame::skim(&frame), Ok(Skim::Error { error: "ConsumerTooSlow", message }));
    assert_eq!(refusal(&frame), Some(Kind::FrameUnknown));
}

#[test]
fn seq_is_replaced_in_place() {
    let frame = make("#commit", &commit_fields());
    let event = frame::parse(&frame).unwrap();
    for seq in [0, 23, 24, 255, 256, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, (1 << 53) - 1] {
        let mut stamped = frame[..event.seq_span.start].to_vec();
        frame::write_seq(seq, &mut stamped);
        stamped.extend_from_slice(&frame[event.seq_span.end..]);
        let again = frame::parse(&stamped).unwrap();
        assert_eq!(again.seq, seq);
        assert_eq!(again.body, event.body);
    }
}

#[test]
fn required_fields() {
    let optional = ["blobs", "rebase", "tooBig"];
    for (missing, _) in commit_fields() {
        let fields: Vec<_> =
            commit_fields().into_iter().filter(|(key, _)| *key != missing).collect();
        let frame = make("#commit", &fields);
        let expected = (!optional.contains(&missing)).then_some(Kind::FieldMissing);
        assert_eq!(refusal(&frame), expected, "{missing}");
        let skim = frame::skim(&frame);
        assert_eq!(skim.is_err(), ["seq", "repo"].contains(&missing), "{missing}: {skim:?}");
    }
}

#[test]
fn fields_of_wrong_types() {
    for (wrong, _) in commit_fields() {
        let mut fields = commit_fields();
        for (key, value) in &mut fields {
            if *key == wrong {
                *value = vec![0x20];
            }
        }
        assert!(refusal(&make("#commit", &fields)).is_some(), "{wrong}");
    }
}

#[test]
fn unknown_fields_pass_and_floats_do_not() {
    let mut fields = commit_fields();
    fields.push(("future", text("hello")));
    assert_eq!(refusal(&make("#commit", &fields)), None);
    fields.push(("float", data::hex("fb3ff8000000000000")));
    assert_eq!(refusal(&make("#commit", &fields)), Some(Kind::Float));
}

#[test]
fn defaults_are_filled_in() {
    let whole = make("#commit", &commit_fields());
    assert_eq!(frame::with_defaults(&whole).unwrap(), whole);
    let deprecated = ["blobs", "rebase", "tooBig"];
    for chosen in 1..8 {
        let lacks = |key: &str| {
            deprecated
                .iter()
                .position(|name| *name == key)
                .is_some_and(|bit| chosen >> bit & 1 == 1)
        };
        let fields: Vec<_> = commit_fields().into_iter().filter(|(key, _)| !lacks(key)).collect();
        let frame = make("#commit", &fields);
        let Body::Commit(body) = frame::parse(&frame).unwrap().body else { panic!("not a commit") };
        assert!(body.lacks_defaults);
        assert_eq!(frame::with_defaults(&frame).unwrap(), whole);
    }
    let mut fields = commit_fields();
    fields.retain(|(key, _)| *key != "blobs");
    fields.push(("blobs", value(cbor::write::null)));
    assert_eq!(frame::with_defaults(&make("#commit", &fields)).unwrap(), whole);
}

#[test]
fn handle_is_taken_out() {
    let fields: Vec<Field<'_>> = vec![
        ("did", text("did:plc:jxez6oruacp4rzleeldguf7x")),
        ("seq", vec![1]),
        ("time", text("now")),
        ("strange", text("kept")),
    ];
    let bare = make("#identity", &fields);
    let mut fields = fields;
    fields.push(("handle", text("alice.example.com")));
    let full = make("#identity", &fields);
    assert_eq!(frame::without_handle(&full).unwrap(), bare);
    assert_eq!(frame::without_handle(&bare).unwrap(), bare);
    let commit = make("#commit", &commit_fields());
    assert!(frame::without_handle(&commit).is_err());
    assert!(frame::with_defaults(&bare).is_err());
}

#[test]
fn operations_fit_their_actions() {
    let op = |action: &str, cid: Vec<u8>| {
        value(|out| {
            cbor::write::array(out, 1);
            cbor::write::map(out, 3);
            cbor::write::text(out, "cid");
            out.extend_from_slice(&cid);
            cbor::write::text(out, "path");
            cbor::write::text(out, "a/b");
            cbor::write::text(out, "action");
            cbor::write::text(out, action);
        })
    };
    let null = || value(cbor::write::null);
    let cases = [
        (op("create", link()), None),
        (op("update", link()), None),
        (op("delete", null()), None),
        (op("create", null()), Some(Kind::OpInvalid)),
        (op("update", null()), Some(Kind::OpInvalid)),
        (op("delete", link()), Some(Kind::OpInvalid)),
        (op("rename", link()), Some(Kind::OpInvalid)),
        (data::hex("81a0"), Some(Kind::FieldMissing)),
        (data::hex("8100"), Some(Kind::Type)),
        (data::hex("9b00000000ffffffff"), Some(Kind::NotMinimal)),
        (data::hex("9b0fffffffffffffff"), Some(Kind::Length)),
    ];
    for (ops, expected) in cases {
        let mut fields = commit_fields();
        fields.retain(|(key, _)| *key != "ops");
        fields.push(("ops", ops));
        assert_eq!(refusal(&make("#commit", &fields)), expected);
    }
}

#[test]
fn headers() {
    let body = [0xa0];
    let with_header = |hex: &str| [&data::hex(hex)[..], &body].concat();
    let unknown = make("#label", &[]);
    assert_eq!(frame::skim(&unknown), Ok(Skim::Unknown { t: Some("#label"), op: 1 }));
    let unknown = with_header("a1626f7002");
    assert_eq!(frame::skim(&unknown), Ok(Skim::Unknown { t: None, op: 2 }));
    for broken in ["", "a0", "a1626f7001", "a16174", "80", "a2617400626f7001", "a1626f7061"] {
        assert!(frame::skim(&with_header(broken)).is_err(), "{broken}");
        assert!(frame::parse(&with_header(broken)).is_err(), "{broken}");
    }
}

#[test]
fn frames_above_the_limit() {
    let mut fields = commit_fields();
    let blocks = FRAME_BYTES_MAX - make("#commit", &fields).len() - 4;
    fields.retain(|(key, _)| *key != "blocks");
    fields.push(("blocks", value(|out| cbor::write::byte_string(out, &vec![0; blocks]))));
    let frame = make("#commit", &fields);
    assert_eq!(frame.len(), FRAME_BYTES_MAX);
    assert_eq!(refusal(&frame), None);
    let frame = [&frame[..], b"\0"].concat();
    assert_eq!(refusal(&frame), Some(Kind::FrameTooLarge));
    assert!(frame::skim(&frame).is_err());
}

#[test]
fn kinds_and_types() {
    for (t, kind) in [
        ("#commit", Some(FrameKind::Commit)),
        ("#sync", Some(FrameKind::Sync)),
        ("#identity", Some(FrameKind::Identity)),
        ("#account", Some(FrameKind::Account)),
        ("#info", None),
        ("commit", None),
    ] {
        assert_eq!(FrameKind::from_type(t), kind);
    }
}
