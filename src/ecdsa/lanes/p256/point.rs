//! Points of the curve y^2 = x^3 - 3 x + b in eight lanes, and the sum u1 G + u2 Q.
//!
//! Jacobian coordinates: (x, y) = (X / Z^2, Y / Z^3). Operations return the *negative* of the sum: the Y
//! formula is then a sum of two products that share one reduction, and a lane mask keeps the sign.
//! Tables hold -x, which saves subtractions. A doubling costs 4 products and 4 squares, an addition 8
//! and 3; a sum takes 255 doublings, 51 additions of multiples of Q and 20 of G.
//!
//! The scalars are made odd by adding n if need be, so that no digit is zero ([`super::super::digits`]);
//! the sum starts with the first multiple of Q and so never at infinity.
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
//! As in [`super::field`], in units of U = 2^256: X and Y are folded, so below 1.01; Z < 2.5; -x and y of
//! tables, which are products or at most p, < 1.1. The letters of the formulas below have their bounds
//! beside them. Each multiple of p covers what is subtracted.

use std::arch::x86_64::*;

use super::{
    super::{
        batch::{Job, Outcome},
        digits::odd_digit,
        scalar::Scalar,
        vector::*,
    },
    base_table::BaseTable,
    constants::N52,
    field::*,
    key_table::{KeyTable, WINDOW},
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
        // zz < 1.4
        let zz = self.z.square_loose();
        let x = self.x.clean();
        // yy < 1.1
        let yy = self.y.square();
        // M = 3 (X + Z^2) (X - Z^2): (< 7.3) (< 3.1), m < 2.5
        let plus = x.add(&zz);
        let plus = plus.shl::<1>().add(&plus).carry();
        let minus = x.add(&Loose::multiple_of_p::<2>()).sub(&zz).carry();
        // Z3 = 2 Y Z < 2.4
        let z3 = self.y.mul_loose(&self.z);
        let m = plus.mul(&minus);
        // S = 4 X Y^2: s = S / 4 < 1.1
        let s = self.x.mul_loose(&yy);
        self.z = z3.shl::<1>().carry();
        // X3 = M^2 - 2 S: m^2 < 1.4, 8 s < 8.8
        let s4 = s.shl::<2>();
        let x3 = m.square_loose().add(&Loose::multiple_of_p::<9>()).sub(&s4.shl::<1>());
        // X3 - S, < 15.4
        let d = x3.add(&Loose::multiple_of_p::<5>()).sub(&s4).carry();
        self.x = x3.fold();
        // -Y3 = M (X3 - S) + 8 Y^4
        self.y = Columns::square(&yy).shl::<3>().plus_product(&m, &d).reduce().fold();
    }

    /// `self` becomes -(`self` + Q), Q given as `nx2` = -x and `y2`. In the lanes of `negative` it is -Q
    /// that is added.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
    fn add_negated(&mut self, (nx2, y2): (&Field, &Field), negative: __mmask8) {
        // An independent product stands between dependent ones, to hide the latency of the carries.
        // zz < 1.4, yz < 1.2
        let zz = self.z.square();
        // (y2 z1) z1^2, not y2 (z1 z1^2): one product less on the critical path.
        let yz = y2.mul(&self.z);
        // h = X1 - x2 z1^2 < 2.2
        let h = nx2.mul_plus(&zz, &self.x.clean());
        // r = Y1 -+ y2 z1^3, < 3.1
        let s2 = yz.mul_loose(&zz);
        let y = self.y.clean();
        let mut r = y.add(&Loose::multiple_of_p::<2>()).sub(&s2);
        for i in 0..5 {
            r.0[i] = _mm512_mask_add_epi64(r.0[i], negative, y.0[i], s2.0[i]);
        }
        let r = r.carry();
        // hh < 1.4
        let hh = h.square();
        // Z3 = Z1 h < 1.4
        self.z = self.z.mul(&h);
        // h^3 < 1.2
        let hhh_loose = h.mul_loose(&hh);
        let hhh = hhh_loose.carry();
        // V = X1 h^2 < 1.1
        let v = self.x.mul_loose(&hh);
        // X3 = r^2 + h^3 - 2 V: r^2 < 1.7, so < 6
        let x3 =
            r.square_loose().add(&hhh_loose).add(&Loose::multiple_of_p::<3>()).sub(&v.shl::<1>());
        // X3 - V < 7
        let d = x3.add(&Loose::multiple_of_p::<1>()).sub(&v).carry();
        self.x = x3.fold();
        // Y3 = r (X3 - V) + Y1 h^3; as Z3 = Z1 h, not -Z1 h, this is the negative of the sum.
        self.y = Columns::product(&self.y, &hhh).plus_product(&r, &d).reduce().fold();
    }
}

