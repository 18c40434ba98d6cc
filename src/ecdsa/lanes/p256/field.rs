//! Field arithmetic mod p = 2^256 - 2^224 + 2^192 + 2^96 - 1 in eight lanes: five limbs of 52 bits, in
//! Montgomery form: x is held as x 2^260 mod p.
//!
//! -1/p mod 2^52 is 1, so the multiple of p that clears a column is the column itself, and of the
//! limbs of p + 1 three are not zero: a reduction takes six half products a step.
//!
//! Limbs and columns are *signed*: carries are arithmetic shifts, so a difference needs no room in every
//! limb, only a multiple of p that makes the whole of it positive. Three types keep the discipline:
//!
//! * [`Field`], carried: limbs 0 to 3 dirty, limb 4 exact; the value lies in [0, 2^260). Only a `Field`
//!   may be multiplied.
//! * [`Loose`]: five signed limbs of up to 62 bits. May be added, subtracted, shifted. [`Loose::carry`]
//!   makes it a `Field`; [`Loose::fold`] does, too, and brings the value below 2^256 + 2^233.
//! * [`Columns`]: the ten column sums of one or more products.
//!
//! # Bounds
//!
//! In units of U = 2^256, a field element holds less than 16 U, and p is a little less than one.
//!
//! * The product of a < A U and b < B U is reduced to less than (A B / 16 + 1) U: with A, B <= 15 the
//!   result is below 15.1 U, so a product never outgrows a `Field`. What sums and differences need is
//!   stated where they are made; a checking build checks limb 4 of each `Field`.
//! * Columns of a product are sums of at most nine halves of partial products, < 9 * 2^52 < 2^56; the
//!   largest sum in use, 8 b^2 + m d, is < 81 * 2^52 < 2^59. A reduction adds less than 2^56 to each.
//! * A square needs its limb 4 below 2^51 (a value < 8 U), as it is doubled and must stay one digit.
//! * Folding takes t = the bits from 256 on, 0 <= t < 2^8, as t (2^224 - 2^192 - 2^96 + 1): below 2^232.

use std::arch::x86_64::*;

use super::{super::vector::*, constants::*};

/// A carried number: may be multiplied.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Field(pub(crate) [V; 5]);

/// Signed limbs on their way: may be added, subtracted, shifted.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Loose(pub(crate) [V; 5]);

/// Signed column sums of products; the weight of column k is 2^(52k).
#[derive(Clone, Copy)]
pub(crate) struct Columns(pub(crate) [V; 10]);

impl Columns {
    /// The product ab.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn product(a: &Field, b: &Field) -> Columns {
        Columns([zero(); 10]).plus_product(a, b)
    }

    /// `self` + ab. Each column gains at most 9 * (2^52 - 1).
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn plus_product(&self, a: &Field, b: &Field) -> Columns {
        assert_below(&[a.0[4], b.0[4]], 1 << 52);
        Columns(multiply_columns(&self.0, &a.0, &b.0))
    }

    /// a^2: cross products of limbs 0 to 3 doubled in the columns, those with limb 4 by doubling
    /// limb 4; then the diagonal.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn square(a: &Field) -> Columns {
        let a = &a.0;
        assert_below(&a[4..], 1 << 51);
        let mut c = [zero(); 10];
        for i in 0..4 {
            for j in i + 1..4 {
                c[i + j] = lo(c[i + j], a[i], a[j]);
                c[i + j + 1] = hi(c[i + j + 1], a[i], a[j]);
            }
        }
        for k in 1..7 {
            c[k] = add(c[k], c[k]);
        }
        let a4 = add(a[4], a[4]);
        for i in 0..4 {
            c[i + 4] = lo(c[i + 4], a[i], a4);
            c[i + 5] = hi(c[i + 5], a[i], a4);
        }
        for i in 0..5 {
            c[2 * i] = lo(c[2 * i], a[i], a[i]);
            c[2 * i + 1] = hi(c[2 * i + 1], a[i], a[i]);
        }
        Columns(c)
    }

    /// `self` / 2^260 mod p, not carried. Needs columns within 2^61; columns 0 to 4 are cleared by
    /// adding q p with q = column mod 2^52, as q (p + 1) and without the q.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn reduce(&self) -> Loose {
        assert_within(&self.0, 1 << 61);
        let mut c = self.0;
        let (q1, q3, q4) = (splat(Q1), splat(Q3), splat(Q4));
        for i in 0..5 {
            let q = c[i];
            // The carry last: the next step waits for it, and so for four cycles less.
            c[i + 1] = add(lo(c[i + 1], q, q1), sar::<52>(q));
            c[i + 2] = hi(c[i + 2], q, q1);
            c[i + 3] = lo(c[i + 3], q, q3);
            c[i + 4] = lo(hi(c[i + 4], q, q3), q, q4);
            c[i + 5] = hi(c[i + 5], q, q4);
        }
        Loose([c[5], c[6], c[7], c[8], c[9]])
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn shl<const S: u32>(&self) -> Columns {
        assert_within(&self.0, 1 << (62 - S));
        Columns(self.0.map(|column| shl::<S>(column)))
    }
}

