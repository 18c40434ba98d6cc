//! CAR files, commits and tree nodes that must be refused.

use protocol::{
    Cid, Codec, DecodeErrorKind as Kind,
    car::{BLOCKS_MAX, BlockHasher, BlockTable},
    cbor, commit,
    frame::{Action, Ops},
    mst::{ENTRIES_MAX, KEY_BYTES_MAX, MstError, Scratch, key_layer},
};

use crate::data::{self, TestOp};

fn load(car: &[u8]) -> Result<usize, Kind> {
    let mut table = BlockTable::default();
    let alone = table.load(car).map(|map| map.len());
    // Beside others, good and bad, it comes to the same.
    let good = data::encode_car(&block(0).0, &[block(0), block(1)]);
    let mut hasher = BlockHasher::default();
    drop(hasher.hash([&good[..]].into_iter()));
    let cars = hasher.hash([&good, car, car, b"", &good].into_iter());
    for number in [1, 2] {
        assert_eq!(cars.load(number, &mut table).map(|map| map.len()), alone);
    }
    for number in [0, 4] {
        assert_eq!(cars.load(number, &mut table).map(|map| map.len()), Ok(2));
    }
    alone.map_err(|error| error.kind)
}

fn block(number: u32) -> (Cid, Vec<u8>) {
    let data = number.to_be_bytes().to_vec();
    (Cid::of_dag_cbor(&data), data)
}

#[test]
fn car_headers() {
    let root = Cid::of_dag_cbor(b"root");
    let good = data::encode_car(&root, &[]);
    assert_eq!(good.len(), 59);
    assert_eq!(load(&good), Ok(0));
    let header = |write: fn(&mut Vec<u8>)| {
        let mut body = Vec::new();
        write(&mut body);
        [&[body.len() as u8], &body[..]].concat()
    };
    let no_root = header(|out| {
        cbor::write::map(out, 2);
        cbor::write::text(out, "roots");
        cbor::write::array(out, 0);
        cbor::write::text(out, "version");
        cbor::write::unsigned(out, 1);
    });
    assert_eq!(load(&no_root), Err(Kind::Car));
    let mut version = good.clone();
    version[58] = 2;
    assert_eq!(load(&version), Err(Kind::Car));
    let raw = Cid::from_digest(Codec::Raw, root.digest());
    assert_eq!(load(&data::encode_car(&raw, &[])), Err(Kind::Car));
    for length in 0..good.len() {
        assert!(load(&good[..length]).is_err(), "{length}");
    }
    // Lengths that are huge, endless, or padded with zero bits.
    for lead in [&b"\xff\xff\xff\xff\x7f"[..], &[0xff; 12], b"\xba\x00", b"\x80"] {
        assert!(load(&[lead, &good[1..]].concat()).is_err(), "{lead:x?}");
    }
}

#[test]
fn car_blocks() {
    let root = Cid::of_dag_cbor(b"root");
    let blocks: Vec<_> = (0..300).map(block).collect();
    let mut table = BlockTable::default();
    // The same table takes one file after another, larger and smaller.
    for count in [300, 0, 3, 200, 1] {
        let car = data::encode_car(&root, &blocks[..count]);
        let map = table.load(&car).unwrap();
        assert_eq!((map.len(), map.is_empty(), map.root()), (count, count == 0, root));
        for (index, (cid, data)) in blocks.iter().enumerate() {
            let expected = (index < count).then_some(&data[..]);
            assert_eq!(map.get(cid), expected);
            let raw = Cid::from_digest(Codec::Raw, cid.digest());
            assert_eq!(map.get(&raw), expected);
            assert_eq!(map.get_dag_cbor(&raw), None);
        }
    }
    let twice = data::encode_car(&root, [&blocks[0], &blocks[1], &blocks[0]]);
    assert_eq!(load(&twice), Ok(2));
    let false_bytes = (blocks[0].0, b"other".to_vec());
    assert_eq!(load(&data::encode_car(&root, [&false_bytes])), Err(Kind::BlockHash));
    assert_eq!(load(&data::encode_car(&root, [&blocks[0], &false_bytes])), Err(Kind::BlockHash));
    let whole = data::encode_car(&root, &blocks[..2]);
    let ends = [59, 59 + 41, 59 + 82];
    for length in 59..=whole.len() {
        assert_eq!(load(&whole[..length]).is_ok(), ends.contains(&length), "{length}");
    }
    // A block too short for its CID, and a CID of another hash function.
    assert_eq!(load(&[&whole[..59], b"\x01\x01"].concat()), Err(Kind::Cid));
    let mut sha512 = whole.clone();
    sha512[62] = 0x13;
    assert_eq!(load(&sha512), Err(Kind::Cid));
}

