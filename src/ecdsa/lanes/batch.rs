//! From signatures to lanes and back: ranges, u1 = z / s, u2 = r / s, and a verdict for each lane.
//!
//! A signature (r, s) of the digest z under the key Q is good if x(u1 G + u2 Q) = r mod n. What lies out
//! of range, and the lanes beyond the last signature, become harmless filler (z = 0, r = s = 1, Q = G)
//! and false.
//!
//! Left to libsecp256k1, lane by lane: the exceptional cases of [`super::point`], and r < p - n that is
//! not x itself, since x may be r + n then (x < p; about 2^-128 of honest signatures).
//!
//! Bounds: at most [`GROUP`] signatures a call; everything lies on the stack, about 40 KiB.

use std::{
    arch::x86_64::_mm512_loadu_epi64,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    base_table::{BaseTable, coordinates, words},
    constants::*,
    field::Field,
    point::{Job, Outcome, Room},
    scalar::{Scalar, VECTORS, invert_all},
    vector::*,
};
use crate::library::{self, Item};

/// Signatures that share one inversion.
pub(crate) const GROUP: usize = 8 * VECTORS;

/// Lanes that libsecp256k1 has verified again.
pub(crate) static RECOMPUTED: AtomicU64 = AtomicU64::new(0);

/// A number of four words in each lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Words([[u64; 8]; 4]);

impl Words {
    const fn filled(number: [u64; 4]) -> Self {
        let [a, b, c, d] = number;
        Self([[a; 8], [b; 8], [c; 8], [d; 8]])
    }

    fn set(&mut self, lane: usize, number: [u64; 4]) {
        for (words, word) in self.0.iter_mut().zip(number) {
            words[lane] = word;
        }
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn limbs(&self) -> [V; 5] {
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
    const FILLER: Self = Self {
        z: Words::filled([0; 4]),
        r: Words::filled(ONE),
        s: Words::filled(ONE),
        x: Words::filled(GX64),
        y: Words::filled(GY64),
        valid: 0,
        small_r: 0,
    };

    /// `items`: at most eight.
    fn of(items: &[Item<'_>]) -> Self {
        let mut lanes = Self::FILLER;
        for (lane, item) in items.iter().enumerate() {
            let (halves, _) = item.signature.as_chunks::<32>();
            let (r, s) = (words(&halves[0]), words(&halves[1]));
            let in_range = |number: &[u64; 4]| *number != [0; 4] && below(number, &N64);
            if !in_range(&r) || !in_range(&s) || below(&NHALF64, &s) {
                continue;
            }
            let (x, y) = coordinates(item.key);
            lanes.z.set(lane, words(&item.digest));
            lanes.r.set(lane, r);
            lanes.s.set(lane, s);
            lanes.x.set(lane, x);
            lanes.y.set(lane, y);
            lanes.valid |= 1 << lane;
            lanes.small_r |= u8::from(below(&r, &P_MINUS_N64)) << lane;
        }
        lanes
    }

    /// The verdicts of `items`, which these lanes were made of.
    fn settle(&self, outcome: Outcome, items: &[Item<'_>], verdicts: &mut [bool]) {
        let accept = self.valid & outcome.equal & !outcome.exceptional;
        let doubt = self.valid & (outcome.exceptional | (self.small_r & !outcome.equal));
        if doubt != 0 {
            RECOMPUTED.fetch_add(u64::from(doubt.count_ones()), Ordering::Relaxed);
        }
        for (lane, (item, verdict)) in items.iter().zip(verdicts).enumerate() {
            let is = |mask: u8| mask >> lane & 1 == 1;
            *verdict = if is(doubt) { library::verify_item(item) } else { is(accept) };
        }
    }
}

fn below(a: &[u64; 4], b: &[u64; 4]) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// A verdict for each item. At most [`GROUP`] of them.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn verify(items: &[Item<'_>], verdicts: &mut [bool]) {
    assert!(items.len() <= GROUP && items.len() == verdicts.len());
    let base = BaseTable::get();
    let vectors = items.len().div_ceil(8);
    let mut lanes = [Lanes::FILLER; VECTORS];
    let mut inverses = [Scalar::constant(&[0; 5]); VECTORS];
    for (i, items) in items.chunks(8).enumerate() {
        lanes[i] = Lanes::of(items);
        inverses[i] = Scalar(lanes[i].s.limbs());
    }
    invert_all(&mut inverses[..vectors]);
    let mut room = Room::new();
    for (i, (items, verdicts)) in items.chunks(8).zip(verdicts.chunks_mut(8)).enumerate() {
        let lanes = &lanes[i];
        // The Montgomery product takes z as it is, though it may be above n.
        let job = Job {
            x: Field(lanes.x.limbs()),
            y: Field(lanes.y.limbs()),
            u1: Scalar(lanes.z.limbs()).montgomery(&inverses[i]),
            u2: Scalar(lanes.r.limbs()).montgomery(&inverses[i]),
            r: Field(lanes.r.limbs()),
        };
        lanes.settle(job.run(base, &mut room), items, verdicts);
    }
}
