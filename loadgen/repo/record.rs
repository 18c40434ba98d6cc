//! Records of the kinds and sizes that people write: posts, replies, likes, reposts, follows.

use protocol::cid::{Cid, Codec};
use protocol::syntax::Tid;
use sha2::{Digest, Sha256};

use super::cbor;
use crate::clock;
use crate::random::Random;

/// Collections with the share of new records that go there, as on the real network (likes lead).
const COLLECTIONS: [(&str, f64); 4] = [
    ("app.bsky.feed.like", 0.50),
    ("app.bsky.feed.post", 0.27),
    ("app.bsky.graph.follow", 0.15),
    ("app.bsky.feed.repost", 0.08),
];

const WORDS: [&str; 24] = [
    "sky", "morning", "coffee", "the", "and", "relay", "garden", "über", "today", "photo", "a",
    "of", "thread", "music", "weather", "日本", "walk", "reading", "about", "with", "news", "cat",
    "city", "🎉",
];

/// A path for a new record: `collection/tid`. Tids come from the event's time, so that new keys
/// stand at the end of their collection, as in real repositories.
pub fn path(random: &mut Random, micros: u64) -> String {
    let mut share = random.unit();
    let mut collection = COLLECTIONS[0].0;
    for (name, weight) in COLLECTIONS {
        if share < weight {
            collection = name;
            break;
        }
        share -= weight;
    }
    let rkey = Tid::from_parts(micros, random.below(1024) as u16);
    format!("{collection}/{rkey}")
}

/// A record that fits the collection of the path.
pub fn record(random: &mut Random, path: &str, micros: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let collection = path.split('/').next().unwrap_or(path);
    match collection {
        "app.bsky.feed.post" => post(random, micros, &mut out),
        "app.bsky.graph.follow" => {
            cbor::map(3, &mut out);
            cbor::text_field("$type", collection, &mut out);
            cbor::text_field("subject", &super::document::plc_did(random.next_u64(), 0), &mut out);
            created_at(micros, &mut out);
        }
        _ => {
            cbor::map(3, &mut out);
            cbor::text_field("$type", collection, &mut out);
            cbor::text("subject", &mut out);
            strong_ref(random, micros, &mut out);
            created_at(micros, &mut out);
        }
    }
    out
}

/// A leaf CID for records that were there before the first event. Only its bytes matter: nobody
/// is ever sent such a record.
pub fn earlier_record(random: &mut Random) -> Cid {
    random_cid(random)
}

fn post(random: &mut Random, micros: u64, out: &mut Vec<u8>) {
    let reply = random.chance(0.45);
    cbor::map(4 + usize::from(reply), out);
    cbor::text_field("text", &sentence(random), out);
    cbor::text_field("$type", "app.bsky.feed.post", out);
    cbor::text("langs", out);
    cbor::array(1, out);
    cbor::text("en", out);
    if reply {
        cbor::text("reply", out);
        cbor::map(2, out);
        cbor::text("root", out);
        strong_ref(random, micros, out);
        cbor::text("parent", out);
        strong_ref(random, micros, out);
    }
    created_at(micros, out);
}

fn sentence(random: &mut Random) -> String {
    let length = 10 + random.below(280) as usize;
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        text.push_str(random.pick::<&str>(&WORDS));
        text.push(' ');
    }
    text
}

fn strong_ref(random: &mut Random, micros: u64, out: &mut Vec<u8>) {
    let did = super::document::plc_did(random.next_u64(), 0);
    let rkey = Tid::from_parts(micros - random.below(86_400_000_000), 0);
    cbor::map(2, out);
    cbor::text_field("cid", &random_cid(random).to_string(), out);
    cbor::text_field("uri", &format!("at://{did}/app.bsky.feed.post/{rkey}"), out);
}

fn created_at(micros: u64, out: &mut Vec<u8>) {
    cbor::text_field("createdAt", &clock::datetime(micros), out);
}

fn random_cid(random: &mut Random) -> Cid {
    Cid::from_digest(Codec::DagCbor, Sha256::digest(random.next_u64().to_le_bytes()).into())
}
