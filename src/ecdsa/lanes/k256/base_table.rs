//! The table of G that all signatures share: the odd multiples 1, 3, ..., 8191 of G as (-x, y), and
//! -beta x of each, which belongs to the same multiple of lambda G.
//!
//! Four words of 64 bits a coordinate, affine: 4,096 entries, 384 KiB, so that it stays in the second
//! level of cache. libsecp256k1 computes it once a process, in some tens of milliseconds.

use std::{arch::x86_64::*, sync::OnceLock};

use secp256k1::{PublicKey, SecretKey};

use super::{
    super::{batch, vector::*},
    constants::P64,
    field::Field,
};

const ENTRIES: usize = 1 << (BaseTable::WINDOW - 1);

pub(crate) struct BaseTable {
    /// -x and y of each multiple.
    points: Box<[Aligned<8>; ENTRIES]>,
    /// -beta x of each.
    beta: Box<[Aligned<4>; ENTRIES]>,
}

/// Words that do not straddle lines of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Aligned<const WORDS: usize>([u64; WORDS]);

fn coordinates(point: &PublicKey) -> ([u64; 4], [u64; 4]) {
    batch::coordinates(&point.serialize_uncompressed())
}

/// p - x for 0 < x < p. (No point of the curve has x = 0: 7 is not a square mod p.)
fn negated(x: &[u64; 4]) -> [u64; 4] {
    let mut out = [0; 4];
    let mut borrow = false;
    for i in 0..4 {
        let (difference, under) = P64[i].overflowing_sub(x[i]);
        let (difference, under_again) = difference.overflowing_sub(u64::from(borrow));
        out[i] = difference;
        borrow = under || under_again;
    }
    out
}

impl BaseTable {
    /// Bits of a window: ten of them in the 130 of a half.
    pub(crate) const WINDOW: u32 = 13;
    /// Bits of a half of u1.
    pub(crate) const BITS: u32 = 130;

    /// The table, made at the first call.
    pub(crate) fn get() -> &'static Self {
        static TABLE: OnceLock<BaseTable> = OnceLock::new();
        TABLE.get_or_init(Self::make)
    }

    fn make() -> Self {
        let mut points = vec![Aligned([0; 8]); ENTRIES];
        for (entry, point) in points.iter_mut().zip(odd_multiples(&small(1))) {
            let (x, y) = coordinates(&point);
            entry.0[..4].copy_from_slice(&negated(&x));
            entry.0[4..].copy_from_slice(&y);
        }
        let mut beta = vec![Aligned([0; 4]); ENTRIES];
        for (entry, point) in beta.iter_mut().zip(odd_multiples(&LAMBDA)) {
            entry.0 = negated(&coordinates(&point).0);
        }
        Self { points: boxed(points), beta: boxed(beta) }
    }

    /// -x (or -beta x, with `lambda`) and y of entry `index`, in each lane its own.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn look_up(&self, lambda: bool, index: V) -> (Field, Field) {
        assert_below(&[index], ENTRIES as u64);
        let mut x = [zero(); 4];
        let mut y = [zero(); 4];
        let points = self.points.as_ptr().cast::<i64>();
        let place = shl::<3>(index);
        let (xs, x_place) = if lambda {
            (self.beta.as_ptr().cast::<i64>(), shl::<2>(index))
        } else {
            (points, place)
        };
        for i in 0..4 {
            // SAFETY: index < ENTRIES, as `odd_digit` masks it with ENTRIES - 1: the word 8 index + 4 + i
            // lies in `points`, and the word 8 index + i there, or 4 index + i in `beta`.
            unsafe {
                y[i] = _mm512_i64gather_epi64::<8>(place, points.add(4 + i));
                x[i] = _mm512_i64gather_epi64::<8>(x_place, xs.add(i));
            }
        }
        (Field(words_to_limbs(&x)), Field(words_to_limbs(&y)))
    }
}

fn boxed<T: Clone>(entries: Vec<T>) -> Box<[T; ENTRIES]> {
    entries.into_boxed_slice().try_into().unwrap_or_else(|_| unreachable!("made with this length"))
}

/// 1, 3, 5, ... times the point that is `scalar` times G.
fn odd_multiples(scalar: &[u8; 32]) -> impl Iterator<Item = PublicKey> {
    let secret = SecretKey::from_secret_bytes(*scalar).expect("below the order and not zero");
    let one = PublicKey::from_secret_key(&secret);
    // The sum of two points is no point only if they are opposite.
    let two = one.combine(&one).expect("the order is odd");
    std::iter::successors(Some(one), move |last| {
        Some(last.combine(&two).expect("small multiples are not opposite"))
    })
}

fn small(number: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[31] = number;
    bytes
}

/// lambda (x, y) = (beta x, y).
const LAMBDA: [u8; 32] = [
    0x53, 0x63, 0xad, 0x4c, 0xc0, 0x5c, 0x30, 0xe0, 0xa5, 0x26, 0x1c, 0x02, 0x88, 0x12, 0x64, 0x5a,
    0x12, 0x2e, 0x22, 0xea, 0x20, 0x81, 0x66, 0x78, 0xdf, 0x02, 0x96, 0x7c, 0x1b, 0x23, 0xbd, 0x72,
];
