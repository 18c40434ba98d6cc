//! One inverse modulo an odd n of 256 bits: Bernstein and Yang's divsteps, in variable time (public keys
//! and signatures are no secrets).
//!
//! Numbers are five signed limbs of 62 bits: limbs 0 to 3 in [0, 2^62), limb 4 carries the sign. A
//! batch of 62 divsteps is a 2 x 2 matrix found on the low words alone, whose entries are below 2^62
//! in magnitude and then applied to f, g (exact division by 2^62) and to d, e (division mod n).
//!
//! Bounds: |f|, |g| <= n; d, e in (-2n, n); sums of two products of 62-bit numbers and a carry fit
//! 128 bits.

use super::vector::M52;

/// A modulus for [`invert`].
pub(super) struct Limbs62 {
    /// Itself in limbs of 62 bits.
    pub(super) limbs: [u64; 5],
    /// Its inverse mod 2^62.
    pub(super) inverse: u64,
}

const M62: i64 = (1 << 62) - 1;

type Limbs = [i64; 5];

/// 1 / t mod n, exact limbs of 52 bits; 0 if t is zero mod n. `t`: limbs of 52 bits, 0 to 3 dirty; below
/// 2^258.
pub(super) fn invert(n: &Limbs62, t: &[u64; 5]) -> [u64; 5] {
    let mut limbs = *t;
    for limb in &mut limbs[..4] {
        *limb &= M52;
    }
    let inverse = invert_limbs(n, &repack::<52, 62>(&limbs).map(|limb| limb as i64));
    repack::<62, 52>(&inverse.map(|limb| limb as u64))
}

/// The same number in limbs of another width. It must fit.
fn repack<const FROM: usize, const TO: usize>(limbs: &[u64; 5]) -> [u64; 5] {
    let mut out = [0; 5];
    for (i, &limb) in limbs.iter().enumerate() {
        let at = i * FROM;
        let wide = u128::from(limb) << (at % TO);
        out[at / TO] |= wide as u64 & ((1 << TO) - 1);
        let mut rest = (wide >> TO) as u64;
        let mut next = at / TO + 1;
        while rest != 0 {
            out[next] |= rest & ((1 << TO) - 1);
            rest >>= TO;
            next += 1;
        }
    }
    out
}

/// Entries of a matrix of 62 divsteps: 2^62 (f', g') = (u f + v g, q f + r g).
#[derive(Clone, Copy)]
struct Matrix {
    u: i64,
    v: i64,
    q: i64,
    r: i64,
}

/// 62 divsteps on the low words of f (odd) and g. `eta` is minus the delta of the paper.
fn divsteps(mut eta: i64, mut f: u64, mut g: u64) -> (i64, Matrix) {
    let (mut u, mut v, mut q, mut r) = (1u64, 0u64, 0u64, 1u64);
    let mut left = 62u32;
    loop {
        // All trailing zeros of g at once, as far as steps are left.
        let zeros = (g | (u64::MAX << left)).trailing_zeros();
        g >>= zeros;
        u <<= zeros;
        v <<= zeros;
        eta -= i64::from(zeros);
        left -= zeros;
        if left == 0 {
            break;
        }
        if eta < 0 {
            eta = -eta;
            (f, g) = (g, f.wrapping_neg());
            (u, q) = (q, u.wrapping_neg());
            (v, r) = (r, v.wrapping_neg());
        }
        // Cancel up to 6 low bits of g with one multiple of f: w = -g / f mod 2^limit. At most
        // eta + 1 steps may go by without a swap.
        let limit = ((eta + 1) as u32).min(left).min(6);
        let w = f.wrapping_mul(g).wrapping_mul(f.wrapping_mul(f).wrapping_sub(2))
            & (u64::MAX >> (64 - limit));
        g = g.wrapping_add(f.wrapping_mul(w));
        q = q.wrapping_add(u.wrapping_mul(w));
        r = r.wrapping_add(v.wrapping_mul(w));
    }
    (eta, Matrix { u: u as i64, v: v as i64, q: q as i64, r: r as i64 })
}

