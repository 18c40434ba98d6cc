//! Arithmetic modulo any odd m of 256 bits in eight lanes: five limbs of 52 bits. The orders of both
//! groups are such, and for an inversion the field of P-256.
//!
//! * The Montgomery product ab / 2^260, value < 2^257 for a, b < 2^258 (ab / 2^260 + m).
//! * The inverses of all lanes of up to [`VECTORS`] vectors for the price of one
//!   ([`super::invert`]): Montgomery's trick down the vectors, then across the lanes.

use std::arch::x86_64::*;

use super::{
    invert::{Limbs62, invert},
    vector::*,
};

/// A modulus: odd, of 256 bits.
pub(super) trait Modulus {
    /// Itself in limbs of 52 bits.
    const LIMBS: [u64; 5];
    /// Minus its inverse mod 2^52.
    const MINUS_INVERSE: u64;
    /// 2^520 modulo it.
    const R2: [u64; 5];
    /// Itself in limbs of 62 bits, and its inverse mod 2^62.
    const FOR_INVERSION: Limbs62;
}

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

    /// `self` * `o` / 2^260 mod m, value < 2^257.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(super) fn montgomery<M: Modulus>(&self, o: &Scalar) -> Scalar {
        assert_below(&[self.0[4], o.0[4]], 1 << 50);
        let mut c = multiply_columns(&[zero(); 10], &self.0, &o.0);
        let n0 = splat(M::MINUS_INVERSE);
        for i in 0..5 {
            let q = lo(zero(), c[i], n0);
            for j in 0..5 {
                c[i + j] = lo(c[i + j], q, splat(M::LIMBS[j]));
                c[i + j + 1] = hi(c[i + j + 1], q, splat(M::LIMBS[j]));
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

    /// `self` + k for `self` < 2^257, k of 256 bits.
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

/// Replaces x by 2^260 / x mod m in every lane of at most [`VECTORS`] vectors. If any x is zero mod m,
/// all become zero.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(super) fn invert_all<M: Modulus>(v: &mut [Scalar]) {
    let Some(first) = v.first() else { return };
    // prefix[i]: the product of vectors 0 to i.
    let mut prefix = [*first; VECTORS];
    for i in 1..v.len() {
        prefix[i] = prefix[i - 1].montgomery::<M>(&v[i]);
    }
    let all = prefix[v.len() - 1];
    // The product of all lanes, and of the other seven.
    let r1 = all.rotate::<1>();
    let p2 = all.montgomery::<M>(&r1);
    let r2 = p2.rotate::<2>();
    let p4 = p2.montgomery::<M>(&r2);
    let r4 = p4.rotate::<4>();
    let total = p4.montgomery::<M>(&r4);
    let others = r1.montgomery::<M>(&r2).montgomery::<M>(&r4);
    let lane0 = |limb: V| _mm_cvtsi128_si64(_mm512_castsi512_si128(limb)) as u64;
    let [t0, t1, t2, t3, t4] = total.0;
    let inverse = invert(&M::FOR_INVERSION, &[t0, t1, t2, t3, t4].map(lane0));
    let scaled = Scalar::constant(&inverse).montgomery::<M>(&Scalar::constant(&M::R2));
    let mut rest = others.montgomery::<M>(&scaled);
    for i in (1..v.len()).rev() {
        let one = rest.montgomery::<M>(&prefix[i - 1]);
        rest = rest.montgomery::<M>(&v[i]);
        v[i] = one;
    }
    v[0] = rest;
}
