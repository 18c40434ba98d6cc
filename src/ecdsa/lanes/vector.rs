//! Eight lanes of 64 bits, and the operations on them that everything here is made of.
//!
//! A number is an array of such vectors, one for each digit ("limb") of 52 bits, lowest first: eight
//! numbers lie side by side. IFMA multiplies the low 52 bits of each lane and ignores those above, so
//! bits that have been carried upwards need not be masked off before a product. A limb with such
//! junk above bit 52 is called *dirty*, one without it *exact*.
//!
//! Bounds: the arithmetic wraps silently at 64 bits; its callers state why it does not, and in builds
//! with debug assertions [`assert_below`] and [`assert_fits`] check each lane of what they state.

use std::arch::x86_64::*;

/// Eight lanes of 64 bits.
pub(super) type V = __m512i;

pub(super) const M52: u64 = (1 << 52) - 1;
pub(super) const M48: u64 = (1 << 48) - 1;

/// The same number in every lane.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn splat(x: u64) -> V {
    _mm512_set1_epi64(x as i64)
}

/// `acc` plus the low 52 bits of the product of the low 52 bits of `a` and `b`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn lo(acc: V, a: V, b: V) -> V {
    _mm512_madd52lo_epu64(acc, a, b)
}

/// `acc` plus the high 52 bits of that product.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn hi(acc: V, a: V, b: V) -> V {
    _mm512_madd52hi_epu64(acc, a, b)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn add(a: V, b: V) -> V {
    _mm512_add_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn sub(a: V, b: V) -> V {
    _mm512_sub_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn and(a: V, b: V) -> V {
    _mm512_and_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn or(a: V, b: V) -> V {
    _mm512_or_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn xor(a: V, b: V) -> V {
    _mm512_xor_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn shr<const S: u32>(a: V) -> V {
    _mm512_srli_epi64::<S>(a)
}

/// As [`shr`], the sign coming in from above.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn sar<const S: u32>(a: V) -> V {
    _mm512_srai_epi64::<S>(a)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn shl<const S: u32>(a: V) -> V {
    _mm512_slli_epi64::<S>(a)
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn zero() -> V {
    _mm512_setzero_si512()
}

/// Four words of 64 bits to five limbs: limbs 0 to 3 dirty, limb 4 exact and < 2^48.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn words_to_limbs(w: &[V; 4]) -> [V; 5] {
    [
        w[0],
        _mm512_shrdi_epi64::<52>(w[0], w[1]),
        _mm512_shrdi_epi64::<40>(w[1], w[2]),
        _mm512_shrdi_epi64::<28>(w[2], w[3]),
        shr::<16>(w[3]),
    ]
}

/// `acc` + ab in columns, column k of weight 2^(52k). Columns gain at most 9 * (2^52 - 1).
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn multiply_columns(acc: &[V; 10], a: &[V; 5], b: &[V; 5]) -> [V; 10] {
    let mut c = *acc;
    for i in 0..5 {
        for j in 0..5 {
            c[i + j] = lo(c[i + j], a[i], b[j]);
            c[i + j + 1] = hi(c[i + j + 1], a[i], b[j]);
        }
    }
    c
}

/// In a checking build: every lane of every vector is below `limit`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn assert_below(values: &[V], limit: u64) {
    if cfg!(debug_assertions) {
        for value in values {
            let above = _mm512_cmpge_epu64_mask(*value, splat(limit));
            assert!(above == 0, "a limb reaches {limit:#x} in lanes {above:#010b}");
        }
    }
}

/// In a checking build: every lane of every vector, read as signed, lies in [-limit, limit).
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn assert_within(values: &[V], limit: u64) {
    if cfg!(debug_assertions) {
        for value in values {
            let above = _mm512_cmpge_epu64_mask(add(*value, splat(limit)), splat(2 * limit));
            assert!(above == 0, "a limb passes +-{limit:#x} in lanes {above:#010b}");
        }
    }
}

/// In a checking build: no lane of `a` is below that of `b`, so that `a - b` does not wrap.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn assert_fits(a: V, b: V) {
    if cfg!(debug_assertions) {
        let under = _mm512_cmplt_epu64_mask(a, b);
        assert!(under == 0, "a difference of limbs is negative in lanes {under:#010b}");
    }
}