fn invert_limbs(modulus: &Limbs62, x: &Limbs) -> Limbs {
    let n = modulus.limbs.map(|limb| limb as i64);
    let (mut f, mut g) = (n, *x);
    let (mut d, mut e) = ([0; 5], [1, 0, 0, 0, 0]);
    let mut eta = -1;
    // At most 741 divsteps are needed for 256 bits, some more for 258: the loop ends.
    while g != [0; 5] {
        let low = |a: &Limbs| a[0] as u64 | (a[1] as u64) << 62;
        let (next, matrix) = divsteps(eta, low(&f), low(&g));
        eta = next;
        (d, e) = update_cofactors(modulus, &d, &e, matrix);
        (f, g) = update_values(&f, &g, matrix);
    }
    // f = +-1 and d f is the inverse, |d| < 2n. (Or f is the common divisor n, and there is none.)
    if f[4] < 0 {
        d = d.map(|limb| -limb);
        f = f.map(|limb| -limb);
    }
    settle(&mut d);
    settle(&mut f);
    if f != [1, 0, 0, 0, 0] {
        return [0; 5];
    }
    while d[4] < 0 {
        for i in 0..5 {
            d[i] += n[i];
        }
        settle(&mut d);
    }
    loop {
        let mut less = d;
        for i in 0..5 {
            less[i] -= n[i];
        }
        settle(&mut less);
        if less[4] < 0 {
            return d;
        }
        d = less;
    }
}

/// Carries: limbs 0 to 3 into [0, 2^62).
fn settle(a: &mut Limbs) {
    for i in 0..4 {
        a[i + 1] += a[i] >> 62;
        a[i] &= M62;
    }
}

/// (f, g) becomes the matrix times (f, g) / 2^62, an exact division.
fn update_values(f: &Limbs, g: &Limbs, matrix: Matrix) -> (Limbs, Limbs) {
    let Matrix { u, v, q, r } = matrix;
    let sum = |a: i64, b: i64, i: usize| {
        i128::from(a) * i128::from(f[i]) + i128::from(b) * i128::from(g[i])
    };
    let (mut next_f, mut next_g) = ([0; 5], [0; 5]);
    let mut carry_f = sum(u, v, 0) >> 62;
    let mut carry_g = sum(q, r, 0) >> 62;
    for i in 1..5 {
        carry_f += sum(u, v, i);
        carry_g += sum(q, r, i);
        next_f[i - 1] = carry_f as i64 & M62;
        next_g[i - 1] = carry_g as i64 & M62;
        carry_f >>= 62;
        carry_g >>= 62;
    }
    next_f[4] = carry_f as i64;
    next_g[4] = carry_g as i64;
    (next_f, next_g)
}

/// (d, e) becomes the matrix times (d, e) / 2^62 mod n: multiples of n make the division exact. Keeps
/// d and e in (-2n, n).
fn update_cofactors(n: &Limbs62, d: &Limbs, e: &Limbs, matrix: Matrix) -> (Limbs, Limbs) {
    let Matrix { u, v, q, r } = matrix;
    let row = |a: i64, b: i64| {
        let sum = |i: usize| i128::from(a) * i128::from(d[i]) + i128::from(b) * i128::from(e[i]);
        // First the multiple that brings d and e from (-2n, n) to (-n, n).
        let mut multiple = (a & (d[4] >> 63)) + (b & (e[4] >> 63));
        let mut carry = sum(0);
        let wanted = n.inverse.wrapping_mul(carry as u64).wrapping_add(multiple as u64);
        multiple -= wanted as i64 & M62;
        let times_n = |i: usize| i128::from(multiple) * i128::from(n.limbs[i]);
        carry = (carry + times_n(0)) >> 62;
        let mut next = [0; 5];
        for i in 1..5 {
            carry += sum(i) + times_n(i);
            next[i - 1] = carry as i64 & M62;
            carry >>= 62;
        }
        next[4] = carry as i64;
        next
    };
    (row(u, v), row(q, r))
}