impl Loose {
    /// Carries. Needs limbs within 2^62 and a value in [0, 16 U).
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn carry(&self) -> Field {
        assert_within(&self.0, 1 << 62);
        let mut l = self.0;
        for i in 0..4 {
            l[i + 1] = add(l[i + 1], sar::<52>(l[i]));
        }
        Field::checked(l)
    }

    /// Folds the bits from 256 on by 2^256 = 2^224 - 2^192 - 2^96 + 1 (mod p), and carries. Needs limbs
    /// within 2^60 and a value in [0, 256 U).
    ///
    /// The bits are read before the carries reach limb 4, so t may be one too small or too large; the
    /// value stays positive, as a t too large is at least one.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fold(&self) -> Field {
        assert_within(&self.0, 1 << 60);
        let [l0, l1, l2, l3, l4] = self.0;
        let t = sar::<48>(l4);
        assert_within(&[t], 1 << 9);
        let l4 = add(and(l4, splat(M48)), shl::<16>(t));
        Loose([add(l0, t), sub(l1, shl::<44>(t)), l2, sub(l3, shl::<36>(t)), l4]).carry()
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn add(&self, o: &Loose) -> Loose {
        let mut r = self.0;
        for i in 0..5 {
            r[i] = add(r[i], o.0[i]);
        }
        Loose(r)
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn sub(&self, o: &Loose) -> Loose {
        let mut r = self.0;
        for i in 0..5 {
            r[i] = sub(r[i], o.0[i]);
        }
        Loose(r)
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn shl<const S: u32>(&self) -> Loose {
        assert_within(&self.0, 1 << (62 - S));
        Loose(self.0.map(|limb| shl::<S>(limb)))
    }

    /// `TIMES` p: it makes a difference positive.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn multiple_of_p<const TIMES: u64>() -> Loose {
        Loose(P52.map(|limb| splat(TIMES * limb)))
    }
}

impl Field {
    /// A carried number, whose bound a checking build checks.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn checked(limbs: [V; 5]) -> Field {
        assert_below(&limbs[4..], 1 << 52);
        Field(limbs)
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn constant(k: &[u64; 5]) -> Field {
        Field(k.map(|limb| splat(limb)))
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn one() -> Field {
        Field::constant(&ONE)
    }

    /// The Montgomery form of a number < 2^256, limbs 0 to 3 dirty.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn from_plain(limbs: &[V; 5]) -> Field {
        Field(*limbs).mul(&Field::constant(&R2_P))
    }

    /// The Montgomery form, exactly reduced to [0, p], of a number < 2^256.
    ///
    /// x R^3 / R < 2 U, and that divided by R is at most (2 U + (2^260 - 1) p) / 2^260 < p + 1.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn reduced_from_plain(limbs: &[V; 5]) -> Loose {
        let unit = Field::constant(&[1, 0, 0, 0, 0]);
        Field(*limbs).mul(&Field::constant(&R3_P)).mul(&unit).clean()
    }

    /// The junk masked off: exact limbs, 0 to 3 < 2^52, limb 4 as it was.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn clean(&self) -> Loose {
        let m = splat(M52);
        let l = &self.0;
        Loose([and(l[0], m), and(l[1], m), and(l[2], m), and(l[3], m), l[4]])
    }

    /// The product, reduced but not carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn mul_loose(&self, o: &Field) -> Loose {
        Columns::product(self, o).reduce()
    }

    /// The square, reduced but not carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn square_loose(&self) -> Loose {
        Columns::square(self).reduce()
    }

    /// The product, carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn mul(&self, o: &Field) -> Field {
        self.mul_loose(o).carry()
    }

    /// The square, carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn square(&self) -> Field {
        self.square_loose().carry()
    }

    /// `self` * `o` + `l`, carried. (The sum costs nothing: the upper columns start there.)
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn mul_plus(&self, o: &Field, l: &Loose) -> Field {
        let z = zero();
        Columns([z, z, z, z, z, l.0[0], l.0[1], l.0[2], l.0[3], l.0[4]])
            .plus_product(self, o)
            .reduce()
            .carry()
    }

    /// The lanes whose value is 0 mod p. `self` / 2^260 is at most p, so it is 0 or p.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn is_zero(&self) -> __mmask8 {
        let l = self.mul(&Field::constant(&[1, 0, 0, 0, 0])).clean().0;
        let mut z = l[0];
        let mut e = xor(l[0], splat(P52[0]));
        for i in 1..5 {
            z = or(z, l[i]);
            e = or(e, xor(l[i], splat(P52[i])));
        }
        _mm512_testn_epi64_mask(z, z) | _mm512_testn_epi64_mask(e, e)
    }
}
