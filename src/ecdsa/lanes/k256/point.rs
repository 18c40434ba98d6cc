//! Points of the curve y^2 = x^3 + 7 in eight lanes, and the sum u1 G + u2 Q.
//!
//! Jacobian coordinates: (x, y) = (X / Z^2, Y / Z^3). Operations return the *negative* of the sum: the Y
//! formula is then a sum of two products that share one reduction, and a lane mask keeps the sign.
//! Tables hold -x, which saves two subtractions per addition. A doubling costs 3 products and 4
//! squares, an addition 8 and 3; a sum takes 126 doublings, 43 additions of multiples of Q and 20 of G.
//!
//! # Exceptional cases
//!
//! An addition of equal or opposite points has h = 0, so Z = Z1 h = 0, and Z = 0 survives every later
//! doubling (Z3 = 2 Y Z) and addition. p is prime and no point has y = 0 (the order is odd), so Z = 0 at
//! the end if and only if some addition was exceptional or the sum is infinity. It is tested once, at
//! the end; such lanes are for the library.
//!
//! # Bounds
//!
//! As in [`super::field`]: coordinates are carried [`Field`]s; each bias below is the smallest that
//! covers what is subtracted from it.

use std::arch::x86_64::*;

use super::{
    super::{
        batch::{Job, Outcome},
        digits::odd_digit,
        scalar::Scalar,
    },
    base_table::BaseTable,
    constants::*,
    digits::{Digits, WINDOW, WINDOWS},
    eisenstein::{T_CORR, TX, TY},
    field::*,
    halves::{split, split_odd},
    key_table::KeyTable,
};

/// A point in each lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Point {
    x: Field,
    y: Field,
    z: Field,
}

impl Point {
    /// `self` becomes -2 `self`. Never exceptional; Z = 0 stays Z = 0.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn double_negated(&mut self) {
        // M = 3 X^2
        let a = self.x.square_loose();
        let m = a.add(&a).add(&a).carry();
        let b = self.y.square();
        // Z3 = 2 Y Z
        self.z = self.y.mul_loose(&self.z).shl::<1>().carry();
        // S = 4 X Y^2, kept negated
        let ns = Loose::constant(&BIAS58).sub(&self.x.mul_loose(&b).shl::<2>());
        // X3 = M^2 - 2 S
        let x3 = m.square_loose().add(&ns).add(&ns);
        self.x = x3.carry();
        // -Y3 = M (X3 - S) + 8 Y^4
        let d = x3.add(&ns).carry();
        self.y = Columns::square(&b).shl::<3>().plus_product(&m, &d).fold_carry();
    }

    /// `self` becomes -(`self` + Q), in the lanes of `mask` only if `MASKED`.
    ///
    /// Q is given as `nx2` = -x and `y2`, affine relative to `z1`: that is Z, or Z times what makes
    /// Q's coordinates affine. In the lanes of `negative` it is -Q that is added.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn add_negated<const MASKED: bool>(
        &mut self,
        z1: &Field,
        (nx2, y2): (&Field, &Field),
        negative: __mmask8,
        mask: __mmask8,
    ) {
        // An independent product stands between dependent ones, to hide the latency of the carries.
        let bias = Loose::constant(&BIAS57);
        let zz = z1.square();
        // (y2 z1) z1^2, not y2 (z1 z1^2): one product less on the critical path.
        let yz = y2.mul(z1);
        // h = X1 - x2 z1^2
        let h = nx2.mul_plus(&zz, &self.x.clean());
        // r = Y1 -+ y2 z1^3
        let s2 = yz.mul_loose(&zz);
        let base = bias.add(&self.y.clean());
        let mut r = base.sub(&s2);
        for i in 0..5 {
            r.0[i] = _mm512_mask_add_epi64(r.0[i], negative, base.0[i], s2.0[i]);
        }
        let r = r.carry();
        let hh = h.square();
        self.z = finish_columns::<MASKED>(&Columns::product(&self.z, &h), &self.z, mask);
        let hhh_loose = h.mul_loose(&hh);
        let hhh = hhh_loose.carry();
        // V = X1 h^2, kept negated
        let nv = bias.sub(&self.x.mul_loose(&hh));
        // X3 = r^2 + h^3 - 2 V
        let x3 = r.square_loose().add(&hhh_loose).add(&nv).add(&nv);
        // Y3 = r (X3 - V) + Y1 h^3; as Z3 = Z1 h, not -Z1 h, this is the negative of the sum.
        let d = x3.add(&nv).carry();
        self.x = if MASKED { x3.carry_masked(&self.x, mask) } else { x3.carry() };
        let y3 = Columns::product(&self.y, &hhh).plus_product(&r, &d);
        self.y = finish_columns::<MASKED>(&y3, &self.y, mask);
    }
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn finish_columns<const MASKED: bool>(new: &Columns, old: &Field, mask: __mmask8) -> Field {
    if MASKED { new.fold_carry_masked(old, mask) } else { new.fold_carry() }
}

