//! Frames made from good ones: renumbered, or spoilt in a way that must be noticed.

use ecdsa::Curve;
use protocol::{
    Cid,
    car::CarReader,
    commit,
    frame::{self, Body},
};

use super::consumer;

/// The same event with another seq.
pub fn renumber(bytes: &[u8], seq: u64) -> Vec<u8> {
    let span = consumer::event(bytes).seq_span;
    let mut out = bytes[..span.start].to_vec();
    frame::write_seq(seq, &mut out);
    out.extend_from_slice(&bytes[span.end..]);
    out
}

/// What can be wrong with a commit while the frame is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A bit of the blocks: they no longer hash to their CIDs.
    Bit(usize),
    /// A signature by nobody, over blocks whose hashes are in order.
    Signature,
    /// The other signature that solves the same equation, which all but the protocol accept.
    HighS(Curve),
    /// A `prevData` that undoing the operations does not lead to.
    PrevData,
    /// An operation on a record that the tree does not hold.
    Path,
    /// A rev that is not the signed commit's.
    Rev,
    /// The commit under another account's name.
    Did,
}

/// The frame with the flaw; `None` if it has no place for it.
pub fn spoil(good: &[u8], flaw: Flaw) -> Option<Vec<u8>> {
    let event = consumer::event(good);
    let (blocks, rev) = match &event.body {
        Body::Commit(body) => (body.blocks, body.rev),
        Body::Sync(body) => (body.blocks, body.rev),
        Body::Identity(_) | Body::Account(_) => return None,
    };
    let mut bytes = good.to_vec();
    match flaw {
        Flaw::Bit(bit) => {
            let bit = bit % (blocks.len() * 8);
            bytes[offset(good, blocks) + bit / 8] ^= 1 << (bit % 8);
        }
        Flaw::Signature => return Some(resign(good, blocks, |sig| sig[40] ^= 1)),
        Flaw::HighS(curve) => return Some(resign(good, blocks, |sig| raise(sig, curve))),
        Flaw::PrevData => {
            let Body::Commit(body) = &event.body else { return None };
            let place = find(good, body.prev_data?.as_bytes(), blocks)?;
            bytes[place + 20] ^= 1;
        }
        Flaw::Path => {
            let Body::Commit(body) = &event.body else { return None };
            let path = body.ops.iter().next()?.path;
            let last = offset(good, path.as_bytes()) + path.len() - 1;
            bytes[last] = if bytes[last] == b'2' { b'3' } else { b'2' };
        }
        Flaw::Rev => {
            let last = offset(good, rev.as_bytes()) + rev.len() - 1;
            bytes[last] = if bytes[last] == b'2' { b'3' } else { b'2' };
        }
        Flaw::Did => {
            let last = offset(good, event.did.as_bytes()) + event.did.len() - 1;
            bytes[last] = if bytes[last] == b'a' { b'b' } else { b'a' };
        }
    }
    Some(bytes)
}

/// Where a borrowed part of the frame stands in it.
fn offset(frame: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - frame.as_ptr() as usize
}

/// The first place of the needle outside of the blocks.
fn find(frame: &[u8], needle: &[u8], blocks: &[u8]) -> Option<usize> {
    let inside = offset(frame, blocks)..offset(frame, blocks) + blocks.len();
    let mut places = frame.windows(needle.len()).enumerate();
    places.find(|(at, window)| !inside.contains(at) && *window == needle).map(|(at, _)| at)
}

/// The frame with another signature in its commit, and the commit's new CID wherever the old one
/// stood, so that only the signature is wrong.
fn resign(frame: &[u8], blocks: &[u8], change: impl FnOnce(&mut [u8; 64])) -> Vec<u8> {
    let reader = CarReader::new(blocks).unwrap();
    let root = reader.root();
    let block = reader.map(Result::unwrap).find(|block| block.cid == root).unwrap();
    let sig = commit::parse(block.data).unwrap().sig;
    let mut changed = *sig;
    change(&mut changed);
    let mut data = block.data.to_vec();
    let place = offset(block.data, sig);
    data[place..place + 64].copy_from_slice(&changed);
    let cid = Cid::of_dag_cbor(&data);

    let mut out = frame.to_vec();
    let at = offset(frame, block.data);
    out[at..at + data.len()].copy_from_slice(&data);
    let places = frame.windows(36).enumerate().filter(|(_, window)| *window == root.as_bytes());
    for (at, _) in places {
        out[at..at + 36].copy_from_slice(cid.as_bytes());
    }
    out
}

/// `s` becomes the group order minus `s`.
fn raise(sig: &mut [u8; 64], curve: Curve) {
    let order: [u8; 32] = match curve {
        Curve::K256 => {
            *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xba\xae\xdc\xe6\xaf\x48\xa0\x3b\xbf\xd2\x5e\x8c\xd0\x36\x41\x41"
        }
        Curve::P256 => {
            *b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
        }
    };
    let mut borrow = 0;
    for (s, n) in sig[32..].iter_mut().zip(order).rev() {
        let digit = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(digit < 0);
        *s = digit.rem_euclid(256) as u8;
    }
}
