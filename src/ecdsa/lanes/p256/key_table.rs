//! The table of a key: the odd multiples 1, 3, ..., 31 of Q in each lane, affine, as (-x, y).
//!
//! A chain of co-Z additions of 2 Q (Meloni) makes them, each with its own Z; the Z of the last is
//! inverted, all lanes together, and the ratios of neighbours give the inverses of the others. Unlike on
//! secp256k1, the common Z can't be left in: a doubling here has a term a Z^4.
//!
//! Bounds: everything stored is a folded [`Field`] or a product; differences get as many multiples of p
//! as the products (each < 2 U) that are taken away.

use super::{
    super::{
        scalar::{Scalar, invert_all},
        vector::*,
    },
    Prime,
    field::*,
};

/// Bits of a window of u2: a digit is odd and below 2^5 in magnitude.
pub(crate) const WINDOW: u32 = 5;

const ENTRIES: usize = 1 << (WINDOW - 1);

/// For each multiple: -x, y.
#[repr(C, align(64))]
pub(crate) struct KeyTable([[Field; 2]; ENTRIES]);

impl KeyTable {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn new() -> Self {
        Self([[Field([zero(); 5]); 2]; ENTRIES])
    }

    /// Fills the table for Q = (-`nx`, `y`).
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn fill(&mut self, nx: &Field, y: &Field) {
        let mut ratios = [Field::one(); ENTRIES];
        self.climb(nx, y, &mut ratios);
        self.level(&ratios);
    }

    /// The multiples, each with its own Z; `ratios[i]` is Z of entry i over Z of the one before,
    /// `ratios[0]` the Z of entry 0.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn climb(&mut self, nx: &Field, y: &Field, ratios: &mut [Field; ENTRIES]) {
        let t = &mut self.0;
        // 2 Q with Z = 2 y, and Q rescaled to the same Z: (4 x y^2, 8 y^4). M = 3 x^2 - 3.
        let a = nx.square_loose().add(&Loose::multiple_of_p::<1>()).sub(&Field::one().clean());
        let m = a.add(&a).add(&a).fold();
        let b = y.square();
        let ns = nx.mul_loose(&b).shl::<2>().fold();
        let y8 = b.square_loose().shl::<3>().fold();
        ratios[0] = y.clean().shl::<1>().fold();
        t[0] = [ns, y8];
        // -X = -M^2 - 2 ns; Y = M (-X - ns) - 8 y^4
        let four = Loose::multiple_of_p::<4>();
        let (ns, y8) = (ns.clean(), y8.clean());
        let mut ux = four.sub(&m.square_loose()).sub(&ns.shl::<1>()).fold();
        let d = ux.clean().add(&Loose::multiple_of_p::<2>()).sub(&ns).fold();
        let mut uy = m.mul_loose(&d).add(&Loose::multiple_of_p::<2>()).sub(&y8).fold();
        for i in 1..ENTRIES {
            // (U, E) -> (U rescaled, U + E); the ratio of the Zs is x_U - x_E.
            let [ex, ey] = t[i - 1];
            let two = Loose::multiple_of_p::<2>();
            ratios[i] = ex.clean().add(&two).sub(&ux.clean()).fold();
            let c = ratios[i].square();
            let w1 = ux.mul_loose(&c);
            let w2 = ex.mul_loose(&c);
            let f = uy.clean().add(&two).sub(&ey.clean()).fold();
            let a1 = uy.mul_loose(&w2.add(&two).sub(&w1).fold());
            let nx3 = Loose::multiple_of_p::<6>().sub(&f.square_loose()).sub(&w1).sub(&w2).fold();
            let y3 = f.mul_loose(&nx3.clean().add(&two).sub(&w1).fold());
            t[i] = [nx3, y3.add(&two).sub(&a1).fold()];
            ux = w1.carry();
            uy = a1.carry();
        }
    }

    /// Brings every entry to Z = 1.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn level(&mut self, ratios: &[Field; ENTRIES]) {
        let mut z = ratios[0];
        for ratio in &ratios[1..] {
            z = z.mul(ratio);
        }
        // R / (z R) = 1 / z, a plain number: its Montgomery form is R / z.
        let mut plain = [Scalar(z.0)];
        invert_all::<Prime>(&mut plain);
        let mut inverse = Field::from_plain(&plain[0].0);
        for i in (0..ENTRIES).rev() {
            let t = &mut self.0[i];
            let squared = inverse.square();
            t[0] = t[0].mul(&squared);
            t[1] = t[1].mul(&squared.mul(&inverse));
            inverse = inverse.mul(&ratios[i]);
        }
    }

    /// -x and y of entry `index`, in each lane its own.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn look_up(&self, index: V) -> (Field, Field) {
        use std::arch::x86_64::{_mm512_i64gather_epi64, _mm512_set_epi64};
        assert_below(&[index], ENTRIES as u64);
        let lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
        // An entry is 10 vectors of 8 words: index * 80 = index * 64 + index * 16.
        let offset = add(add(shl::<6>(index), shl::<4>(index)), lane);
        let words = self.0.as_ptr().cast::<i64>();
        let mut limbs = [zero(); 10];
        for (i, limb) in limbs.iter_mut().enumerate() {
            // SAFETY: index < ENTRIES, as `odd_digit` masks it with ENTRIES - 1, so the word
            // 80 * index + lane + 8 i is one of the table's 80 * ENTRIES words.
            *limb = unsafe { _mm512_i64gather_epi64::<8>(offset, words.add(8 * i)) };
        }
        let [x0, x1, x2, x3, x4, y0, y1, y2, y3, y4] = limbs;
        (Field([x0, x1, x2, x3, x4]), Field([y0, y1, y2, y3, y4]))
    }
}
