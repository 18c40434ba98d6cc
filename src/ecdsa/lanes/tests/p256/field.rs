//! [`Field`], [`Loose`] and [`Columns`] at the ends of their domains.

use std::array::from_fn;

use super::{
    super::{
        super::{
            kernel,
            p256::{constants::*, field::*},
            vector::V,
        },
        big::{Big, clean_lane, lane, vector},
        kit::Rng,
    },
    p,
};

fn value(number: &Field, at: usize) -> Big {
    let limbs = clean_lane(&number.0, at);
    assert!(limbs[4] < 1 << 52, "limb 4: {:#x}", limbs[4]);
    Big::from_limbs(&limbs, 52)
}

/// Signed limbs or columns, mod p.
fn residue<const LIMBS: usize>(limbs: &[V; LIMBS], at: usize) -> Big {
    let limbs = lane(limbs, at).map(|limb| limb as i64);
    let part = |negative: bool| {
        let magnitudes =
            limbs.map(|limb| if (limb < 0) == negative { limb.unsigned_abs() } else { 0 });
        Big::from_limbs(&magnitudes, 52).modulo(&p())
    };
    part(false).add(&p()).sub(&part(true)).modulo(&p())
}

/// x 2^260 mod p.
fn scaled(number: &Big) -> Big {
    number.shl(260).modulo(&p())
}

/// Junk above bit 52, limb 4 below 2^`top`.
fn extreme(rng: &mut Rng, top: u32) -> Field {
    Field(from_fn(|limb| {
        vector(from_fn(|_| match (limb, rng.next() % 3) {
            (0..4, _) => rng.edge(52) | rng.next() << 52,
            (_, 0) => (1 << top) - 1,
            (_, 1) => rng.edge(top),
            _ => rng.edge(12),
        }))
    }))
}

/// Signed, within 2^bits, often at the ends.
fn signed(rng: &mut Rng, bits: u32) -> u64 {
    rng.edge(bits + 1).wrapping_sub(1 << bits)
}

/// Limbs within 2^bits that make a number in [0, 2^(208 + top)).
fn loose(rng: &mut Rng, bits: u32, top: u32) -> Loose {
    let carry = 1 << (bits - 51);
    Loose(from_fn(|limb| {
        vector(from_fn(|_| match limb {
            0..4 => signed(rng, bits),
            _ => (carry + rng.edge(top)).min((1 << top) - 1 - carry),
        }))
    }))
}

