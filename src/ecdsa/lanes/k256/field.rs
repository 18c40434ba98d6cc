//! Field arithmetic mod p = 2^256 - C, C = 2^32 + 977, in eight lanes: five limbs of 52 bits.
//!
//! Three types keep the carry discipline honest:
//!
//! * [`Field`], carried: limbs 0 to 3 dirty, limb 4 exact and <= 2^48 + 2^43, so the value is below
//!   2^256 (1 + 2^-4) < 2p and its digits are unique. Only a `Field` may be multiplied.
//! * [`Loose`]: five exact limbs of up to 64 bits. May be added, subtracted from a bias, shifted;
//!   [`Loose::carry`] makes it a `Field`.
//! * [`Columns`]: the ten column sums of one or more products.
//!
//! # Bounds
//!
//! * A product of two `Field`s: each column is a sum of at most nine halves of partial products,
//!   < 9 * 2^52 < 2^56; column 9 is the high half of limb 4 times limb 4, < 2^46; column 8 < 2^54.
//!   In a square, limb 4 is doubled (< 2^50, still one digit) and the other cross products are doubled
//!   in their columns: the same bounds.
//! * The largest sum of products in use is 8 b^2 + m d (doubling of a point): columns
//!   < 81 * 2^52 < 2^59, column 8 < 2^57, column 9 < 2^50.
//! * [`Columns::fold`] needs columns < 2^60 and column 9 < 2^52; its limbs are below the column plus
//!   3 * 2^52, so those of a single product are below 2^56.
//! * A bias is a multiple of p whose limbs all lie in [2^k, 2^k + 2^52): a number with smaller limbs
//!   is subtracted from it limb by limb without a borrow. k is 53 for a cleaned `Field`, 57 for one
//!   product, 58 for four times a product, 60 in the table of a key. Sums stay below 2^62.

use std::arch::x86_64::*;

use super::{super::vector::*, constants::*};

/// A carried number: may be multiplied.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Field(pub(crate) [V; 5]);

/// Limbs on their way: may be added, subtracted, shifted.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Loose(pub(crate) [V; 5]);

/// Column sums of products; the weight of column k is 2^(52k).
#[derive(Clone, Copy)]
pub(crate) struct Columns(pub(crate) [V; 10]);

