//! The digits of u2 = k1 + k2 lambda, eight lanes at a time: 43 windows of three bits of both halves
//! together, each an Eisenstein integer mod 8 replaced by the smallest one congruent to it, with a carry
//! of 0 or 1 for each half into the next window. Digits and carries come from two tables of 64 bytes,
//! `vpermb`.

use std::arch::x86_64::*;

use super::{
    super::{digits::bits, vector::*},
    eisenstein::{LUT, LUT_CARRY},
    halves::Halves,
};

/// Bits of a window of the halves of u2.
pub(crate) const WINDOW: u32 = 3;
/// 43 * 3 = 129 bits: the halves, two's complements, are below 2^128 in magnitude.
pub(crate) const WINDOWS: usize = 43;

/// The digits of one scalar in each lane as bytes of [`LUT`], lowest window first.
#[repr(C, align(64))]
pub(crate) struct Digits(pub(crate) [V; WINDOWS]);

impl Digits {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn new() -> Self {
        Self([zero(); WINDOWS])
    }

    /// Finds the digits of k1 + k2 lambda. Returns the lanes in which a carry is left over at the top,
    /// whose digits are void: the halves were at the far end of their range.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fill(&mut self, halves: &Halves) -> __mmask8 {
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
