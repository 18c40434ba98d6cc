//! The table of G that all signatures share: the odd multiples 1, 3, ..., 8191 of G as (-x, y), in
//! Montgomery form.
//!
//! Four words of 64 bits a coordinate, affine: 4,096 entries, 256 KiB, so that it stays in the second
//! level of cache. The crate `p256` computes it once a process, in some milliseconds.

use std::{arch::x86_64::*, sync::OnceLock};

use p256::{AffinePoint, ProjectivePoint, elliptic_curve::sec1::ToSec1Point};

use super::{
    super::{batch::coordinates, vector::*},
    field::*,
};

const ENTRIES: usize = 1 << (BaseTable::WINDOW - 1);

pub(crate) struct BaseTable {
    /// -x and y of each multiple.
    points: Box<[Entry; ENTRIES]>,
}

/// -x, y; does not straddle lines of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Entry([u64; 8]);

impl BaseTable {
    /// Bits of a window.
    pub(crate) const WINDOW: u32 = 13;
    /// Twenty windows: more bits than the 258 of u1 made odd.
    pub(crate) const BITS: u32 = 260;

    /// The table, made at the first call. The CPU has the features that [`super::super::kernel`] looks
    /// for.
    pub(crate) fn get() -> &'static Self {
        static TABLE: OnceLock<BaseTable> = OnceLock::new();
        TABLE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let two = ProjectivePoint::GENERATOR + ProjectivePoint::GENERATOR;
        let mut plain = vec![Entry([0; 8]); ENTRIES];
        let mut point = ProjectivePoint::GENERATOR;
        for entry in &mut plain {
            let affine: AffinePoint = point.to_affine();
            let sec1 = affine.to_sec1_point(false);
            let bytes = sec1.as_bytes().try_into().expect("not infinity, so 65 bytes");
            let (x, y) = coordinates(bytes);
            entry.0[..4].copy_from_slice(&x);
            entry.0[4..].copy_from_slice(&y);
            point += two;
        }
        for entries in plain.as_chunks_mut::<8>().0 {
            // SAFETY: `kernel` asks for the table only where it has found the features.
            unsafe { to_montgomery(entries) };
        }
        let points = plain.into_boxed_slice();
        Self { points: points.try_into().unwrap_or_else(|_| unreachable!("made with this length")) }
    }

    /// -x and y of entry `index`, in each lane its own.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn look_up(&self, index: V) -> (Field, Field) {
        assert_below(&[index], ENTRIES as u64);
        let points = self.points.as_ptr().cast::<i64>();
        let place = shl::<3>(index);
        let mut x = [zero(); 4];
        let mut y = [zero(); 4];
        for i in 0..4 {
            // SAFETY: index < ENTRIES, as `odd_digit` masks it with ENTRIES - 1: the words 8 index + i
            // and 8 index + 4 + i lie in `points`.
            unsafe {
                x[i] = _mm512_i64gather_epi64::<8>(place, points.add(i));
                y[i] = _mm512_i64gather_epi64::<8>(place, points.add(4 + i));
            }
        }
        (Field(words_to_limbs(&x)), Field(words_to_limbs(&y)))
    }
}

/// x, y to -x, y in Montgomery form, at most p each.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn to_montgomery(entries: &mut [Entry; 8]) {
    let mut coordinate = [[0; 8]; 8];
    for word in 0..8 {
        for (lane, entry) in entries.iter().enumerate() {
            coordinate[word][lane] = entry.0[word];
        }
    }
    // SAFETY: a row is 64 bytes, and the load asks for no alignment.
    let row = |i: usize| unsafe { _mm512_loadu_epi64(coordinate[i].as_ptr().cast()) };
    let x = words_to_limbs(&[row(0), row(1), row(2), row(3)]);
    let y = words_to_limbs(&[row(4), row(5), row(6), row(7)]);
    let minus_x = Loose::multiple_of_p::<1>().sub(&Field(x).clean()).carry();
    let halves = [Field::reduced_from_plain(&minus_x.0), Field::reduced_from_plain(&y)];
    for (half, limbs) in halves.iter().enumerate() {
        for (i, word) in limbs_to_words(&limbs.0).into_iter().enumerate() {
            let mut lanes = [0; 8];
            // SAFETY: 64 bytes, and the store asks for no alignment.
            unsafe { _mm512_storeu_epi64(lanes.as_mut_ptr(), word) };
            for (entry, lane) in entries.iter_mut().zip(lanes) {
                entry.0[4 * half + i] = lane as u64;
            }
        }
    }
}

/// Five exact limbs of a number below 2^256 to four words.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn limbs_to_words(l: &[V; 5]) -> [V; 4] {
    assert_below(&l[..4], 1 << 52);
    assert_below(&l[4..], 1 << 48);
    [
        or(l[0], shl::<52>(l[1])),
        or(shr::<12>(l[1]), shl::<40>(l[2])),
        or(shr::<24>(l[2]), shl::<28>(l[3])),
        or(shr::<36>(l[3]), shl::<16>(l[4])),
    ]
}