fn columns(rng: &mut Rng) -> Columns {
    Columns(from_fn(|_| vector(from_fn(|_| signed(rng, 61)))))
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn products(rng: &mut Rng) {
    let (a, b) = (extreme(rng, 52), extreme(rng, 51));
    let addend = loose(rng, 60, 51);
    let (product, square) = (a.mul_loose(&b), b.square_loose());
    // The largest columns in use.
    let sum = Columns::square(&b).shl::<3>().plus_product(&b, &a).reduce();
    let plus = a.mul_plus(&extreme(rng, 12), &Loose([vector([5; 8]); 5]));
    let columns = Columns::product(&a, &b).0;
    for k in 0..8 {
        let (x, y) = (value(&a, k), value(&b, k));
        let (xy, yy) = (x.mul(&y), y.mul(&y));
        for (found, expected) in [(product, &xy), (square, &yy)] {
            let carried = found.carry();
            let carried = value(&carried, k);
            // ab / 2^260 + p is not reached.
            assert!(carried.shl(260).is_below(&expected.add(&p().shl(260))));
            assert_eq!(scaled(&carried), expected.modulo(&p()));
        }
        assert_eq!(scaled(&value(&a.mul(&b), k)), xy.modulo(&p()));
        assert_eq!(scaled(&value(&b.square(), k)), yy.modulo(&p()));
        assert_eq!(scaled(&residue(&sum.0, k)), yy.shl(3).add(&xy).modulo(&p()));
        assert!(value(&plus, k).is_below(&Big::power_of_two(260)));
        assert_eq!(Big::from_limbs(&lane(&columns, k), 52), xy);
        assert_eq!(residue(&addend.add(&product).0, k), {
            residue(&addend.0, k).add(&residue(&product.0, k)).modulo(&p())
        });
        assert_eq!(residue(&addend.sub(&product).0, k), {
            residue(&addend.0, k).add(&p()).sub(&residue(&product.0, k)).modulo(&p())
        });
    }
}

/// ab + l, with an l of its own for each lane.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn sums(rng: &mut Rng) {
    let (a, b) = (extreme(rng, 50), extreme(rng, 50));
    let addend = extreme(rng, 49).clean();
    let found = a.mul_plus(&b, &addend);
    for k in 0..8 {
        let expected = value(&a, k).mul(&value(&b, k)).add(&residue(&addend.0, k).shl(260));
        assert_eq!(scaled(&value(&found, k)), expected.modulo(&p()));
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn carries(rng: &mut Rng) {
    let wide = columns(rng);
    let sum = loose(rng, 61, 52);
    let tall = loose(rng, 59, 56);
    let limit = Big::power_of_two(256).add(&Big::power_of_two(233));
    for k in 0..8 {
        assert_eq!(scaled(&residue(&wide.reduce().0, k)), residue(&wide.0, k));
        let carried = value(&sum.carry(), k);
        assert_eq!(carried.modulo(&p()), residue(&sum.0, k));
        let folded = value(&tall.fold(), k);
        assert!(folded.is_below(&limit));
        assert_eq!(folded.modulo(&p()), residue(&tall.0, k));
        assert_eq!(residue(&sum.shl::<1>().0, k), residue(&sum.0, k).shl(1).modulo(&p()));
    }
}

/// Numbers next to zero and to 2^256, where the folded bits are read before all carries are in.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn folds_near_the_edge() {
    let edge = 1u64 << 48;
    for (l3, l4) in [
        (0, 0),
        (1 << 59, 0),
        ((1u64 << 59).wrapping_neg(), 1 << 7),
        ((1u64 << 59).wrapping_neg(), edge),
        (1 << 59, edge - 1),
        (1 << 59, (1u64 << 7).wrapping_neg()),
    ] {
        let number = Loose([0, 0, 0, l3, l4].map(|limb| vector([limb; 8])));
        let folded = number.fold();
        assert_eq!(value(&folded, 6).modulo(&p()), residue(&number.0, 6), "{l3:#x} {l4:#x}");
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn forms(rng: &mut Rng) {
    let plain: [V; 5] = extreme(rng, 48).0;
    let (form, reduced) = (Field::from_plain(&plain), Field::reduced_from_plain(&plain));
    for k in 0..8 {
        let expected = scaled(&value(&Field(plain), k));
        assert_eq!(value(&form, k).modulo(&p()), expected);
        let found = Big::from_limbs(&lane(&reduced.0, k), 52);
        assert!(found == expected || (expected == Big::zero() && found == p()));
    }
    let one = Field::one();
    assert_eq!(value(&one, 3), scaled(&Big::power_of_two(0)));
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn zeroes() {
    let is_zero = |limbs: [u64; 5]| Field(limbs.map(|limb| vector([limb; 8]))).is_zero();
    for times in 0..16 {
        // Dirty limbs: the multiples are not carried.
        let mut carried = [0; 5];
        let mut carry = 0;
        for i in 0..5 {
            carry += times * P52[i];
            carried[i] = if i < 4 { carry & ((1 << 52) - 1) } else { carry };
            carry >>= 52;
        }
        assert_eq!(is_zero(carried), 0xff, "{times}");
        carried[0] |= 0xabc << 52;
        assert_eq!(is_zero(carried), 0xff, "{times}");
        for limb in 0..5 {
            let mut near = carried;
            near[limb] ^= 1;
            assert_eq!(is_zero(near), 0, "{times}");
        }
    }
    let mut one_lane = Field([vector([0; 8]); 5]);
    one_lane.0[2] = vector([9, 9, 9, 0, 9, 9, 9, 9]);
    assert_eq!(one_lane.is_zero(), 0b1000);
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
            sums(&mut rng);
            carries(&mut rng);
            forms(&mut rng);
        }
    }
    // SAFETY: as above.
    unsafe {
        zeroes();
        folds_near_the_edge();
    }
}

#[cfg(debug_assertions)]
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn break_a_bound(which: usize) {
    let mut rng = Rng(9);
    let with = |limb: u64| Loose([vector([0, 0, 0, limb, 0, 0, 0, 0]); 5]);
    let top = |limb: u64| {
        let mut number = extreme(&mut Rng(3), 12);
        number.0[4] = vector([0, 0, 0, 0, 0, 0, 0, limb]);
        number
    };
    match which {
        0 => _ = top(1 << 51).square(),
        1 => _ = extreme(&mut rng, 12).mul(&top(1 << 52)),
        2 => _ = with(1 << 62).carry(),
        // Negative, and 16 U.
        3 => _ = with(5).sub(&with(6)).carry(),
        4 => _ = Loose(top(1 << 52).0).carry(),
        5 => _ = with(1 << 60).fold(),
        6 => _ = Loose(top(1 << 57).0).fold(),
        7 => _ = with(1 << 61).shl::<2>(),
        _ => {
            let mut columns = columns(&mut rng);
            columns.0[8] = vector([1 << 61; 8]);
            columns.reduce();
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
    for which in 0..9 {
        // SAFETY: there is a kernel, so the CPU has the features.
        let broken = std::panic::catch_unwind(|| unsafe { break_a_bound(which) });
        assert!(broken.is_err(), "bound {which}");
    }
}