#[test]
fn car_with_too_many_blocks() {
    let root = Cid::of_dag_cbor(b"root");
    let blocks: Vec<_> = (0..=BLOCKS_MAX as u32).map(block).collect();
    assert_eq!(load(&data::encode_car(&root, &blocks[..BLOCKS_MAX])), Ok(BLOCKS_MAX));
    assert_eq!(load(&data::encode_car(&root, &blocks)), Err(Kind::BlocksTooMany));
}

#[test]
fn commits() {
    let data = Cid::of_dag_cbor(b"data");
    let sig = [7; 64];
    for prev in [None, Some(Cid::of_dag_cbor(b"prev"))] {
        let mut block = Vec::new();
        commit::write(
            &mut block,
            "did:web:a.example",
            "3m6f2c4zqks2x",
            &data,
            prev.as_ref(),
            Some(&sig),
        );
        let commit = commit::parse(&block).unwrap();
        assert_eq!((commit.did, commit.rev), ("did:web:a.example", "3m6f2c4zqks2x"));
        assert_eq!((commit.data, commit.prev, commit.sig), (data, prev, &sig));
        let (mut signed, mut expected) = (Vec::new(), Vec::new());
        commit.unsigned_bytes(&mut signed);
        commit::write(
            &mut expected,
            "did:web:a.example",
            "3m6f2c4zqks2x",
            &data,
            prev.as_ref(),
            None,
        );
        assert_eq!(signed, expected);
        assert!(commit::parse(&expected).is_err(), "no signature");
        assert!(commit::parse(&[&block[..], b"\0"].concat()).is_err(), "trailing byte");
        for length in 0..block.len() {
            assert!(commit::parse(&block[..length]).is_err());
        }
        let last = block.len() - 1;
        block[last] = 2;
        assert_eq!(commit::parse(&block).unwrap_err().kind, Kind::FieldInvalid);
    }
}

#[test]
fn commit_fields() {
    // did, rev, sig, data, prev, version, and one more behind.
    let link = |out: &mut Vec<u8>| cbor::write::link(out, &Cid::of_dag_cbor(b"x"));
    let make = |omit: &str, signature: usize, extra: bool| {
        let mut out = Vec::new();
        let fields = ["did", "rev", "sig", "data", "prev", "version", "zzzzzzzzz"];
        let there = |field: &&str| *field != omit && (extra || *field != "zzzzzzzzz");
        cbor::write::map(&mut out, fields.iter().filter(|field| there(field)).count() as u64);
        for field in fields.iter().filter(|field| there(field)) {
            cbor::write::text(&mut out, field);
            match *field {
                "sig" => cbor::write::byte_string(&mut out, &vec![1; signature]),
                "data" => link(&mut out),
                "prev" => cbor::write::null(&mut out),
                "version" => cbor::write::unsigned(&mut out, 3),
                _ => cbor::write::text(&mut out, field),
            }
        }
        out
    };
    assert!(commit::parse(&make("", 64, false)).is_ok());
    for missing in ["did", "rev", "sig", "data", "prev", "version"] {
        assert_eq!(commit::parse(&make(missing, 64, true)).unwrap_err().kind, Kind::FieldMissing);
    }
    for length in [0, 63, 65, 70] {
        assert_eq!(commit::parse(&make("", length, true)).unwrap_err().kind, Kind::FieldInvalid);
    }
    let raw = Cid::from_digest(Codec::Raw, [0; 32]);
    let link = Cid::from_digest(Codec::DagCbor, [0; 32]);
    for (data, prev) in [(&raw, None), (&link, Some(&raw))] {
        let mut block = Vec::new();
        commit::write(&mut block, "did:web:a.example", "rev", data, prev, Some(&[0; 64]));
        assert_eq!(commit::parse(&block).unwrap_err().kind, Kind::FieldInvalid);
    }
    // A field that we don't know is signed with the others.
    let block = make("", 64, true);
    let mut signed = Vec::new();
    commit::parse(&block).unwrap().unsigned_bytes(&mut signed);
    assert_eq!(signed, make("sig", 0, true));
}

