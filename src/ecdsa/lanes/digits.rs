//! The digits of the scalars, eight lanes at a time.
//!
//! * u2 = k1 + k2 lambda: 43 windows of three bits of both halves together, each an Eisenstein integer
//!   mod 8 replaced by the smallest one congruent to it, with a carry of 0 or 1 for each half into
//!   the next window. Digits and carries come from two tables of 64 bytes, `vpermb`.
//! * u1: the odd recoding of [`super::scalar::split_odd`], whose windows of 13 bits are odd digits and
//!   so never zero.

use std::arch::x86_64::*;

use super::{
    eisenstein::{LUT, LUT_CARRY},
    scalar::Halves,
    vector::*,
};

/// Bits of a window of the halves of u2.
pub(super) const WINDOW: u32 = 3;
/// 43 * 3 = 129 bits: the halves, two's complements, are below 2^128 in magnitude.
pub(super) const WINDOWS: usize = 43;

/// The digits of one scalar in each lane as bytes of [`LUT`], lowest window first.
#[repr(C, align(64))]
pub(super) struct Digits(pub(super) [V; WINDOWS]);

impl Digits {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn new() -> Self {
        Self([zero(); WINDOWS])
    }

    /// Finds the digits of k1 + k2 lambda. Returns the lanes in which a carry is left over at the top,
    /// whose digits are void: the halves were at the far end of their range.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn fill(&mut self, halves: &Halves) -> __mmask8 {
        // SAFETY: both tables are 64 bytes, and the load asks for no alignment.
        let (digits, carries) = unsafe {
            (_mm512_loadu_epi8(LUT.as_ptr().cast()), _mm512_loadu_epi8(LUT_CARRY.as_ptr().cast()))
        };
        let seven = splat(7);
        // The lowest byte of each lane; the others are zero.
        let low_byte = 0x0101_0101_0101_0101;
        let (mut c1, mut c2) = (zero(), zero());
        for (i, digit) in self.0.iter_mut().enumerate() {
            let at = WINDOW * i as u32;
            let w1 = add(and(bits(&halves.0, at, WINDOW), seven), c1);
            let w2 = add(and(bits(&halves.1, at, WINDOW), seven), c2);
            let index = or(and(w1, seven), shl::<3>(and(w2, seven)));
            *digit = _mm512_maskz_permutexvar_epi8(low_byte, index, digits);
            let carry = _mm512_maskz_permutexvar_epi8(low_byte, index, carries);
            c1 = add(shr::<3>(w1), and(carry, splat(1)));
            c2 = add(shr::<3>(w2), shr::<1>(carry));
            assert_below(&[c1, c2], 2);
        }
        // The carry must cancel the sign: bits 129 and up of a negative half are all ones.
        let s1 = shr::<51>(halves.0[2]);
        let s2 = shr::<51>(halves.1[2]);
        _mm512_cmpneq_epi64_mask(c1, s1) | _mm512_cmpneq_epi64_mask(c2, s2)
    }
}

/// `count` bits from bit `at` on, with junk above them.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn bits(k: &[V; 3], at: u32, count: u32) -> V {
    let limb = (at / 52) as usize;
    let low = at % 52;
    let mut v = _mm512_srl_epi64(k[limb], _mm_cvtsi32_si128(low as i32));
    if low + count > 52 {
        v = or(v, _mm512_sll_epi64(k[limb + 1], _mm_cvtsi32_si128((52 - low) as i32)));
    }
    v
}

/// The odd digit in a window of a recoded half: 2 B - (2^count - 1) for the bits B. Gives i for a
/// magnitude of 2 i + 1, i < 2^(count - 1), and the lanes in which the digit is negative.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn odd_digit(k: &[V; 3], at: u32, count: u32) -> (V, __mmask8) {
    let v = bits(k, at, count);
    // Top bit set: positive, i = B - 2^(count-1). Clear: negative, i = 2^(count-1) - 1 - B.
    let top = splat(1 << (count - 1));
    let low = splat((1 << (count - 1)) - 1);
    let negative = _mm512_testn_epi64_mask(v, top);
    let index = and(_mm512_mask_xor_epi64(v, negative, v, low), low);
    (index, negative)
}
