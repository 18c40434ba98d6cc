//! Arithmetic mod n, the order of the group, in eight lanes: five limbs of 52 bits.
//!
//! * The Montgomery product ab / 2^260, value < 2^257 for a, b < 2^258 (ab / 2^260 + n).
//! * The inverses of all lanes of up to [`VECTORS`] vectors for the price of one
//!   ([`super::invert`]): Montgomery's trick down the vectors, then across the lanes.
//! * The split k = k1 + k2 lambda (mod n) into halves, lambda a cube root of one. Quotients come from
//!   the columns of weight 2^260 and more, an error < 2^-90 of their unit; the halves follow by exact
//!   arithmetic mod 2^156, so their size depends on that error alone, not on k < n.

use std::arch::x86_64::*;

use super::{constants::*, invert::invert, vector::*};

/// Vectors that are inverted together at most.
pub(super) const VECTORS: usize = 8;

/// Eight scalars: limbs 0 to 3 dirty, limb 4 exact; value < 2^258.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Scalar(pub(super) [V; 5]);

impl Scalar {
    /// The same number in every lane.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn constant(k: &[u64; 5]) -> Scalar {
        Scalar([splat(k[0]), splat(k[1]), splat(k[2]), splat(k[3]), splat(k[4])])
    }

    /// `self` * `o` / 2^260 mod n, value < 2^257.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn montgomery(&self, o: &Scalar) -> Scalar {
        assert_below(&[self.0[4], o.0[4]], 1 << 50);
        let mut c = multiply_columns(&[zero(); 10], &self.0, &o.0);
        let n0 = splat(N0INV52);
        for i in 0..5 {
            let q = lo(zero(), c[i], n0);
            for j in 0..5 {
                c[i + j] = lo(c[i + j], q, splat(N52[j]));
                c[i + j + 1] = hi(c[i + j + 1], q, splat(N52[j]));
            }
            // The low 52 bits of column i are zero now.
            c[i + 1] = add(c[i + 1], shr::<52>(c[i]));
        }
        for k in 5..9 {
            c[k + 1] = add(c[k + 1], shr::<52>(c[k]));
        }
        assert_below(&c[9..], 1 << 49);
        Scalar([c[5], c[6], c[7], c[8], c[9]])
    }

    /// `self` + k for `self` < 2^257, k < n.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn plus_constant(&self, k: &[u64; 5]) -> Scalar {
        let mut l = self.0;
        for i in 0..4 {
            l[i] = add(and(l[i], splat(M52)), splat(k[i]));
        }
        l[4] = add(l[4], splat(k[4]));
        for i in 0..4 {
            l[i + 1] = add(l[i + 1], shr::<52>(l[i]));
        }
        assert_below(&l[4..], 1 << 50);
        Scalar(l)
    }

    /// Lane i takes what lane i + L (mod 8) held.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn rotate<const L: i32>(&self) -> Scalar {
        Scalar(self.0.map(|limb| _mm512_alignr_epi64::<L>(limb, limb)))
    }
}

/// Replaces x by 2^260 / x mod n in every lane of at most [`VECTORS`] vectors. No x may be zero mod n.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn invert_all(v: &mut [Scalar]) {
    let Some(first) = v.first() else { return };
    // prefix[i]: the product of vectors 0 to i.
    let mut prefix = [*first; VECTORS];
    for i in 1..v.len() {
        prefix[i] = prefix[i - 1].montgomery(&v[i]);
    }
    let all = prefix[v.len() - 1];
    // The product of all lanes, and of the other seven.
    let r1 = all.rotate::<1>();
    let p2 = all.montgomery(&r1);
    let r2 = p2.rotate::<2>();
    let p4 = p2.montgomery(&r2);
    let r4 = p4.rotate::<4>();
    let total = p4.montgomery(&r4);
    let others = r1.montgomery(&r2).montgomery(&r4);
    let lane0 = |limb: V| _mm_cvtsi128_si64(_mm512_castsi512_si128(limb)) as u64;
    let [t0, t1, t2, t3, t4] = total.0;
    let inverse = invert(&[lane0(t0), lane0(t1), lane0(t2), lane0(t3), lane0(t4)]);
    let scaled = Scalar::constant(&inverse).montgomery(&Scalar::constant(&R2_N));
    let mut rest = others.montgomery(&scaled);
    for i in (1..v.len()).rev() {
        let one = rest.montgomery(&prefix[i - 1]);
        rest = rest.montgomery(&v[i]);
        v[i] = one;
    }
    v[0] = rest;
}

/// Two halves of a scalar, three exact limbs each.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Halves(pub(super) [V; 3], pub(super) [V; 3]);

/// k = k1 + k2 lambda mod n, |k1|, |k2| < 2^128, as two's complements mod 2^156.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn split(k: &Scalar) -> Halves {
    residue(k, &quotient(k, &G1, None), &quotient(k, &G2, None))
}

/// k = k1 + k2 lambda mod n with *odd* k1, k2, |k1|, |k2| < 2^129 (the quotients take the parity that
/// makes them so), each recoded as K = (k + 2^130 - 1) / 2, 0 <= K < 2^130: then k is the sum of
/// (2 K_j - 1) 2^j over the bits of K, and every window of bits of K is an odd signed digit.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn split_odd(k: &Scalar) -> Halves {
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
