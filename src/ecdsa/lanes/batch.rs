//! From signatures to lanes and back: ranges, u1 = z / s, u2 = r / s, and a verdict for each lane.
//!
//! A signature (r, s) of the digest z under the key Q is good if x(u1 G + u2 Q) = r mod n. What lies out
//! of range, and the lanes beyond the last signature, become harmless filler (z = 0, r = s = 1, Q = G)
//! and bad.
//!
//! Left undecided, lane by lane: the exceptional cases of the curve's sum, and r < p - n that is
//! not x itself, since x may be r + n then (x < p; about 2^-128 of honest signatures).
//!
//! Bounds: at most [`GROUP`] signatures a call; everything lies on the stack, about 40 KiB.

use std::arch::x86_64::{__mmask8, _mm512_loadu_epi64};

use super::{
    scalar::{Modulus, Scalar, VECTORS, invert_all},
    vector::*,
};
use crate::kernel::{GROUP, Item, Verdict};

const _: () = assert!(GROUP == 8 * VECTORS);

/// What a curve does in lanes.
pub(super) trait InLanes {
    type Order: Modulus;
    /// Multiples of G, the same for all signatures.
    type Base: 'static;
    /// Room for the working of one vector, used again for the next.
    type Room;

    /// n, (n - 1) / 2, p - n; x and y of G.
    const ORDER: [u64; 4];
    const HALF_ORDER: [u64; 4];
    const FIELD_LESS_ORDER: [u64; 4];
    const GENERATOR: ([u64; 4], [u64; 4]);

    /// Made at the first call.
    fn base() -> &'static Self::Base;

    /// # Safety
    /// The CPU has the features that [`super::kernel`] looks for; so for the next one.
    unsafe fn room() -> Self::Room;

    /// # Safety
    /// As above.
    unsafe fn run(job: &Job, base: &Self::Base, room: &mut Self::Room) -> Outcome;
}

/// What eight lanes are to check: whether x(u1 G + u2 Q) = r.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// Q, a point of the curve in each lane. Limbs 0 to 3 dirty.
    pub(super) x: [V; 5],
    pub(super) y: [V; 5],
    pub(super) u1: Scalar,
    /// Not zero.
    pub(super) u2: Scalar,
    pub(super) r: [V; 5],
}

/// The lanes of which something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// x(u1 G + u2 Q) = r, as field elements. Says nothing in lanes of `exceptional`.
    pub(super) equal: __mmask8,
    /// The sum could not be found in this way.
    pub(super) exceptional: __mmask8,
}

/// A number of 32 bytes, big-endian, as words, lowest first.
pub(super) fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let (chunks, _) = bytes.as_chunks::<8>();
    [chunks[3], chunks[2], chunks[1], chunks[0]].map(u64::from_be_bytes)
}

/// A number of four words in each lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Words([[u64; 8]; 4]);

impl Words {
    pub(super) const fn filled(number: [u64; 4]) -> Self {
        let [a, b, c, d] = number;
        Self([[a; 8], [b; 8], [c; 8], [d; 8]])
    }

    pub(super) fn set(&mut self, lane: usize, number: [u64; 4]) {
        for (words, word) in self.0.iter_mut().zip(number) {
            words[lane] = word;
        }
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn limbs(&self) -> [V; 5] {
        // SAFETY: a row is 64 bytes, and the load asks for no alignment.
        let row = |i: usize| unsafe { _mm512_loadu_epi64(self.0[i].as_ptr().cast()) };
        words_to_limbs(&[row(0), row(1), row(2), row(3)])
    }
}

/// What eight signatures are made of.
#[derive(Clone, Copy)]
struct Lanes {
    z: Words,
    r: Words,
    s: Words,
    x: Words,
    y: Words,
    /// Lanes with a signature in range.
    valid: u8,
    /// Lanes with r < p - n.
    small_r: u8,
}

const ONE: [u64; 4] = [1, 0, 0, 0];

impl Lanes {
    const fn filler<C: InLanes>() -> Self {
        Self {
            z: Words::filled([0; 4]),
            r: Words::filled(ONE),
            s: Words::filled(ONE),
            x: Words::filled(C::GENERATOR.0),
            y: Words::filled(C::GENERATOR.1),
            valid: 0,
            small_r: 0,
        }
    }