/// An entry of a node as a test writes it down: prefix length, suffix, link.
type TestEntry<'a> = (usize, &'a str, Option<Cid>);

fn node(left: Option<Cid>, entries: &[TestEntry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let link = |out: &mut Vec<u8>, cid: &Option<Cid>| match cid {
        Some(cid) => cbor::write::link(out, cid),
        None => cbor::write::null(out),
    };
    cbor::write::map(&mut out, 2);
    cbor::write::text(&mut out, "e");
    cbor::write::array(&mut out, entries.len() as u64);
    for (prefix, suffix, right) in entries {
        cbor::write::map(&mut out, 4);
        cbor::write::text(&mut out, "k");
        cbor::write::byte_string(&mut out, suffix.as_bytes());
        cbor::write::text(&mut out, "p");
        cbor::write::unsigned(&mut out, *prefix as u64);
        cbor::write::text(&mut out, "t");
        link(&mut out, right);
        cbor::write::text(&mut out, "v");
        cbor::write::link(&mut out, &value());
    }
    cbor::write::text(&mut out, "l");
    link(&mut out, &left);
    out
}

fn value() -> Cid {
    Cid::of_dag_cbor(b"value")
}

/// Undoes the update of `path` in a tree of these nodes, the first of which is the root.
fn invert(path: &str, nodes: &[Vec<u8>]) -> Result<Cid, MstError> {
    let blocks: Vec<_> = nodes.iter().map(|data| (Cid::of_dag_cbor(data), data.clone())).collect();
    let car = data::encode_car(&blocks[0].0, &blocks);
    let mut table = BlockTable::default();
    let map = table.load(&car).unwrap();
    let op = TestOp {
        action: Action::Update,
        path: path.to_owned(),
        cid: Some(value()),
        prev: Some(value()),
    };
    let array = data::encode_ops(&[op]);
    data::invert(blocks[0].0, Ops::parse(&array).unwrap(), &map, &mut Scratch::default())
}

/// The keys of these tests: `2653ae71` and `asdf` stand on layer 0, `blue` on layer 1.
#[test]
fn well_formed_nodes_lead_to_themselves() {
    let alone = node(None, &[(0, "asdf", None)]);
    assert_eq!(invert("asdf", std::slice::from_ref(&alone)), Ok(Cid::of_dag_cbor(&alone)));
    let low = node(None, &[(0, "2653ae71", None), (0, "asdf", None)]);
    let top = node(Some(Cid::of_dag_cbor(&low)), &[(0, "blue", None)]);
    let root = Cid::of_dag_cbor(&top);
    assert_eq!(invert("asdf", &[top.clone(), low]), Ok(root));
    assert_eq!(invert("blue", std::slice::from_ref(&top)), Ok(root));
    assert_eq!(invert("asdf", &[top]), Err(MstError::Missing));
}

#[test]
fn malformed_nodes() {
    let leaf = node(None, &[(0, "asdf", None)]);
    let leaf_cid = Some(Cid::of_dag_cbor(&leaf));
    let raw_cid = leaf_cid.map(|cid| Cid::from_digest(Codec::Raw, cid.digest()));
    let chain = node(leaf_cid, &[]);
    let chain_cid = Some(Cid::of_dag_cbor(&chain));
    let above = node(None, &[(0, "cold", None)]);
    assert_eq!(key_layer(b"cold"), 0);
    let empty = node(None, &[]);
    let empty_cid = Some(Cid::of_dag_cbor(&empty));
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("first prefix not zero", vec![node(None, &[(1, "asdf", None)])]),
        ("prefix beyond the key", vec![node(None, &[(0, "2653ae71", None), (9, "asdf", None)])]),
        ("huge prefix", vec![node(None, &[(0, "2653ae71", None), (1 << 40, "a", None)])]),
        ("prefix not maximal", vec![node(None, &[(0, "ab", None), (0, "asdf", None)])]),
        ("falling keys", vec![node(None, &[(0, "asdf", None), (0, "2653ae71", None)])]),
        ("the same key twice", vec![node(None, &[(0, "asdf", None), (4, "", None)])]),
        ("empty key", vec![node(None, &[(0, "", None), (0, "asdf", None)])]),
        ("key too long", vec![node(None, &[(0, "asdf", None), (0, &long, None)])]),
        ("mixed layers", vec![node(None, &[(0, "asdf", None), (0, "blue", None)])]),
        ("link below layer 0", vec![node(leaf_cid, &[(0, "asdf", None)]), leaf.clone()]),
        ("no keys at the top", vec![chain.clone(), leaf.clone()]),
        ("link to a raw block", vec![node(raw_cid, &[(0, "blue", None)]), leaf.clone()]),
        (
            "two layers in one step",
            vec![node(chain_cid, &[(0, "blue", None)]), chain, leaf.clone()],
        ),
        ("no keys at the bottom", vec![node(empty_cid, &[(0, "blue", None)]), empty]),
        (
            "keys on the wrong side",
            vec![node(Some(Cid::of_dag_cbor(&above)), &[(0, "blue", None)]), above],
        ),
        ("trailing byte", vec![[&leaf[..], b"\0"].concat()]),
        ("cut short", vec![leaf[..leaf.len() - 1].to_vec()]),
        ("not a map", vec![b"\x80".to_vec()]),
        ("no bytes", vec![Vec::new()]),
        ("endless entries", vec![data::hex("a261659b7fffffffffffffff")]),
        ("entry without link", vec![data::hex("a2616581a3616b4461736466617000617600616cf6")]),
        ("node without l", vec![data::hex("a1616580")]),
        ("keys of the node in another order", vec![data::hex("a2616cf6616580")]),
        ("a third key", vec![data::hex("a3616580616cf6617a00")]),
        ("prefix not minimal", {
            let mut bytes = leaf.clone();
            let at = bytes.windows(3).position(|window| window == b"\x61p\0").unwrap() + 2;
            bytes.splice(at..=at, [0x18, 0x00]);
            vec![bytes]
        }),
    ];
    for (name, nodes) in cases {
        assert_eq!(invert("asdf", &nodes), Err(MstError::Malformed), "{name}");
    }
}

