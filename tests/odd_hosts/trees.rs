//! Operations and trees that do not belong together.

use ports::RefusalReason::{
    self, InversionMismatch, OpInvalid, OpsTooMany, RecordMalformed, RecordMissing, RecordTooLarge,
    TreeMalformed,
};
use protocol::{Cid, cbor::write};
use serde_json::{Value, json};

use crate::{
    harness::author::{Draft, link, record},
    stage::{Case, Stage},
};

const POST: &str = "app.bsky.feed.post/3jzfcijpj2z2a";
const LIKE: &str = "app.bsky.feed.like/3jzfcijpj2z2a";

/// A new account writes one record, and then a commit that the case spoils.
fn spoilt(
    stage: &mut Stage<'_>,
    reason: RefusalReason,
    changes: &[(&str, Option<Vec<u8>>)],
    change: impl FnOnce(&mut Draft),
) {
    let mut author = stage.author();
    let first = author.commit(&[(POST, Some(record(1)))]);
    stage.good("commit", &first);
    let mut draft = author.draft(changes);
    change(&mut draft);
    let body = author.seal(&draft);
    stage.bad(reason, "commit", &body);
}

fn op(stage: &mut Stage<'_>, reason: RefusalReason, change: impl FnOnce(&mut Value)) {
    spoilt(stage, reason, &[(LIKE, Some(record(2)))], |draft| change(&mut draft.ops[0]));
}

/// A record of about so many bytes.
fn large(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, 1);
    write::text(&mut out, "b");
    write::byte_string(&mut out, &vec![7; bytes]);
    out
}

/// A node with a left subtree and entries of prefix length, rest of the key and subtree.
fn node(left: Option<Cid>, entries: &[(u64, &str, Option<Cid>)]) -> Vec<u8> {
    let nullable = |out: &mut Vec<u8>, cid: Option<Cid>| match cid {
        Some(cid) => write::link(out, &cid),
        None => write::null(out),
    };
    let mut out = Vec::new();
    write::map(&mut out, 2);
    write::text(&mut out, "e");
    write::array(&mut out, entries.len() as u64);
    for (prefix, rest, right) in entries {
        write::map(&mut out, 4);
        write::text(&mut out, "k");
        write::byte_string(&mut out, rest.as_bytes());
        write::text(&mut out, "p");
        write::unsigned(&mut out, *prefix);
        write::text(&mut out, "t");
        nullable(&mut out, *right);
        write::text(&mut out, "v");
        write::link(&mut out, &Cid::of_dag_cbor(&record(2)));
    }
    write::text(&mut out, "l");
    nullable(&mut out, left);
    out
}

/// A commit whose tree has this root, with further nodes.
fn rooted(stage: &mut Stage<'_>, root: Vec<u8>, more: &[Vec<u8>]) {
    spoilt(stage, TreeMalformed, &[(LIKE, Some(record(2)))], |draft| {
        draft.data = Cid::of_dag_cbor(&root);
        for block in more.iter().cloned().chain([root]) {
            draft.blocks.push((Cid::of_dag_cbor(&block), block));
        }
    });
}

fn remove(value: &mut Value, field: &str) {
    value.as_object_mut().unwrap().remove(field);
}