    /// `items`: at most eight.
    fn of<C: InLanes>(items: &[Item<'_>]) -> Self {
        let mut lanes = Self::filler::<C>();
        for (lane, item) in items.iter().enumerate() {
            let (halves, _) = item.signature.as_chunks::<32>();
            let (r, s) = (words(&halves[0]), words(&halves[1]));
            if !in_range::<C>(&r) || !in_range::<C>(&s) || below(&C::HALF_ORDER, &s) {
                continue;
            }
            let (x, y) = coordinates(&item.key.to_sec1_uncompressed());
            lanes.z.set(lane, words(&item.digest));
            lanes.r.set(lane, r);
            lanes.s.set(lane, s);
            lanes.x.set(lane, x);
            lanes.y.set(lane, y);
            lanes.valid |= 1 << lane;
            lanes.small_r |= u8::from(below(&r, &C::FIELD_LESS_ORDER)) << lane;
        }
        lanes
    }

    /// The verdicts of the signatures which these lanes were made of.
    fn settle(&self, outcome: Outcome, verdicts: &mut [Verdict]) {
        let doubt = self.valid & (outcome.exceptional | (self.small_r & !outcome.equal));
        let good = self.valid & outcome.equal & !outcome.exceptional;
        for (lane, verdict) in verdicts.iter_mut().enumerate() {
            let is = |mask: u8| mask >> lane & 1 == 1;
            *verdict = match (is(doubt), is(good)) {
                (true, _) => Verdict::Undecided,
                (_, true) => Verdict::Good,
                _ => Verdict::Bad,
            };
        }
    }
}

/// x and y of a point in 65 bytes.
pub(super) fn coordinates(point: &[u8; 65]) -> ([u64; 4], [u64; 4]) {
    let (halves, _) = point[1..].as_chunks::<32>();
    (words(&halves[0]), words(&halves[1]))
}

/// Whether this is a number that a signature may be made of.
fn in_range<C: InLanes>(number: &[u64; 4]) -> bool {
    *number != [0; 4] && below(number, &C::ORDER)
}

fn below(a: &[u64; 4], b: &[u64; 4]) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// A verdict for each item. At most [`GROUP`] of them, all of this curve.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn verify<C: InLanes>(items: &[Item<'_>], verdicts: &mut [Verdict]) {
    assert!(items.len() <= GROUP && items.len() == verdicts.len());
    let base = C::base();
    let vectors = items.len().div_ceil(8);
    let mut lanes = [const { Lanes::filler::<C>() }; VECTORS];
    let mut inverses = [Scalar::constant(&[0; 5]); VECTORS];
    for (i, items) in items.chunks(8).enumerate() {
        lanes[i] = Lanes::of::<C>(items);
        inverses[i] = Scalar(lanes[i].s.limbs());
    }
    invert_all::<C::Order>(&mut inverses[..vectors]);
    // SAFETY: this function is compiled for the same features, so its caller has looked.
    let mut room = unsafe { C::room() };
    for (i, verdicts) in verdicts.chunks_mut(8).enumerate() {
        let lanes = &lanes[i];
        // The Montgomery product takes z as it is, though it may be above n.
        let job = Job {
            x: lanes.x.limbs(),
            y: lanes.y.limbs(),
            u1: Scalar(lanes.z.limbs()).montgomery::<C::Order>(&inverses[i]),
            u2: Scalar(lanes.r.limbs()).montgomery::<C::Order>(&inverses[i]),
            r: lanes.r.limbs(),
        };
        // SAFETY: as above.
        lanes.settle(unsafe { C::run(&job, base, &mut room) }, verdicts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{k256::K256, p256::P256};

    fn numbers_in_range<C: InLanes>() {
        let [low, rest @ ..] = C::ORDER;
        let beside = |low: u64| [low, rest[0], rest[1], rest[2]];
        for good in [ONE, [0, 0, 0, 1], C::HALF_ORDER, beside(low - 1)] {
            assert!(in_range::<C>(&good), "{good:x?}");
        }
        for bad in [[0; 4], C::ORDER, beside(low + 1), [u64::MAX; 4]] {
            assert!(!in_range::<C>(&bad), "{bad:x?}");
        }
    }

    #[test]
    fn zero_and_the_order_are_no_numbers_of_a_signature() {
        numbers_in_range::<K256>();
        numbers_in_range::<P256>();
    }

    /// One lane for each way in which the four bits can fall.
    #[test]
    fn every_outcome_has_its_verdict() {
        for (small_r, exceptional) in [(0, 0), (0, 0xff), (0xff, 0), (0xff, 0xff)] {
            let lanes = Lanes { valid: 0b1100, small_r, ..Lanes::filler::<K256>() };
            let mut verdicts = [Verdict::Undecided; 4];
            lanes.settle(Outcome { equal: 0b1010, exceptional }, &mut verdicts);
            let doubt = |otherwise| if exceptional == 0 { otherwise } else { Verdict::Undecided };
            let unequal = if small_r == 0 { Verdict::Bad } else { Verdict::Undecided };
            let expected = [Verdict::Bad, Verdict::Bad, doubt(unequal), doubt(Verdict::Good)];
            assert_eq!(verdicts, expected, "{small_r:x} {exceptional:x}");
        }
    }
}
