//! The table of a key: eleven multiples of Q in each lane, from which a digit takes one.
//!
//! lambda, a cube root of one mod n, acts on points as (x, y) -> (beta x, y), so u2 = k1 + k2 lambda acts as
//! the Eisenstein integer k1 + k2 w. The six units +-w^j act for free (a table of beta^j x, and +-y), so
//! 11 multiples serve all 63 nonzero digits base 8; `eisenstein.rs` has them and how a digit finds its
//! own.
//!
//! The multiples lie on a path whose steps add a unit times Q, so a chain of co-Z additions (Meloni)
//! makes them; all are then scaled to the Z of the last. Read as affine they lie on the isomorphic
//! curve y^2 = x^3 + 7 Z^6, whose group law does not know the 7: no inversion is needed.
//!
//! Bounds: everything stored is a carried [`Field`]; the bias of 2^60 covers sums of up to seven
//! products, and four or eight times a product.

use std::arch::x86_64::*;

use super::{
    super::vector::*,
    constants::*,
    eisenstein::{BETA2, ENTRIES, STEPS},
    field::*,
};

/// For each multiple (X, Y): -X, -beta X, -beta^2 X, Y.
#[repr(C, align(64))]
pub(crate) struct KeyTable([[Field; 4]; ENTRIES]);

/// What a digit takes from the table.
pub(crate) struct Entry {
    /// -x.
    pub(crate) nx: Field,
    pub(crate) y: Field,
    /// Lanes in which the negative of (x, y) is meant.
    pub(crate) negative: __mmask8,
    /// Lanes whose digit is not zero.
    pub(crate) nonzero: __mmask8,
}

impl KeyTable {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn new() -> Self {
        Self([[Field::zero(); 4]; ENTRIES])
    }

    /// Fills the table for Q = (-`nx`, `y`) and returns the common Z.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fill(&mut self, nx: &Field, y: &Field) -> Field {
        let mut ratios = [Field::zero(); ENTRIES];
        self.climb(nx, y, &mut ratios);
        let z = self.level(&ratios);
        // The Z of the double, times all ratios.
        y.mul_loose(&z).shl::<1>().carry()
    }

    /// The multiples, each with its own Z; `ratios[i]` is Z of entry i over Z of the one before.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn climb(&mut self, nx: &Field, y: &Field, ratios: &mut [Field; ENTRIES]) {
        let t = &mut self.0;
        let bias = Loose::constant(&BIAS60);
        let bias53 = Loose::constant(&BIAS53);
        // 2 Q with Z = 2 y, and Q rescaled to the same Z: (4 x y^2, 8 y^4).
        let a = nx.square_loose();
        let m = a.add(&a).add(&a).carry();
        let b = y.square();
        let ns = nx.mul_loose(&b).shl::<2>();
        let y8 = b.square_loose().shl::<3>();
        // (ux, uy): the unit multiple of Q that is added next, x negated like all.
        let mut ux = ns.carry();
        let mut uy = y8.carry();
        (t[0][0], t[0][3]) = (ux, uy);
        // X = M^2 + 2 ns; Y = M (nX - ns) - 8 y^4
        let ex = bias.sub(&m.square_loose()).sub(&ns).sub(&ns);
        let ey = m.mul_loose(&ex.add(&bias).sub(&ns).carry());
        t[1][0] = ex.carry();
        t[1][3] = ey.add(&bias).sub(&y8).carry();
        for i in 2..ENTRIES {
            let step = STEPS[i - 2];
            match step % 3 {
                1 => ux = ux.mul(&Field::constant(&BETA52)),
                2 => ux = ux.mul(&Field::constant(&BETA2)),
                _ => {}
            }
            if step >= 3 {
                uy = bias53.sub(&uy.clean()).carry();
            }
            // (U, E) -> (U rescaled, U + E); the ratio of the Zs is x_U - x_E.
            let (ex, ey) = (t[i - 1][0], t[i - 1][3]);
            ratios[i] = ex.clean().add(&bias53).sub(&ux.clean()).carry();
            let c = ratios[i].square();
            let w1 = ux.mul_loose(&c);
            let w2 = ex.mul_loose(&c);
            let f = uy.clean().add(&bias53).sub(&ey.clean()).carry();
            let w12 = w2.add(&bias).sub(&w1).carry();
            let a1 = uy.mul_loose(&w12);
            let nx3 = bias.sub(&f.square_loose()).sub(&w1).sub(&w2);
            t[i][0] = nx3.carry();
            let y3 = f.mul_loose(&nx3.add(&bias).sub(&w1).carry());
            t[i][3] = y3.add(&bias).sub(&a1).carry();
            ux = w1.carry();
            uy = a1.carry();
        }
    }

    /// Brings every entry to the Z of the last, adds the multiples of -x by beta and beta^2, and
    /// returns the product of all ratios. Entries 0 and 1 have the same Z.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn level(&mut self, ratios: &[Field; ENTRIES]) -> Field {
        let bias = Loose::constant(&BIAS53);
        let beta = Field::constant(&BETA52);
        let mut z = Field::one();
        let (mut zz, mut zzz) = (z, z);
        for i in (0..ENTRIES).rev() {
            let t = &mut self.0[i];
            if i + 1 < ENTRIES {
                if i > 0 {
                    z = if i + 2 == ENTRIES { ratios[i + 1] } else { z.mul(&ratios[i + 1]) };
                    zz = z.square();
                    zzz = zz.mul(&z);
                }
                t[0] = t[0].mul(&zz);
                t[3] = t[3].mul(&zzz);
            }
            t[1] = t[0].mul(&beta);
            // 1 + beta + beta^2 = 0
            t[2] = bias.add(&bias).sub(&t[0].clean()).sub(&t[1].clean()).carry();
        }
        z
    }

    /// What the digits (bytes of [`super::eisenstein::LUT`], one in each lane) stand for.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn look_up(&self, digit: V) -> Entry {
        let x_index = and(digit, splat(0x3f));
        let y_index = or(and(digit, splat(0x3c)), splat(3));
        Entry {
            nx: self.gather(x_index),
            y: self.gather(y_index),
            negative: _mm512_test_epi64_mask(digit, splat(0x40)),
            nonzero: _mm512_testn_epi64_mask(digit, splat(0x80)),
        }
    }

    /// In each lane its own part of the field element with this index.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn gather(&self, index: V) -> Field {
        assert_below(&[index], 4 * ENTRIES as u64);
        let lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
        // A field element is 5 vectors of 8 words: index * 40 = index * 32 + index * 8.
        let offset = add(add(shl::<5>(index), shl::<3>(index)), lane);
        let words = self.0.as_ptr().cast::<i64>();
        let mut limbs = [zero(); 5];
        for (i, limb) in limbs.iter_mut().enumerate() {
            // SAFETY: index < 44, as the bytes of LUT have an entry < 11 in bits 2 to 5 (tested), so
            // the word 40 * index + lane + 8 i is one of the table's 44 * 40 words.
            *limb = unsafe { _mm512_i64gather_epi64::<8>(offset, words.add(8 * i)) };
        }
        Field(limbs)
    }
}