/// Limb 4 of a [`Field`] is at most this.
pub(crate) const TOP_LIMB_MAX: u64 = (1 << 48) + (1 << 43);

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
        assert_below(&[a.0[4], b.0[4]], TOP_LIMB_MAX + 1);
        Columns(multiply_columns(&self.0, &a.0, &b.0))
    }

    /// a^2: cross products of limbs 0 to 3 doubled in the columns, those with limb 4 by doubling
    /// limb 4 (< 2^50, so still one digit); then the diagonal.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn square(a: &Field) -> Columns {
        let a = &a.0;
        assert_below(&a[4..], TOP_LIMB_MAX + 1);
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

    /// Folds columns 5 to 9 by 2^260 = R260 (mod p).
    ///
    /// Needs column 9 < 2^52 and every column < 2^60; gives limbs < 2^61.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fold(&self) -> Loose {
        assert_below(&self.0, 1 << 60);
        assert_below(&self.0[9..], 1 << 52);
        let mut c = self.0;
        let r = splat(R260);
        // Column 9 first: its high half lands in column 5, before that column is carried.
        c[4] = lo(c[4], c[9], r);
        c[5] = hi(c[5], c[9], r);
        c[6] = add(c[6], shr::<52>(c[5]));
        c[7] = add(c[7], shr::<52>(c[6]));
        c[8] = add(c[8], shr::<52>(c[7]));
        let q = shr::<52>(c[8]); // < 2^9, so q*R260 < 2^52: low half only
        c[0] = lo(c[0], c[5], r);
        c[1] = lo(hi(c[1], c[5], r), c[6], r);
        c[2] = lo(hi(c[2], c[6], r), c[7], r);
        c[3] = lo(hi(c[3], c[7], r), c[8], r);
        c[4] = lo(hi(c[4], c[8], r), q, r);
        Loose([c[0], c[1], c[2], c[3], c[4]])
    }

    /// Fold and carry in one: the same value as `fold().carry()` mod p, with a shorter critical path.
    /// The bits >= 256 of column 4 are folded before the last (small) additions to it, and the final
    /// carry chain runs alongside the fold.
    ///
    /// Needs column 9 < 2^52, every column < 2^60, column 8 < 2^57; the additions to column 4 are
    /// the high half of c8 R (< 2^37), q R (< 2^42) and a carry (< 2^12), so limb 4 stays within
    /// its bound.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fold_carry(&self) -> Field {
        let (c, l) = self.fold_carry_parts();
        let l1 = add(c[1], shr::<52>(c[0]));
        let l2 = add(c[2], shr::<52>(l1));
        let l3 = add(c[3], shr::<52>(l2));
        Field::checked([c[0], l1, l2, l3, add(l, shr::<52>(l3))])
    }

    /// `fold_carry` in the lanes of m, `old` elsewhere.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fold_carry_masked(&self, old: &Field, m: __mmask8) -> Field {
        let (c, l) = self.fold_carry_parts();
        let o = &old.0;
        let l1 = _mm512_mask_add_epi64(o[1], m, c[1], shr::<52>(c[0]));
        let l2 = _mm512_mask_add_epi64(o[2], m, c[2], shr::<52>(l1));
        let l3 = _mm512_mask_add_epi64(o[3], m, c[3], shr::<52>(l2));
        let l4 = _mm512_mask_add_epi64(o[4], m, l, shr::<52>(l3));
        Field::checked([_mm512_mask_mov_epi64(o[0], m, c[0]), l1, l2, l3, l4])
    }

    /// Limbs 0..3 and limb 4 before the carry chain.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn fold_carry_parts(&self) -> ([V; 4], V) {
        assert_below(&self.0, 1 << 60);
        assert_below(&[self.0[8]], 1 << 57);
        assert_below(&[self.0[9]], 1 << 52);
        let mut c = self.0;
        let r = splat(R260);
        c[4] = lo(c[4], c[9], r);
        c[5] = hi(c[5], c[9], r);
        let t = shr::<48>(c[4]); // < 2^13: t*C < 2^46, low half only
        c[4] = and(c[4], splat(M48));
        c[0] = lo(c[0], t, splat(C));
        c[6] = add(c[6], shr::<52>(c[5]));
        c[7] = add(c[7], shr::<52>(c[6]));
        c[8] = add(c[8], shr::<52>(c[7]));
        let q = shr::<52>(c[8]); // < 2^5
        c[0] = lo(c[0], c[5], r);
        c[1] = lo(hi(c[1], c[5], r), c[6], r);
        c[2] = lo(hi(c[2], c[6], r), c[7], r);
        c[3] = lo(hi(c[3], c[7], r), c[8], r);
        c[4] = lo(hi(c[4], c[8], r), q, r);
        ([c[0], c[1], c[2], c[3]], c[4])
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn shl<const S: u32>(&self) -> Columns {
        assert_below(&self.0, 1 << (64 - S));
        Columns(self.0.map(|column| shl::<S>(column)))
    }
}