/// Whether x(u1 G + u2 Q) = r. Compares X with r Z^2, so that nothing is inverted.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(crate) fn run(job: &Job, base: &BaseTable, table: &mut KeyTable) -> Outcome {
    let minus_x = Loose::multiple_of_p::<2>().sub(&Field::from_plain(&job.x).clean()).fold();
    table.fill(&minus_x, &Field::from_plain(&job.y));
    let sum = sum(&odd_bits(&job.u1), &odd_bits(&job.u2), base, table);
    let rzz = sum.z.square().mul_loose(&Field::from_plain(&job.r));
    let difference = rzz.add(&Loose::multiple_of_p::<2>()).sub(&sum.x.clean()).fold();
    Outcome { equal: difference.is_zero(), exceptional: sum.z.is_zero() }
}

/// +-(u1 G + u2 Q), the scalars recoded by [`odd_bits`].
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn sum(u1: &[V; 5], u2: &[V; 5], base: &BaseTable, table: &KeyTable) -> Point {
    let mut at = BaseTable::BITS - WINDOW;
    let (index, negative) = odd_digit(u2, at, WINDOW);
    let (nx, y) = table.look_up(index);
    let x = Loose::multiple_of_p::<2>().sub(&nx.clean()).fold();
    let mut sum = Point { x, y: y.clean().fold(), z: Field::one() };
    // `sum` holds the negative of the true partial sum in the lanes of `flip`.
    let mut flip = negative;
    while at > 0 {
        sum.double_negated();
        flip = !flip;
        at -= 1;
        if at.is_multiple_of(WINDOW) {
            let (index, negative) = odd_digit(u2, at, WINDOW);
            let (nx, y) = table.look_up(index);
            sum.add_negated((&nx, &y), negative ^ flip);
            flip = !flip;
        }
        if at.is_multiple_of(BaseTable::WINDOW) {
            let (index, negative) = odd_digit(u1, at, BaseTable::WINDOW);
            let (nx, y) = base.look_up(index);
            sum.add_negated((&nx, &y), negative ^ flip);
            flip = !flip;
        }
    }
    sum
}

/// (k + 2^260 - 1) / 2 in exact limbs, for k = u or u + n, whichever is odd. u < 2^257, so k < 2^258 and
/// the result is below 2^260.
#[inline]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
pub(crate) fn odd_bits(u: &Scalar) -> [V; 5] {
    let m = splat(M52);
    let even = _mm512_testn_epi64_mask(u.0[0], splat(1));
    let mut l = [zero(); 5];
    for i in 0..5 {
        let limb = if i < 4 { and(u.0[i], m) } else { u.0[i] };
        l[i] = _mm512_mask_add_epi64(limb, even, limb, splat(N52[i]));
        l[i] = add(l[i], m);
    }
    for i in 0..4 {
        l[i + 1] = add(l[i + 1], shr::<52>(l[i]));
        l[i] = and(l[i], m);
    }
    assert_below(&l[4..], 1 << 53);
    for i in 0..4 {
        l[i] = or(shr::<1>(l[i]), shl::<51>(and(l[i + 1], splat(1))));
    }
    l[4] = shr::<1>(l[4]);
    l
}
