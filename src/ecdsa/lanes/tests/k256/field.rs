//! [`Field`], [`Loose`] and [`Columns`] at the ends of their domains.

use std::array::from_fn;

use super::{
    super::{
        super::{
            k256::{constants::*, field::*},
            kernel,
            vector::V,
        },
        big::{Big, clean_lane, lane, vector},
        kit::Rng,
    },
    p,
};

/// The value in a lane, after checking the bound of limb 4.
fn value(number: &Field, at: usize) -> Big {
    let limbs = clean_lane(&number.0, at);
    assert!(limbs[4] <= TOP_LIMB_MAX, "limb 4: {:#x}", limbs[4]);
    Big::from_limbs(&limbs, 52)
}

fn residue(number: &Field, at: usize) -> Big {
    value(number, at).modulo(&p())
}

fn limbs_modulo<const LIMBS: usize>(limbs: &[V; LIMBS], at: usize) -> Big {
    Big::from_limbs(&lane(limbs, at), 52).modulo(&p())
}

/// Junk above bit 52, limb 4 up to its bound.
fn extreme(rng: &mut Rng) -> Field {
    Field(from_fn(|limb| {
        vector(from_fn(|_| match (limb, rng.next() % 3) {
            (0..4, _) => rng.edge(52) | rng.next() << 52,
            (_, 0) => TOP_LIMB_MAX,
            (_, 1) => rng.edge(48),
            _ => rng.edge(12),
        }))
    }))
}

fn loose(rng: &mut Rng, bits: u32) -> Loose {
    Loose(from_fn(|_| vector(from_fn(|_| rng.edge(bits)))))
}

fn columns(rng: &mut Rng, column8_bits: u32) -> Columns {
    Columns(from_fn(|column| {
        let bits = match column {
            9 => 52,
            8 => column8_bits,
            _ => 60,
        };
        vector(from_fn(|_| rng.edge(bits)))
    }))
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn products(rng: &mut Rng) {
    let (a, b) = (extreme(rng), extreme(rng));
    let (product, square) = (a.mul_loose(&b), a.square_loose());
    // The largest columns in use.
    let sum = Columns::square(&a).shl::<3>().plus_product(&b, &a).fold_carry();
    let plus = a.mul_plus(&b, &b.clean());
    for k in 0..8 {
        let (x, y) = (value(&a, k), value(&b, k));
        let (xy, xx) = (x.mul(&y), x.mul(&x));
        // The point formulas rely on it: one product folds to limbs < 2^56.
        let limbs = [lane(&product.0, k), lane(&square.0, k)];
        assert!(limbs.as_flattened().iter().all(|&limb| limb < 1 << 56));
        for (found, expected) in [
            (product.carry(), &xy),
            (square.carry(), &xx),
            (a.mul(&b), &xy),
            (a.square(), &xx),
            (sum, &xx.shl(3).add(&xy)),
            (plus, &xy.add(&y)),
        ] {
            assert_eq!(residue(&found, k), expected.modulo(&p()));
        }
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn folds(rng: &mut Rng) {
    let old = extreme(rng);
    let mask = rng.next() as u8;
    let narrow = columns(rng, 57);
    let wide = columns(rng, 60);
    let sum = loose(rng, 63);
    let kept = |new: &Field, masked: &Field, k: usize| {
        let expected = if mask >> k & 1 == 1 { new } else { &old };
        assert_eq!(value(masked, k), value(expected, k));
    };
    for k in 0..8 {
        let folded = narrow.fold_carry();
        assert_eq!(residue(&folded, k), limbs_modulo(&narrow.0, k));
        kept(&folded, &narrow.fold_carry_masked(&old, mask), k);

        let folded = wide.fold();
        assert!(lane(&folded.0, k).iter().all(|&limb| limb < 1 << 61));
        assert_eq!(limbs_modulo(&folded.0, k), limbs_modulo(&wide.0, k));
        assert_eq!(residue(&folded.carry(), k), limbs_modulo(&wide.0, k));

        let carried = sum.carry();
        assert_eq!(residue(&carried, k), limbs_modulo(&sum.0, k));
        kept(&carried, &sum.carry_masked(&old, mask), k);
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn zeroes() {
    let is_zero = |limbs: [u64; 5]| Field(limbs.map(|limb| vector([limb; 8]))).is_zero();
    let mut near_p = P52;
    assert_eq!(is_zero([0; 5]), 0xff);
    assert_eq!(is_zero(near_p), 0xff);
    near_p[0] |= 0xabc << 52;
    assert_eq!(is_zero(near_p), 0xff);
    near_p[0] += 1;
    assert_eq!(is_zero(near_p), 0);
    near_p[0] -= 2;
    assert_eq!(is_zero(near_p), 0);
    for limb in 0..5 {
        let mut limbs = [0; 5];
        limbs[limb] = 1;
        assert_eq!(is_zero(limbs), 0);
    }
    assert_eq!(is_zero([1 << 52, 0, 0, 0, 0]), 0xff);
}

#[test]
fn arithmetic_mod_p() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(1);
    for _ in 0..150 {
        // SAFETY: there is a kernel, so the CPU has the features.
        unsafe {
            products(&mut rng);
            folds(&mut rng);
        }
    }
    // SAFETY: as above.
    unsafe { zeroes() };
}

#[cfg(debug_assertions)]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn break_a_bound(which: usize) {
    let mut rng = Rng(9);
    let mut number = extreme(&mut rng);
    let with = |limb: u64| Loose([vector([0, 0, 0, limb, 0, 0, 0, 0]); 5]);
    match which {
        0 => {
            number.0[4] = vector([0, 0, TOP_LIMB_MAX + 1, 0, 0, 0, 0, 0]);
            number.square();
        }
        1 => {
            number.0[4] = vector([0, 0, 0, 0, 0, 0, 0, TOP_LIMB_MAX + 1]);
            extreme(&mut rng).mul(&number);
        }
        2 => {
            with(1 << 63).carry();
        }
        3 => {
            with(5).sub(&with(6));
        }
        4 => {
            with(1 << 62).shl::<2>();
        }
        _ => {
            let mut columns = columns(&mut rng, 57);
            columns.0[8] = vector([1 << 57; 8]);
            columns.fold_carry();
        }
    }
}

/// The checking build checks.
#[cfg(debug_assertions)]
#[test]
fn broken_bounds_are_noticed() {
    if kernel().is_none() {
        return;
    }
    for which in 0..6 {
        // SAFETY: there is a kernel, so the CPU has the features.
        let broken = std::panic::catch_unwind(|| unsafe { break_a_bound(which) });
        assert!(broken.is_err(), "bound {which}");
    }
}