/// Room for the working of one vector, used again for the next.
#[repr(C, align(64))]
pub(crate) struct Room {
    multiples: KeyTable,
    digits: Digits,
}

impl Room {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn new() -> Self {
        Self { multiples: KeyTable::new(), digits: Digits::new() }
    }
}

impl Room {
    /// Whether x(u1 G + u2 Q) = r. Compares X with r Z^2, so that nothing is inverted.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    pub(crate) fn run(&mut self, job: &Job, base: &BaseTable) -> Outcome {
        let bias = Loose::constant(&BIAS53);
        let minus_x = bias.sub(&Field(job.x).clean()).carry();
        let z_of_table = self.multiples.fill(&minus_x, &Field(job.y));
        let overrun = self.digits.fill(&split(&job.u2));
        let sum = self.sum(&job.u1, base, &z_of_table);
        let z = sum.z.mul(&z_of_table);
        let rzz = z.square().mul_loose(&Field(job.r));
        Outcome {
            equal: rzz.add(&bias).sub(&sum.x.clean()).carry().is_zero(),
            // An addition met equal or opposite points, the sum is infinity, or digits ran over.
            exceptional: overrun | z.is_zero(),
        }
    }

    /// +-(u1 G + u2 Q), on the isomorphic curve on which the table of Q is affine.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn sum(&self, u1: &Scalar, base: &BaseTable, z_of_table: &Field) -> Point {
        // The sum starts at T = t G so that it is never infinity, and u1 makes up for it.
        let halves = split_odd(&u1.plus_constant(&T_CORR));
        let zz = z_of_table.square();
        let mut sum = Point {
            x: zz.mul(&Field::constant(&TX)),
            y: zz.mul(z_of_table).mul(&Field::constant(&TY)),
            z: Field::one(),
        };
        // `sum` holds the negative of the true partial sum in the lanes of `flip`.
        let mut flip: __mmask8 = 0;
        let mut at = WINDOW * (WINDOWS as u32 - 1);
        loop {
            if at.is_multiple_of(WINDOW) {
                let digit = self.digits.0[(at / WINDOW) as usize];
                let entry = self.multiples.look_up(digit);
                let z = sum.z;
                let negative = entry.negative ^ flip;
                sum.add_negated::<true>(&z, (&entry.nx, &entry.y), negative, entry.nonzero);
                flip ^= entry.nonzero;
            }
            if at.is_multiple_of(BaseTable::WINDOW) && at + BaseTable::WINDOW <= BaseTable::BITS {
                for (half, lambda) in [(&halves.0, false), (&halves.1, true)] {
                    let (index, negative) = odd_digit(half, at, BaseTable::WINDOW);
                    let (nx, y) = base.look_up(lambda, index);
                    // G's table is affine on the true curve, whose Z has the table's as a factor.
                    let z = sum.z.mul(z_of_table);
                    sum.add_negated::<false>(&z, (&nx, &y), negative ^ flip, 0xff);
                    flip = !flip;
                }
            }
            if at == 0 {
                return sum;
            }
            sum.double_negated();
            flip = !flip;
            at -= 1;
        }
    }
}
