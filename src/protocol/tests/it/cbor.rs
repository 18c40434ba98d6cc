//! The cursor against `serde_ipld_dagcbor`, and a table of what it must refuse.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use proptest::prelude::*;
use protocol::{
    Cid, DecodeErrorKind as Kind,
    cbor::{self, DEPTH_MAX, Reader},
};

use crate::data;

fn check(bytes: &[u8]) -> Result<(), Kind> {
    let mut reader = Reader::new(bytes);
    reader.skip().and_then(|()| reader.finish()).map_err(|error| error.kind)
}

fn ipld() -> impl Strategy<Value = Ipld> {
    let leaf = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        any::<i64>().prop_map(|value| Ipld::Integer(value.into())),
        (-70_000i64..70_000).prop_map(|value| Ipld::Integer(value.into())),
        ".{0,40}".prop_map(Ipld::String),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Ipld::Bytes),
        any::<u64>().prop_map(|number| {
            let cid = Cid::of_dag_cbor(&number.to_be_bytes());
            Ipld::Link(::cid::Cid::try_from(&cid.as_bytes()[..]).unwrap())
        }),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Ipld::List),
            prop::collection::btree_map("[a-z]{0,10}", inner, 0..8).prop_map(Ipld::Map),
        ]
    })
}

/// Writes with the crate's writer what the library holds.
fn write(out: &mut Vec<u8>, value: &Ipld) {
    match value {
        Ipld::Null => cbor::write::null(out),
        Ipld::Bool(value) => cbor::write::boolean(out, *value),
        Ipld::Integer(value) => cbor::write::integer(out, i64::try_from(*value).unwrap()),
        Ipld::Float(_) => panic!("no floats here"),
        Ipld::String(text) => cbor::write::text(out, text),
        Ipld::Bytes(bytes) => cbor::write::byte_string(out, bytes),
        Ipld::Link(cid) => cbor::write::link(out, &Cid::parse(&cid.to_bytes()).unwrap()),
        Ipld::List(items) => {
            cbor::write::array(out, items.len() as u64);
            for item in items {
                write(out, item);
            }
        }
        Ipld::Map(pairs) => {
            let mut pairs: Vec<_> = pairs.iter().collect();
            pairs.sort_by_key(|(key, _)| (key.len(), *key));
            cbor::write::map(out, pairs.len() as u64);
            for (key, item) in pairs {
                cbor::write::text(out, key);
                write(out, item);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_library(value in ipld()) {
        let bytes = serde_ipld_dagcbor::to_vec(&value).unwrap();
        prop_assert_eq!(check(&bytes), Ok(()));
        prop_assert!(cbor::check_record(&bytes).is_ok());
        let mut written = Vec::new();
        write(&mut written, &value);
        prop_assert_eq!(&written, &bytes);
        // Cut short, or with a byte too many, it is refused.
        prop_assert!(check(&bytes[..bytes.len() - 1]).is_err());
        prop_assert_eq!(check(&[&bytes[..], b"\0"].concat()), Err(Kind::Trailing));
    }

    #[test]
    fn cids_are_written_as_the_library_does(digest: [u8; 32], raw: bool) {
        let codec = if raw { protocol::Codec::Raw } else { protocol::Codec::DagCbor };
        let cid = Cid::from_digest(codec, digest);
        let library = ::cid::Cid::try_from(&cid.as_bytes()[..]).unwrap();
        prop_assert_eq!(cid.to_string(), library.to_string());
        prop_assert_eq!(cid.to_string().parse::<Cid>(), Ok(cid));
        prop_assert_eq!((cid.codec(), cid.digest()), (codec, digest));
    }
}

#[test]
fn refuses_what_is_not_canonical() {
    let cases: &[(&str, Kind)] = &[
        ("", Kind::Truncated),
        ("1c", Kind::Reserved),
        ("ff", Kind::Reserved),
        ("1817", Kind::NotMinimal),
        ("190001", Kind::NotMinimal),
        ("1a0000ffff", Kind::NotMinimal),
        ("1b00000000ffffffff", Kind::NotMinimal),
        ("1b8000000000000000", Kind::Range),
        ("3b8000000000000000", Kind::Range),
        ("7803616263", Kind::NotMinimal),
        ("9f00ff", Kind::Reserved),
        ("bf616100ff", Kind::Reserved),
        ("7f6161ff", Kind::Reserved),
        ("5f4100ff", Kind::Reserved),
        ("a10102", Kind::KeyOrder),
        ("a2616200616100", Kind::KeyOrder),
        ("a2616100616100", Kind::KeyOrder),
        ("a262616100616200", Kind::KeyOrder),
        ("a2600060f6", Kind::KeyOrder),
        ("62c328", Kind::Utf8),
        ("a162c32800", Kind::Utf8),
        ("f93c00", Kind::Float),
        ("fa3f800000", Kind::Float),
        ("fb3ff8000000000000", Kind::Float),
        ("f7", Kind::Simple),
        ("f3", Kind::Simple),
        ("f820", Kind::Simple),
        ("c06161", Kind::Tag),
        ("c24101", Kind::Tag),
        ("d82a420171", Kind::Cid),
        ("d82a5800", Kind::NotMinimal),
        ("d82a6100", Kind::Type),
        ("0000", Kind::Trailing),
        ("9b7fffffffffffffff", Kind::Length),
        ("bb7fffffffffffffff", Kind::Length),
        ("5b7fffffffffffffff", Kind::Truncated),
        ("7b7fffffffffffffff", Kind::Truncated),
        ("9a00020001", Kind::Length),
        ("9a00020000", Kind::Truncated),
    ];
    for (hex, kind) in cases {
        assert_eq!(check(&data::hex(hex)), Err(*kind), "{hex}");
    }
    for hex in ["3b7fffffffffffffff", "1b7fffffffffffffff", "a2600061 6100", "f6", "a0"] {
        assert_eq!(check(&data::hex(&hex.replace(' ', ""))), Ok(()), "{hex}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |open: &[u8], depth: usize| [&open.repeat(depth)[..], b"\0"].concat();
    let max = DEPTH_MAX as usize;
    for open in [&b"\x81"[..], b"\xa1\x61a"] {
        assert_eq!(check(&nested(open, max)), Ok(()));
        assert_eq!(check(&nested(open, max + 1)), Err(Kind::Depth));
        assert_eq!(check(&nested(open, 1_000_000)), Err(Kind::Depth));
    }
    for open in [&b"\x81"[..], b"\xa1\x61a", b"\xc1", b"\x9f", b"\xbf\x61a"] {
        let record = |depth| cbor::check_record(&nested(open, depth)).map_err(|error| error.kind);
        assert_eq!(record(1_000_000), Err(Kind::Depth));
    }
    assert!(cbor::check_record(&nested(b"\x81", max)).is_ok());
}

#[test]
fn records_are_checked_for_form_only() {
    // Floats, foreign tags, disorder, long forms, indefinite lengths.
    let fine = [
        "f93c00",
        "fb3ff8000000000000",
        "c06161",
        "a2616200616100",
        "190001",
        "9f00ff",
        "bf616100ff",
        "7f6161ff",
        "5f41004100ff",
        "a10102",
        "d82a420171",
        "f7",
        "f8ff",
        "80",
    ];
    for hex in fine {
        assert_eq!(cbor::check_record(&data::hex(hex)), Ok(()), "{hex}");
    }
    let broken = [
        "",
        "1c",
        "ff",
        "81",
        "a161",
        "61",
        "9f00",
        "bf6161ff",
        "7f4100ff",
        "7f7f6161ffff",
        "1f",
        "dfff",
        "f81f",
        "0000",
        "9b7fffffffffffffff00",
        "bbffffffffffffffff00",
        "5bffffffffffffffff00",
        "81ff",
    ];
    for hex in broken {
        assert!(cbor::check_record(&data::hex(hex)).is_err(), "{hex}");
    }
}

#[test]
fn floats_are_refused_only_outside_of_records() {
    let map = BTreeMap::from([("a".to_owned(), Ipld::Float(123.456))]);
    let bytes = serde_ipld_dagcbor::to_vec(&Ipld::Map(map)).unwrap();
    assert_eq!(check(&bytes), Err(Kind::Float));
    assert_eq!(cbor::check_record(&bytes), Ok(()));
}
