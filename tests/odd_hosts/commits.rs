//! Commits whose signed part, frame or blocks are not as they should be, or only look so.

use ecdsa::{Curve, sign::SigningKey};
use ports::RefusalReason::{
    BlockHash, BlocksTooLarge, CarMalformed, CommitMalformed, CommitMismatch, CommitMissing,
    FrameMalformed, PrevDataMissing, RevFuture, RevStale, RevSyntax, SignatureInvalid,
};
use protocol::{Cid, cbor::write, syntax::Tid};
use serde_json::{Value, json};

use crate::{
    harness::{
        author::{Author, Draft, bytes, car, link, record},
        forge::{self, Flaw},
    },
    stage::{Case, Stage},
};

fn spoilt(stage: &mut Stage<'_>, reason: ports::RefusalReason, change: impl FnOnce(&mut Value)) {
    let mut author = stage.author();
    let first = author.post();
    stage.good("commit", &first);
    let mut body = author.post();
    change(&mut body);
    stage.bad(reason, "commit", &body);
}

/// A commit of another shape than ours: its fields are the case's.
fn signed_by_hand(draft: &Draft, key: &SigningKey, pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let encode = |sig: Option<&[u8]>| {
        let mut all: Vec<(&str, Vec<u8>)> = pairs.to_vec();
        for (name, value) in fields(draft) {
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, value));
            }
        }
        if let Some(sig) = sig {
            let mut value = Vec::new();
            write::byte_string(&mut value, sig);
            all.push(("sig", value));
        }
        all.retain(|(_, value)| !value.is_empty());
        all.sort_by_key(|(name, _)| (name.len(), *name));
        let mut out = Vec::new();
        write::map(&mut out, all.len() as u64);
        for (name, value) in all {
            write::text(&mut out, name);
            out.extend(value);
        }
        out
    };
    let signature = key.sign(&encode(None));
    encode(Some(&signature))
}

fn fields(draft: &Draft) -> [(&'static str, Vec<u8>); 5] {
    let text = |value: &str| {
        let mut out = Vec::new();
        write::text(&mut out, value);
        out
    };
    let mut data = Vec::new();
    write::link(&mut data, &draft.data);
    [
        ("did", text(&draft.did)),
        ("rev", text(&draft.rev)),
        ("data", data),
        ("prev", vec![0xf6]),
        ("version", vec![0x03]),
    ]
}

/// A commit of alice, with these fields of its signed part changed (or, if empty, left out).
fn by_hand(author: &mut Author, pairs: &[(&str, Vec<u8>)]) -> Value {
    let draft = author.draft_post();
    let block = signed_by_hand(&draft, &author.key.clone(), pairs);
    author.event(&draft, block)
}

fn malformed(stage: &mut Stage<'_>, pairs: &[(&str, Vec<u8>)]) {
    let mut author = stage.author();
    let body = by_hand(&mut author, pairs);
    stage.bad(CommitMalformed, "commit", &body);
}

fn with_rev(stage: &mut Stage<'_>, rev: Tid) -> Value {
    let mut author = stage.author();
    let draft = Draft { rev: rev.to_string(), ..author.draft_post() };
    author.seal(&draft)
}

/// The bytes of an event's blocks.
fn car_bytes(body: &Value) -> Vec<u8> {
    let text = body["blocks"]["$bytes"].as_str().unwrap();
    data_encoding::BASE64_NOPAD.decode(text.as_bytes()).unwrap()
}

/// The same blocks behind another header, which may name the commit.
fn with_header(body: &Value, header: impl FnOnce(Cid) -> Vec<u8>) -> Value {
    let whole = car_bytes(body);
    let reader = protocol::car::CarReader::new(&whole).unwrap();
    let header = header(reader.root());
    let mut out = vec![u8::try_from(header.len()).unwrap()];
    // A length of two bytes, as two links are longer than 127.
    if header.len() > 127 {
        out = vec![header.len() as u8 | 0x80, (header.len() >> 7) as u8];
    }
    out.extend(header);
    for block in reader {
        let block = block.unwrap();
        protocol::car::write_block(&mut out, &block.cid, block.data);
    }
    bytes(&out)
}

fn now_micros() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_micros() as u64
}