impl Loose {
    /// Folds the bits from 256 on and carries. Needs limbs < 2^63.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn carry(&self) -> Field {
        assert_below(&self.0, 1 << 63);
        let mut l = self.0;
        let t = shr::<48>(l[4]); // < 2^15: t*C < 2^48, low half only
        l[4] = and(l[4], splat(M48));
        l[0] = lo(l[0], t, splat(C));
        l[1] = add(l[1], shr::<52>(l[0]));
        l[2] = add(l[2], shr::<52>(l[1]));
        l[3] = add(l[3], shr::<52>(l[2]));
        l[4] = add(l[4], shr::<52>(l[3]));
        Field::checked(l)
    }

    /// `carry` in the lanes of m, `old` elsewhere.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn carry_masked(&self, old: &Field, m: __mmask8) -> Field {
        assert_below(&self.0, 1 << 63);
        let l = self.0;
        let t = shr::<48>(l[4]);
        let l4 = and(l[4], splat(M48));
        let l0 = lo(l[0], t, splat(C));
        let o = &old.0;
        let l1 = _mm512_mask_add_epi64(o[1], m, l[1], shr::<52>(l0));
        let l2 = _mm512_mask_add_epi64(o[2], m, l[2], shr::<52>(l1));
        let l3 = _mm512_mask_add_epi64(o[3], m, l[3], shr::<52>(l2));
        let l4 = _mm512_mask_add_epi64(o[4], m, l4, shr::<52>(l3));
        Field::checked([_mm512_mask_mov_epi64(o[0], m, l0), l1, l2, l3, l4])
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn add(&self, o: &Loose) -> Loose {
        let mut r = self.0;
        for i in 0..5 {
            assert_below(&[r[i], o.0[i]], 1 << 63);
            r[i] = add(r[i], o.0[i]);
        }
        Loose(r)
    }

    /// Needs `self` >= `o` limb by limb.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn sub(&self, o: &Loose) -> Loose {
        let mut r = self.0;
        for i in 0..5 {
            assert_fits(r[i], o.0[i]);
            r[i] = sub(r[i], o.0[i]);
        }
        Loose(r)
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn shl<const S: u32>(&self) -> Loose {
        assert_below(&self.0, 1 << (64 - S));
        Loose(self.0.map(|limb| shl::<S>(limb)))
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn constant(k: &[u64; 5]) -> Loose {
        Loose([splat(k[0]), splat(k[1]), splat(k[2]), splat(k[3]), splat(k[4])])
    }
}

impl Field {
    /// A carried number, whose bound a checking build checks.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn checked(limbs: [V; 5]) -> Field {
        assert_below(&limbs[4..], TOP_LIMB_MAX + 1);
        Field(limbs)
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn constant(k: &[u64; 5]) -> Field {
        Field(Loose::constant(k).0)
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn zero() -> Field {
        Field([zero(); 5])
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn one() -> Field {
        Field::constant(&[1, 0, 0, 0, 0])
    }

    /// The junk masked off: exact limbs, 0 to 3 < 2^52, limb 4 as it was.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn clean(&self) -> Loose {
        let m = splat(M52);
        let l = &self.0;
        Loose([and(l[0], m), and(l[1], m), and(l[2], m), and(l[3], m), l[4]])
    }

    /// The product, folded but not carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn mul_loose(&self, o: &Field) -> Loose {
        Columns::product(self, o).fold()
    }

    /// The square, folded but not carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn square_loose(&self) -> Loose {
        Columns::square(self).fold()
    }

    /// The product, carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn mul(&self, o: &Field) -> Field {
        Columns::product(self, o).fold_carry()
    }

    /// The square, carried.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn square(&self) -> Field {
        Columns::square(self).fold_carry()
    }

    /// `self` * `o` + `l`, carried; limbs of `l` < 2^59. (The sum costs nothing: the columns start
    /// there.)
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn mul_plus(&self, o: &Field, l: &Loose) -> Field {
        let z = zero();
        Columns([l.0[0], l.0[1], l.0[2], l.0[3], l.0[4], z, z, z, z, z])
            .plus_product(self, o)
            .fold_carry()
    }

    /// The lanes whose value is 0 mod p: it is below 2p with unique digits, so 0 or p.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn is_zero(&self) -> __mmask8 {
        let l = self.clean().0;
        let mut z = l[0];
        let mut e = xor(l[0], splat(P52[0]));
        for i in 1..5 {
            z = or(z, l[i]);
            e = or(e, xor(l[i], splat(P52[i])));
        }
        _mm512_testn_epi64_mask(z, z) | _mm512_testn_epi64_mask(e, e)
    }
}
