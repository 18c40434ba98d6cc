//! The split k = k1 + k2 lambda (mod n) of a scalar into halves, lambda a cube root of one.
//!
//! Quotients come from the columns of weight 2^260 and more, an error < 2^-90 of their unit; the halves
//! follow by exact arithmetic mod 2^156, so their size depends on that error alone, not on k < n.

use super::{
    super::{scalar::Scalar, vector::*},
    constants::*,
};

/// Two halves of a scalar, three exact limbs each.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Halves(pub(crate) [V; 3], pub(crate) [V; 3]);

/// k = k1 + k2 lambda mod n, |k1|, |k2| < 2^128, as two's complements mod 2^156.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(crate) fn split(k: &Scalar) -> Halves {
    residue(k, &quotient(k, &G1, None), &quotient(k, &G2, None))
}

/// k = k1 + k2 lambda mod n with *odd* k1, k2, |k1|, |k2| < 2^129 (the quotients take the parity that
/// makes them so), each recoded as K = (k + 2^130 - 1) / 2, 0 <= K < 2^130: then k is the sum of
/// (2 K_j - 1) 2^j over the bits of K, and every window of bits of K is an odd signed digit.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(crate) fn split_odd(k: &Scalar) -> Halves {
    let k0 = k.0[0];
    // k1 = k + c1 and k2 = c1 + c2 (mod 2), as a1, b1, b2 are odd and a2 is even.
    let c1 = quotient(k, &G1, Some(xor(k0, splat(1))));
    let c2 = quotient(k, &G2, Some(k0));
    let Halves(k1, k2) = residue(k, &c1, &c2);
    Halves(recode_odd(&k1), recode_odd(&k2))
}

/// k1 = k - c1 a1 - c2 a2, k2 = -c1 b1 - c2 b2, mod 2^156.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn residue(k: &Scalar, c1: &[V; 3], c2: &[V; 3]) -> Halves {
    let m = splat(M52);
    let low = [and(k.0[0], m), and(k.0[1], m), and(k.0[2], m)];
    let k1 = multiply_low(&multiply_low(&low, c1, &NA1), c2, &NA2);
    let k2 = multiply_low(&multiply_low(&[zero(); 3], c1, &MB1), c2, &NA1);
    Halves(carry_low(&k1), carry_low(&k2))
}

/// `acc` + ab mod 2^156, not carried. Limbs gain at most 5 * 2^52.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn multiply_low(acc: &[V; 3], a: &[V; 3], b: &[u64; 3]) -> [V; 3] {
    let mut c = *acc;
    for i in 0..3 {
        for j in 0..3 - i {
            c[i + j] = lo(c[i + j], a[i], splat(b[j]));
            if i + j < 2 {
                c[i + j + 1] = hi(c[i + j + 1], a[i], splat(b[j]));
            }
        }
    }
    c
}

/// Exact limbs of 52 bits, mod 2^156.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn carry_low(k: &[V; 3]) -> [V; 3] {
    let m = splat(M52);
    let b = add(k[1], shr::<52>(k[0]));
    let c = add(k[2], shr::<52>(b));
    [and(k[0], m), and(b, m), and(c, m)]
}

/// k g / 2^364 rounded to the nearest integer (give or take a hair), or to an integer with the parity
/// of bit 0 of `parity`, at a distance of at most 1 (and a hair).
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn quotient(k: &Scalar, g: &[u64; 5], parity: Option<V>) -> [V; 3] {
    let mut c = [zero(); 10];
    for i in 0..5 {
        for j in 0..5 {
            // Columns 0 to 4 weigh less than 2^-90 of the result's unit.
            if i + j >= 5 {
                c[i + j] = lo(c[i + j], k.0[i], splat(g[j]));
            }
            if i + j >= 4 {
                c[i + j + 1] = hi(c[i + j + 1], k.0[i], splat(g[j]));
            }
        }
    }
    c[6] = add(c[6], shr::<52>(c[5]));
    if parity.is_none() {
        c[6] = add(c[6], splat(1 << 51));
    }
    c[7] = add(c[7], shr::<52>(c[6]));
    if let Some(parity) = parity {
        c[7] = add(c[7], and(xor(c[7], parity), splat(1)));
    }
    c[8] = add(c[8], shr::<52>(c[7]));
    c[9] = add(c[9], shr::<52>(c[8]));
    [c[7], c[8], c[9]]
}

/// (k + 2^130 - 1) / 2 for odd k in two's complement mod 2^156.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn recode_odd(k: &[V; 3]) -> [V; 3] {
    let m = splat(M52);
    let a = add(k[0], m);
    let b = add(add(k[1], m), shr::<52>(a));
    let c = add(add(k[2], splat((1 << 26) - 1)), shr::<52>(b));
    let (a, b, c) = (and(a, m), and(b, m), and(c, m));
    let one = splat(1);
    assert_below(&[c], 1 << 27);
    [or(shr::<1>(a), shl::<51>(and(b, one))), or(shr::<1>(b), shl::<51>(and(c, one))), shr::<1>(c)]
}