pub(crate) const CASES: &[Case] = &[
    ("a commit of another's key", |stage| {
        let mut author = stage.author();
        let draft = author.draft_post();
        let body = author.seal_with(&draft, &SigningKey::from_seed(Curve::K256, b"other"));
        stage.bad(SignatureInvalid, "commit", &body);
    }),
    ("a signature with one bit changed, and the other solution of its equation", |stage| {
        let mut author = stage.author();
        let curve = author.key.curve();
        let (first, second) = (author.post(), author.post());
        stage.good("commit", &first);
        for flaw in [Flaw::Signature, Flaw::HighS(curve)] {
            let seq = stage.next_seq();
            let mut numbered = second.clone();
            numbered["seq"] = seq.into();
            let good = crate::harness::json::event("commit", &numbered);
            stage.pds.push(seq, forge::spoil(&good, flaw).unwrap());
            stage.refused(SignatureInvalid, 1);
        }
        stage.good("commit", &second);
    }),
    ("versions of a commit that are not in use", |stage| {
        for version in [1, 2, 4] {
            malformed(stage, &[("version", vec![version])]);
        }
    }),
    ("a signed part that lacks something", |stage| {
        for field in ["did", "rev", "data", "prev", "version"] {
            malformed(stage, &[(field, vec![])]);
        }
    }),
    ("signatures of a wrong length", |stage| {
        for length in [0_u8, 63, 65, 70] {
            let mut author = stage.author();
            let draft = author.draft_post();
            let mut sig = vec![0x58, length];
            sig.resize(2 + usize::from(length), 1);
            if length < 24 {
                sig = vec![0x40 + length];
            }
            let block = signed_by_hand(&draft, &author.key.clone(), &[("sig", sig)]);
            // The field is there twice, or its length is wrong: neither is a commit.
            let body = author.event(&draft, block);
            stage.bad(CommitMalformed, "commit", &body);
        }
    }),
    ("a signed part with fields of the future and a prev", |stage| {
        let mut prev = Vec::new();
        write::link(&mut prev, &Cid::of_dag_cbor(b"\xa0"));
        let body = by_hand(&mut stage.alice, &[("prev", prev), ("zukunft", vec![0x81, 0x07])]);
        stage.good("commit", &body);
    }),
    ("a signed part in the name of another", |stage| {
        let other = stage.author();
        let mut author = stage.author();
        let draft = Draft { did: other.did.clone(), ..author.draft_post() };
        let mut body = author.seal(&draft);
        body["repo"] = json!(author.did);
        stage.bad(CommitMismatch, "commit", &body);
    }),
    ("a commit of one's own in the name of another", |stage| {
        let victim = stage.author();
        let mut author = stage.author();
        let draft = Draft { did: victim.did.clone(), ..author.draft_post() };
        let body = author.seal(&draft);
        stage.bad(SignatureInvalid, "commit", &body);
    }),
    ("a rev that is not the signed one", |stage| {
        spoilt(stage, CommitMismatch, |body| body["rev"] = json!("3jzfcijpj2z2a"));
    }),
    ("a link to another commit than the root", |stage| {
        spoilt(stage, CommitMismatch, |body| {
            body["commit"] = link(Cid::of_dag_cbor(b"\xa0"));
        });
    }),
    ("revs that are none", |stage| {
        for rev in ["", "abc", "zzzzzzzzzzzzz", "3jzfcijpj2z2!", "3JZFCIJPJ2Z2A", "3jzfcijpj2z2aa"]
        {
            spoilt(stage, RevSyntax, |body| body["rev"] = json!(rev));
        }
    }),
    ("a rev from the future", |stage| {
        for minutes in [6, 60 * 24 * 365] {
            let body = with_rev(stage, Tid::from_parts(now_micros() + minutes * 60_000_000, 1));
            stage.bad(RevFuture, "commit", &body);
        }
    }),
    ("a rev a little ahead, and one of the year 1970", |stage| {
        let ahead = with_rev(stage, Tid::from_parts(now_micros() + 240_000_000, 1));
        stage.good("commit", &ahead);
        let old = with_rev(stage, Tid::from_parts(5, 1));
        stage.good("commit", &old);
    }),
    ("the same commit again, under a new number", |stage| {
        let body = stage.alice.post();
        stage.good("commit", &body);
        stage.bad(RevStale, "commit", &body);
        stage.bad(RevStale, "commit", &body);
    }),
    ("a commit that comes after its successor", |stage| {
        let (first, second) = (stage.alice.post(), stage.alice.post());
        stage.good("commit", &second);
        stage.bad(RevStale, "commit", &first);
    }),
    ("a commit that does not follow on", |stage| {
        // One that was never sent lies between.
        stage.alice.post();
        let body = stage.alice.post();
        stage.good("commit", &body);
    }),
    ("a since that nobody knows", |stage| {
        for since in [json!("3jzfcijpj2z2a"), json!(""), json!("yesterday"), Value::Null] {
            let mut body = stage.alice.post();
            body["since"] = since;
            stage.good("commit", &body);
        }
    }),
    ("a known account without prevData", |stage| {
        spoilt(stage, PrevDataMissing, |body| {
            body.as_object_mut().unwrap().remove("prevData");
        });
    }),
    ("a new account with a history", |stage| {
        let mut author = stage.author();
        author.post();
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a new account with a history and no prevData", |stage| {
        let mut author = stage.author();
        author.post();
        let mut body = author.post();
        body.as_object_mut().unwrap().remove("prevData");
        stage.bad(PrevDataMissing, "commit", &body);
    }),
    ("tooBig, rebase and blobs", |stage| {
        let mut body = stage.alice.post();
        body["tooBig"] = json!(true);
        body["rebase"] = json!(true);
        body["blobs"] = json!([link(Cid::of_dag_cbor(b"\xa0"))]);
        stage.good("commit", &body);
    }),
    ("deprecated fields left out", |stage| {
        let body = stage.alice.post();
        let mut short = body.clone();
        for field in ["tooBig", "rebase", "blobs"] {
            short.as_object_mut().unwrap().remove(field);
        }
        stage.good_as("commit", &short, &body);
    }),
    ("fields of the future", |stage| {
        let mut body = stage.alice.post();
        body["zz"] = json!({ "a": [1, null, "x"], "b": link(Cid::of_dag_cbor(b"\xa0")) });
        stage.good("commit", &body);
    }),
    ("no blocks, and blocks that are no CAR", |stage| {
        for blocks in [&b""[..], b"\x00", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"hello"] {
            spoilt(stage, CarMalformed, |body| body["blocks"] = bytes(blocks));
        }
    }),
    ("a CAR without roots, and one of version 2", |stage| {
        let no_roots = b"\x11\xa2\x65roots\x80\x67version\x01";
        let second = b"\x0a\xa1\x67version\x02";
        for blocks in [&no_roots[..], second] {
            spoilt(stage, CarMalformed, |body| body["blocks"] = bytes(blocks));
        }
    }),
    ("blocks without the commit", |stage| {
        let mut author = stage.author();
        let draft = author.draft_post();
        let mut body = author.seal(&draft);
        let root = Cid::of_dag_cbor(b"\xa0");
        body["commit"] = link(root);
        body["blocks"] = car(&root, &draft.blocks);
        stage.bad(CommitMissing, "commit", &body);
    }),
    ("a block that does not hash to its name", |stage| {
        let mut author = stage.author();
        let mut draft = author.draft_post();
        draft.blocks[0].1 = record(999_999);
        let body = author.seal(&draft);
        stage.bad(BlockHash, "commit", &body);
    }),
    ("blocks of more than two million bytes", |stage| {
        let mut author = stage.author();
        let mut draft = author.draft_post();
        let junk = vec![7_u8; 2_000_001];
        draft.blocks.push((Cid::of_dag_cbor(&junk), junk));
        let body = author.seal(&draft);
        stage.bad(BlocksTooLarge, "commit", &body);
    }),
    ("blocks twice, in another order, and some that nobody needs", |stage| {
        let mut draft = stage.alice.draft_post();
        let junk = record(123_456_789);
        draft.blocks.push((Cid::of_dag_cbor(&junk), junk));
        let mut again = draft.blocks.clone();
        again.reverse();
        draft.blocks.extend(again);
        let body = stage.alice.seal(&draft);
        stage.good("commit", &body);
    }),
    ("a commit block that is no map", |stage| {
        let mut author = stage.author();
        let draft = author.draft_post();
        for block in [&b"\x80"[..], b"\x01", b"\xa0", b"\xa1\x63sig\x41x", b""] {
            let body = author.event(&draft, block.to_vec());
            let reason = CommitMalformed;
            stage.bad(reason, "commit", &body);
        }
    }),
    ("a CAR with two roots", |stage| {
        let draft = stage.alice.draft_post();
        let mut body = stage.alice.seal(&draft);
        body["blocks"] = with_header(&body, |root| {
            let mut header = b"\xa2\x65roots\x82".to_vec();
            write::link(&mut header, &root);
            write::link(&mut header, &Cid::of_dag_cbor(b"\xa0"));
            header.extend(b"\x67version\x01");
            header
        });
        stage.good("commit", &body);
    }),
    ("a CAR whose root is not the commit", |stage| {
        spoilt(stage, CommitMissing, |body| {
            body["blocks"] = with_header(body, |_| {
                let mut header = b"\xa2\x65roots\x81".to_vec();
                write::link(&mut header, &Cid::of_dag_cbor(b"\xa0"));
                header.extend(b"\x67version\x01");
                header
            });
        });
    }),
    ("CAR headers that are none", |stage| {
        for header in [&b""[..], b"\xa0", b"\x80", b"\xa1\x67version\x01", b"\xa1\x65roots\x80"] {
            spoilt(stage, CarMalformed, |body| {
                body["blocks"] = with_header(body, |_| header.to_vec());
            });
        }
    }),
    ("a CAR that ends in the middle", |stage| {
        for cut in [1, 20, 60] {
            spoilt(stage, CarMalformed, |body| {
                let whole = car_bytes(body);
                body["blocks"] = bytes(&whole[..whole.len() - cut]);
            });
        }
    }),
    ("blocks of no bytes and of endless length", |stage| {
        for tail in [
            &b"\x00"[..],
            b"\x05",
            b"\xff\xff\xff\xff\x7f",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        ] {
            spoilt(stage, CarMalformed, |body| {
                body["blocks"] = bytes(&[&car_bytes(body)[..], tail].concat());
            });
        }
    }),
    ("another commit with the rev of the last one", |stage| {
        let mut author = stage.author();
        let first = author.post();
        stage.good("commit", &first);
        let rev = author.rev();
        let draft = Draft { rev, ..author.draft_post() };
        let body = author.seal(&draft);
        stage.bad(RevStale, "commit", &body);
        let body = author.post();
        stage.good("commit", &body);
    }),
    ("a rev at the end of time", |stage| {
        for rev in ["bzzzzzzzzzzzz", "jzzzzzzzzzzzz"] {
            let mut author = stage.author();
            let draft = Draft { rev: rev.to_owned(), ..author.draft_post() };
            let body = author.seal(&draft);
            stage.bad(RevFuture, "commit", &body);
        }
    }),
    ("a signed part that is no strict CBOR", |stage| {
        for (field, value) in [
            ("version", &b"\x18\x03"[..]),
            ("version", b"\xfb\x40\x08\x00\x00\x00\x00\x00\x00"),
            ("zz", b"\x9f\xff"),
            ("zz", b"\xf7"),
            ("zz", b"\xc1\x01"),
            ("prev", b"\x00"),
            ("prev", b"\x60"),
            ("data", b"\xf6"),
            ("did", b"\x00"),
            ("rev", b"\x40"),
        ] {
            malformed(stage, &[(field, value.to_vec())]);
        }
    }),
    ("a time of another century", |stage| {
        for time in ["1970-01-01T00:00:00.000Z", "2999-12-31T23:59:59.999Z"] {
            let mut body = stage.alice.post();
            body["time"] = json!(time);
            stage.good("commit", &body);
        }
    }),
    ("links of another kind", |stage| {
        let mut author = stage.author();
        let mut body = author.post();
        body["commit"] = json!("bafy");
        stage.bad(FrameMalformed, "commit", &body);
    }),
];
