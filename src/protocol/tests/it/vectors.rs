//! The interop vectors: data model, CAR, tree.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use protocol::{
    Cid,
    car::{self, BlockTable, CarReader},
    cbor::{self, Reader},
    frame::{Action, Ops},
    mst::{self, Scratch, tree::Tree},
};

use crate::data::{self, TestOp};

#[test]
fn data_model_fixtures_are_canonical_and_have_their_cids() {
    for case in data::json("data-model/data-model-fixtures.json") {
        let bytes = STANDARD_NO_PAD.decode(case["cbor_base64"].as_str().unwrap()).unwrap();
        assert_eq!(Cid::of_dag_cbor(&bytes), data::cid(&case["cid"]));
        assert_eq!(case["cid"], Cid::of_dag_cbor(&bytes).to_string());
        let mut reader = Reader::new(&bytes);
        reader.skip().unwrap();
        reader.finish().unwrap();
        cbor::check_record(&bytes).unwrap();
    }
}

#[test]
fn car_fixture_is_read_and_written() {
    for case in data::json("car/car-file-fixtures.json") {
        let bytes = STANDARD_NO_PAD.decode(case["car"].as_str().unwrap()).unwrap();
        let reader = CarReader::new(&bytes).unwrap();
        let root = data::cid(&case["root"]);
        assert_eq!(reader.root(), root);
        let mut written = Vec::new();
        car::write_header(&mut written, &root);
        let mut table = BlockTable::default();
        let map = table.load(&bytes).unwrap();
        let expected = case["blocks"].as_array().unwrap();
        assert_eq!(reader.clone().count(), expected.len());
        for (block, expected) in reader.zip(expected) {
            let block = block.unwrap();
            assert_eq!(block.cid, data::cid(&expected["cid"]));
            let data = STANDARD_NO_PAD.decode(expected["bytes"].as_str().unwrap()).unwrap();
            assert_eq!(block.data, data);
            assert_eq!(map.get(&block.cid), Some(&data[..]));
            car::write_block(&mut written, &block.cid, block.data);
        }
        assert_eq!(written, bytes);
    }
}

#[test]
fn captured_repository_is_whole() {
    let bytes = data::read("captured/repo-jxez6oruacp4rzleeldguf7x.car");
    let mut table = BlockTable::default();
    let map = table.load(&bytes).unwrap();
    let commit = protocol::commit::parse(map.get(&map.root()).unwrap()).unwrap();
    assert!(map.get(&commit.data).is_some());
}

#[test]
fn key_layers() {
    for case in data::json("mst/key_heights.json") {
        let key = case["key"].as_str().unwrap();
        assert_eq!(u64::from(mst::key_layer(key.as_bytes())), case["height"], "{key}");
    }
    // Each example is called `X<layer>/<digits>`.
    let examples = String::from_utf8(data::read("mst/example_keys.txt")).unwrap();
    for key in examples.lines().filter(|key| !key.is_empty()) {
        let layer = key.as_bytes()[1] - b'0';
        assert_eq!(mst::key_layer(key.as_bytes()), u32::from(layer), "{key}");
    }
}

#[test]
fn commit_proofs() {
    for case in data::json("firehose/commit-proof-fixtures.json") {
        let comment = case["comment"].as_str().unwrap();
        let value = data::cid(&case["leafValue"]);
        let keys = |field: &str| -> Vec<String> {
            let keys = case[field].as_array().unwrap();
            keys.iter().map(|key| key.as_str().unwrap().to_owned()).collect()
        };
        let mut tree = Tree::default();
        for key in keys("keys") {
            tree.insert(key.as_bytes(), value);
        }
        let before = data::cid(&case["rootBeforeCommit"]);
        assert_eq!(tree.root(), before, "{comment}");
        let mut ops = Vec::new();
        for path in keys("adds") {
            tree.insert(path.as_bytes(), value);
            ops.push(TestOp { action: Action::Create, path, cid: Some(value), prev: None });
        }
        for path in keys("dels") {
            assert_eq!(tree.remove(path.as_bytes()), Some(value), "{comment}");
            ops.push(TestOp { action: Action::Delete, path, cid: None, prev: Some(value) });
        }
        let after = data::cid(&case["rootAfterCommit"]);
        assert_eq!(tree.root(), after, "{comment}");

        let listed: Vec<Cid> =
            case["blocksInProof"].as_array().unwrap().iter().map(data::cid).collect();
        let changed: Vec<&[u8]> = ops.iter().map(|op| op.path.as_bytes()).collect();
        let mut proof: Vec<Cid> = tree.proof(&changed).into_iter().map(|(cid, _)| cid).collect();
        let nodes = tree.nodes();
        let blocks = nodes.iter().filter(|(cid, _)| listed.contains(cid));
        let car = data::encode_car(&after, blocks);
        let mut table = BlockTable::default();
        let map = table.load(&car).unwrap();
        assert_eq!(map.len(), listed.len(), "{comment}");
        let array = data::encode_ops(&ops);
        let ops = Ops::parse(&array).unwrap();
        assert_eq!(mst::invert(after, ops, &map, &mut Scratch::default()), Ok(before), "{comment}");

        let mut listed = listed;
        listed.sort_unstable();
        proof.sort_unstable();
        assert_eq!(proof, listed, "{comment}");
    }
}