#[test]
fn too_many_entries() {
    let keys: Vec<String> = (0..8_000)
        .map(|number| format!("{number:05}"))
        .filter(|key| key_layer(key.as_bytes()) == 0)
        .take(ENTRIES_MAX + 1)
        .collect();
    let mut entries: Vec<TestEntry<'_>> = Vec::new();
    let mut previous = "";
    for key in &keys {
        let prefix = key.bytes().zip(previous.bytes()).take_while(|(a, b)| a == b).count();
        entries.push((prefix, &key[prefix..], None));
        previous = key;
    }
    let full = node(None, &entries[..ENTRIES_MAX]);
    assert_eq!(invert(&keys[5], std::slice::from_ref(&full)), Ok(Cid::of_dag_cbor(&full)));
    assert_eq!(invert(&keys[5], &[node(None, &entries)]), Err(MstError::Malformed));
}

#[test]
fn nodes_without_keys_hold_layers_together() {
    // A key of layer 2 above keys of layer 0: the node between has none.
    let high = "88bfafc7";
    assert_eq!(key_layer(high.as_bytes()), 2);
    let low = node(None, &[(0, "2653ae71", None)]);
    let middle = node(Some(Cid::of_dag_cbor(&low)), &[]);
    let top = node(Some(Cid::of_dag_cbor(&middle)), &[(0, high, None)]);
    let root = Cid::of_dag_cbor(&top);
    assert_eq!(invert("2653ae71", &[top.clone(), middle.clone(), low.clone()]), Ok(root));

    // Without the key on top, the tree shrinks down to the keys of layer 0.
    let op =
        TestOp { action: Action::Create, path: high.to_owned(), cid: Some(value()), prev: None };
    let array = data::encode_ops(&[op]);
    let ops = Ops::parse(&array).unwrap();
    let blocks: Vec<_> = [&top, &middle, &low]
        .into_iter()
        .map(|data| (Cid::of_dag_cbor(data), data.clone()))
        .collect();
    for (count, expected) in
        [(3, Ok(Cid::of_dag_cbor(&low))), (2, Err(MstError::Missing)), (1, Err(MstError::Missing))]
    {
        let car = data::encode_car(&root, &blocks[..count]);
        let mut table = BlockTable::default();
        let map = table.load(&car).unwrap();
        assert_eq!(data::invert(root, ops, &map, &mut Scratch::default()), expected);
    }
}
