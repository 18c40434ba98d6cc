//! Odd signed digits, eight lanes at a time.
//!
//! An odd k, |k| < 2^w, is recoded as K = (k + 2^w - 1) / 2, 0 <= K < 2^w: k is the sum of (2 K_j - 1) 2^j
//! over the bits of K, so every window of bits of K is an odd digit of k, and never zero: nothing need
//! be left out of a sum.

use std::arch::x86_64::*;

use super::vector::*;

/// `count` bits from bit `at` on, with junk above them.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn bits(k: &[V], at: u32, count: u32) -> V {
    let limb = (at / 52) as usize;
    let low = at % 52;
    let mut v = _mm512_srl_epi64(k[limb], _mm_cvtsi32_si128(low as i32));
    if low + count > 52 {
        v = or(v, _mm512_sll_epi64(k[limb + 1], _mm_cvtsi32_si128((52 - low) as i32)));
    }
    v
}

/// The odd digit in a window of a recoded number: 2 B - (2^count - 1) for the bits B. Gives i for a
/// magnitude of 2 i + 1, i < 2^(count - 1), and the lanes in which the digit is negative.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn odd_digit(k: &[V], at: u32, count: u32) -> (V, __mmask8) {
    let v = bits(k, at, count);
    // Top bit set: positive, i = B - 2^(count-1). Clear: negative, i = 2^(count-1) - 1 - B.
    let top = splat(1 << (count - 1));
    let low = splat((1 << (count - 1)) - 1);
    let negative = _mm512_testn_epi64_mask(v, top);
    let index = and(_mm512_mask_xor_epi64(v, negative, v, low), low);
    (index, negative)
}