pub(crate) const CASES: &[Case] = &[
    ("no operations at all", |stage| {
        let body = stage.alice.commit(&[]);
        stage.good("commit", &body);
    }),
    ("a first commit of an empty repository", |stage| {
        let mut author = stage.author();
        let (first, second) = (author.commit(&[]), author.post());
        stage.good("commit", &first);
        stage.good("commit", &second);
    }),
    ("two hundred operations, and one more", |stage| {
        let paths: Vec<String> = (0..201).map(|n| format!("app.bsky.feed.like/k{n}")).collect();
        let change = |count: usize| -> Vec<(&str, Option<Vec<u8>>)> {
            paths[..count].iter().map(|path| (path.as_str(), Some(record(7)))).collect()
        };
        let body = stage.alice.commit(&change(200));
        stage.good("commit", &body);
        let mut author = stage.author();
        let body = author.commit(&change(201));
        stage.bad(OpsTooMany, "commit", &body);
    }),
    ("create, update, delete and create again", |stage| {
        for record in [Some(record(1)), Some(record(2)), None, Some(record(3)), None] {
            let body = stage.alice.commit(&[(LIKE, record)]);
            stage.good("commit", &body);
        }
    }),
    ("the last record goes", |stage| {
        let mut author = stage.author();
        let (first, second) =
            (author.commit(&[(POST, Some(record(1)))]), author.commit(&[(POST, None)]));
        stage.good("commit", &first);
        stage.good("commit", &second);
        let third = author.commit(&[(LIKE, Some(record(1)))]);
        stage.good("commit", &third);
    }),
    ("an update to what was there", |stage| {
        let mut author = stage.author();
        let first = author.commit(&[(POST, Some(record(1)))]);
        stage.good("commit", &first);
        let second = author.commit(&[(POST, Some(record(1)))]);
        stage.good("commit", &second);
    }),
    ("a path twice", |stage| {
        spoilt(stage, OpInvalid, &[(LIKE, Some(record(2)))], |draft| {
            let again = draft.ops[0].clone();
            draft.ops.push(again);
        });
    }),
    ("an action that there is not", |stage| {
        for action in ["", "upsert", "CREATE", "move"] {
            op(stage, OpInvalid, |op| op["action"] = json!(action));
        }
    }),
    ("a create of something that was there", |stage| {
        op(stage, OpInvalid, |op| op["prev"] = link(Cid::of_dag_cbor(&record(9))));
    }),
    ("a create without a record", |stage| op(stage, OpInvalid, |op| op["cid"] = Value::Null)),
    ("paths that are none", |stage| {
        let long = format!("app.bsky.feed.post/{}", "a".repeat(513));
        for path in [
            "",
            "/",
            "app.bsky.feed.post",
            "app.bsky.feed.post/",
            "/3jzfcijpj2z2a",
            "app.bsky.feed.post/a/b",
            "/app.bsky.feed.post/a",
            "app.bsky.feed.post/.",
            "app.bsky.feed.post/..",
            "app.bsky.feed.post/a b",
            "app.bsky.feed.post/\u{e4}",
            "post/a",
            "app.bsky/a",
            "app..feed.post/a",
            "app.bsky.feed.3post/a",
            long.as_str(),
        ] {
            op(stage, OpInvalid, |op| op["path"] = json!(path));
        }
    }),
    ("odd paths that are right", |stage| {
        let longest = format!("app.bsky.feed.post/{}", "a".repeat(512));
        for path in ["com.example.thing/self", "com.example.x1/a:b.c_d~e-", longest.as_str()] {
            let body = stage.alice.commit(&[(path, Some(record(1)))]);
            stage.good("commit", &body);
        }
    }),
    ("a record that is not among the blocks", |stage| {
        spoilt(stage, RecordMissing, &[(LIKE, Some(record(2)))], |draft| {
            draft.blocks.remove(0);
        });
    }),
    ("a record of more than a mebibyte, and one of less", |stage| {
        spoilt(stage, RecordTooLarge, &[(LIKE, Some(large(1_048_577)))], |_| {});
        let body = stage.alice.commit(&[(LIKE, Some(large(1_000_000)))]);
        stage.good("commit", &body);
    }),
    ("records that are no CBOR", |stage| {
        for record in [&b"\xff"[..], b"\x61", b"", b"\xa1", b"\xa0\xa0", &[0x81; 64]] {
            spoilt(stage, RecordMalformed, &[(LIKE, Some(record.to_vec()))], |_| {});
        }
    }),
    ("an operation on what the tree does not hold", |stage| {
        op(stage, InversionMismatch, |op| op["path"] = json!("app.bsky.feed.like/other"));
    }),
    ("a deletion that has not happened", |stage| {
        spoilt(stage, InversionMismatch, &[(LIKE, Some(record(2)))], |draft| {
            draft.ops.push(json!({ "action": "delete", "path": POST, "cid": null,
                "prev": link(Cid::of_dag_cbor(&record(1))) }));
        });
    }),
    ("a deletion with a record", |stage| {
        spoilt(stage, OpInvalid, &[(POST, None)], |draft| {
            draft.ops[0]["cid"] = link(Cid::of_dag_cbor(&record(1)));
        });
    }),
    ("updates and deletions without prev", |stage| {
        spoilt(stage, OpInvalid, &[(POST, Some(record(2)))], |d| remove(&mut d.ops[0], "prev"));
        spoilt(stage, OpInvalid, &[(POST, None)], |d| remove(&mut d.ops[0], "prev"));
    }),
    ("updates and deletions of something else", |stage| {
        let other = link(Cid::of_dag_cbor(&record(77)));
        spoilt(stage, InversionMismatch, &[(POST, Some(record(2)))], |draft| {
            draft.ops[0]["prev"] = other.clone();
        });
        spoilt(stage, InversionMismatch, &[(POST, None)], |draft| {
            draft.ops[0]["prev"] = other.clone();
        });
    }),
    ("an operation left out", |stage| {
        spoilt(stage, InversionMismatch, &[(LIKE, Some(record(2)))], |draft| draft.ops.clear());
    }),
    ("another prevData than the operations lead to", |stage| {
        spoilt(stage, InversionMismatch, &[(LIKE, Some(record(2)))], |draft| {
            draft.prev_data = Some(Cid::of_dag_cbor(b"\xa0"));
        });
    }),
    ("a tree without its root", |stage| {
        spoilt(stage, TreeMalformed, &[(LIKE, Some(record(2)))], |draft| {
            let root = draft.data;
            draft.blocks.retain(|(cid, _)| *cid != root);
        });
    }),
    ("a root that is no node", |stage| {
        for node in [&b"\x80"[..], b"\xa0", b"\xa2\x61e\x01\x61l\xf6", b"\xa1\x61e\x80"] {
            spoilt(stage, TreeMalformed, &[(LIKE, Some(record(2)))], |draft| {
                draft.data = Cid::of_dag_cbor(node);
                draft.blocks.push((draft.data, node.to_vec()));
            });
        }
    }),
    ("a node whose keys are out of order", |stage| {
        rooted(stage, node(None, &[(0, POST, None), (0, LIKE, None)]), &[]);
    }),
    ("a node with a key twice", |stage| {
        rooted(stage, node(None, &[(0, LIKE, None), (LIKE.len() as u64, "", None)]), &[]);
    }),
    ("a node whose keys repeat what they share", |stage| {
        rooted(stage, node(None, &[(0, LIKE, None), (0, POST, None)]), &[]);
    }),
    ("a node whose keys share more than there is", |stage| {
        rooted(stage, node(None, &[(3, LIKE, None)]), &[]);
        rooted(stage, node(None, &[(0, LIKE, None), (1000, "x", None)]), &[]);
        rooted(stage, node(None, &[(0, LIKE, None), (u64::MAX, "x", None)]), &[]);
    }),
    ("a key of no bytes", |stage| rooted(stage, node(None, &[(0, "", None)]), &[])),
    ("a root with nothing but a subtree", |stage| {
        let below = node(None, &[(0, LIKE, None)]);
        rooted(stage, node(Some(Cid::of_dag_cbor(&below)), &[]), &[below]);
    }),
    ("a tree in which a node hangs below itself on a wrong layer", |stage| {
        let below = node(None, &[(0, LIKE, None)]);
        let cid = Cid::of_dag_cbor(&below);
        rooted(stage, node(Some(cid), &[(0, LIKE, Some(cid))]), &[below]);
    }),
    ("a node with more behind it", |stage| {
        let mut root = node(None, &[(0, LIKE, None)]);
        root.push(0xf6);
        rooted(stage, root, &[]);
    }),
    ("a node with fields of the future, and one without its own", |stage| {
        let mut root = node(None, &[(0, LIKE, None)]);
        root[0] = 0xa3;
        root.extend(b"\x62zz\x01");
        rooted(stage, root, &[]);
        rooted(stage, b"\xa1\x61e\x80".to_vec(), &[]);
    }),
    ("a key of two thousand bytes", |stage| {
        rooted(stage, node(None, &[(0, &"k".repeat(2000), None)]), &[]);
    }),
    ("operations in an order of their own", |stage| {
        let paths = ["app.bsky.feed.post/b", "app.bsky.feed.post/a", "app.bsky.feed.like/z"];
        let changes: Vec<_> = paths.iter().map(|path| (*path, Some(record(1)))).collect();
        let body = stage.alice.commit(&changes);
        stage.good("commit", &body);
        let body =
            stage.alice.commit(&[(paths[0], None), (LIKE, Some(record(5))), (paths[1], None)]);
        stage.good("commit", &body);
    }),
    ("operations with fields of the future", |stage| {
        let mut body = stage.alice.post();
        body["ops"][0]["zz"] = json!([1, { "a": null }]);
        stage.good("commit", &body);
    }),
    ("operations that are none", |stage| {
        for ops in [json!([1]), json!([[]]), json!(["create"]), json!([null])] {
            let mut author = stage.author();
            let mut body = author.post();
            body["ops"] = ops;
            stage.bad(RefusalReason::FrameMalformed, "commit", &body);
        }
    }),
    ("a record with a float and one that is deep", |stage| {
        let float = b"\xa1\x61f\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00".to_vec();
        let deep = [&[0x81; 30][..], b"\x01"].concat();
        for record in [float, deep] {
            let body = stage.alice.commit(&[(LIKE, Some(record))]);
            stage.good("commit", &body);
            let body = stage.alice.commit(&[(LIKE, None)]);
            stage.good("commit", &body);
        }
    }),
    ("a large repository, read by its proofs", |stage| {
        let mut author = stage.author();
        for block in 0..5 {
            let paths: Vec<String> =
                (0..150).map(|n| format!("app.bsky.feed.post/{block}k{n}")).collect();
            let changes: Vec<_> =
                paths.iter().map(|path| (path.as_str(), Some(record(block)))).collect();
            let body = author.commit(&changes);
            stage.good("commit", &body);
        }
        for n in 0..40 {
            let path = format!("app.bsky.feed.post/{}k{}", n % 5, n * 3);
            let body = author.commit(&[(&path, (n % 2 == 0).then(|| record(1000 + n)))]);
            stage.good("commit", &body);
        }
    }),
];
