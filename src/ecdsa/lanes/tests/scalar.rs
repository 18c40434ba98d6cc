//! [`Scalar`], its inverses and its halves.

use std::array::from_fn;

use super::{
    super::{
        digits::{Digits, odd_digit},
        eisenstein::{LUT, STEPS},
        invert::invert,
        kernel,
        scalar::*,
        vector::V,
    },
    big::{Big, clean_lane, lane, n, vector},
    kit::Rng,
};

fn value(number: &Scalar, at: usize) -> Big {
    let limbs = clean_lane(&number.0, at);
    assert!(limbs[4] < 1 << 49);
    Big::from_limbs(&limbs, 52)
}

/// Dirty, below 2^257, often at the ends.
fn extreme(rng: &mut Rng) -> Scalar {
    Scalar(from_fn(|limb| {
        vector(from_fn(|_| if limb < 4 { rng.edge(52) | rng.next() << 52 } else { rng.edge(49) }))
    }))
}

fn negated_if(negative: bool, number: &Big) -> Big {
    let rest = number.modulo(&n());
    if negative { n().sub(&rest).modulo(&n()) } else { rest }
}

fn recombined((sign1, k1): (bool, Big), (sign2, k2): (bool, Big)) -> Big {
    let lambda = Big::from_hex("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72");
    negated_if(sign1, &k1).add(&negated_if(sign2, &k2.mul(&lambda))).modulo(&n())
}

/// A two's complement mod 2^156, at most 2^128 in magnitude.
fn half(limbs: &[V; 3], at: usize) -> (bool, Big) {
    let limbs = lane(limbs, at);
    assert!(limbs.iter().all(|&limb| limb < 1 << 52));
    let value = Big::from_limbs(&limbs, 52);
    let negative = limbs[2] >> 51 == 1;
    let magnitude = if negative { Big::power_of_two(156).sub(&value) } else { value };
    assert!(!Big::power_of_two(128).is_below(&magnitude));
    (negative, magnitude)
}

/// 2 K - (2^130 - 1): odd, below 2^129 in magnitude.
fn odd_half(limbs: &[V; 3], at: usize) -> (bool, Big) {
    let recoded = Big::from_limbs(&lane(limbs, at), 52);
    let twice = recoded.add(&recoded);
    let offset = Big::power_of_two(130).sub(&Big::power_of_two(0));
    let negative = twice.is_below(&offset);
    let magnitude = if negative { offset.sub(&twice) } else { twice.sub(&offset) };
    assert!(magnitude.is_below(&Big::power_of_two(129)) && magnitude.0[0] & 1 == 1);
    (negative, magnitude)
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn products_and_halves(rng: &mut Rng) {
    let (a, b) = (extreme(rng), extreme(rng));
    let product = a.montgomery(&b);
    let (halves, odd) = (split(&a), split_odd(&a));
    let constant = [3, 1 << 51, 0, (1 << 52) - 1, (1 << 48) - 1];
    let sum = a.plus_constant(&constant);
    for k in 0..8 {
        let (x, y) = (value(&a, k), value(&b, k));
        let scaled = value(&product, k).mul(&Big::power_of_two(260));
        assert_eq!(scaled.modulo(&n()), x.mul(&y).modulo(&n()));
        let whole = x.modulo(&n());
        assert_eq!(recombined(half(&halves.0, k), half(&halves.1, k)), whole);
        assert_eq!(recombined(odd_half(&odd.0, k), odd_half(&odd.1, k)), whole);
        let expected = x.add(&Big::from_limbs(&constant, 52));
        assert_eq!(Big::from_limbs(&clean_lane(&sum.0, k), 52), expected);
    }
    if value(&a, 0).modulo(&n()) != Big::zero() {
        let inverse = Big::from_limbs(&invert(&lane(&a.0, 0)), 52);
        assert!(inverse.is_below(&n()));
        assert_eq!(inverse.mul(&value(&a, 0)).modulo(&n()), Big::power_of_two(0));
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn inverses(rng: &mut Rng, vectors: usize) {
    let numbers: Vec<_> = (0..vectors)
        .map(|_| {
            // Not zero mod n.
            Scalar(from_fn(|limb| {
                vector(from_fn(|_| if limb < 4 { rng.next() } else { rng.edge(47) | 1 }))
            }))
        })
        .collect();
    let mut inverted = numbers.clone();
    invert_all(&mut inverted);
    for (number, inverse) in numbers.iter().zip(&inverted) {
        for k in 0..8 {
            let product = value(number, k).mul(&value(inverse, k)).modulo(&n());
            assert_eq!(product, Big::power_of_two(260).modulo(&n()));
        }
    }
}

#[test]
fn arithmetic_mod_n() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(2);
    for _ in 0..150 {
        // SAFETY: there is a kernel, so the CPU has the features.
        unsafe { products_and_halves(&mut rng) };
    }
    for vectors in 0..=VECTORS {
        // SAFETY: as above.
        unsafe { inverses(&mut rng, vectors) };
    }
}

#[test]
fn inverses_of_small_and_of_large_numbers() {
    let top = n().sub(&Big::power_of_two(0));
    for small in [1, 2, 3, 5, 1 << 51] {
        let inverse = Big::from_limbs(&invert(&[small, 0, 0, 0, 0]), 52);
        let number = Big::from_limbs(&[small], 64);
        assert_eq!(inverse.mul(&number).modulo(&n()), Big::power_of_two(0));
    }
    // n - 1 is its own inverse; so is 2 n - 1, which is the same number; and 2^258 - 1 fits.
    let less_one = super::super::constants::N52;
    let limbs = [less_one[0] - 1, less_one[1], less_one[2], less_one[3], less_one[4]];
    assert_eq!(Big::from_limbs(&invert(&limbs), 52), top);
    let largest = [u64::MAX, u64::MAX, u64::MAX, u64::MAX, (1 << 50) - 1];
    let number = Big::power_of_two(258).sub(&Big::power_of_two(0));
    let inverse = Big::from_limbs(&invert(&largest), 52);
    assert_eq!(inverse.mul(&number).modulo(&n()), Big::power_of_two(0));
}

/// The Eisenstein integer a + b w that a byte of [`LUT`] stands for.
fn eisenstein(byte: u64) -> (i128, i128) {
    let times_w = |(a, b): (i128, i128)| (-b, a - b);
    let mut entry = (1, 0);
    let mut unit = (1, 0);
    // Entry 1 is twice entry 0; the steps make the others.
    let steps = [0].into_iter().chain(STEPS);
    if byte & 0x80 != 0 {
        return (0, 0);
    }
    for step in steps.take(((byte & 0x3f) / 4) as usize) {
        unit = (0..step % 3).fold(unit, |unit, _| times_w(unit));
        if step >= 3 {
            unit = (-unit.0, -unit.1);
        }
        entry = (entry.0 + unit.0, entry.1 + unit.1);
    }
    let entry = (0..byte & 3).fold(entry, |entry, _| times_w(entry));
    if byte & 0x40 == 0 { entry } else { (-entry.0, -entry.1) }
}

/// The three limbs of a two's complement mod 2^156.
fn limbs_of(number: i128) -> [u64; 3] {
    let mask = (1 << 52) - 1;
    [0, 52, 104].map(|at| (number >> at) as u64 & mask)
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn digits_of(halves: &[[[u64; 3]; 2]; 8]) -> (Digits, u8) {
    let half = |which: usize| from_fn(|limb| vector(from_fn(|k| halves[k][which][limb])));
    let mut digits = Digits::new();
    let overrun = digits.fill(&Halves(half(0), half(1)));
    (digits, overrun)
}

/// The digits add up to the halves, up to the ends of their range; beyond it they say so.
#[test]
fn digits_of_halves() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(3);
    let (mut sound, mut overrun_lanes) = (0, 0);
    for _ in 0..200 {
        // Numbers of up to 127 bits and a sign: an i128 holds them.
        let numbers: [[i128; 2]; 8] = from_fn(|_| {
            from_fn(|_| {
                let high = rng.edge(63) as i128;
                let number = high << 64 | i128::from(rng.edge(64));
                if rng.below(2) == 0 { number } else { -number }
            })
        });
        let halves = numbers.map(|pair| pair.map(limbs_of));
        // SAFETY: there is a kernel, so the CPU has the features.
        let (digits, overrun) = unsafe { digits_of(&halves) };
        for (k, [k1, k2]) in numbers.iter().enumerate() {
            // Horner mod 2^128, which is exact for what fits.
            let (mut a, mut b) = (0i128, 0i128);
            for digit in digits.0.iter().rev() {
                let byte = super::big::lanes(*digit)[k];
                assert!(byte < 256 && LUT.contains(&(byte as u8)));
                let (da, db) = eisenstein(byte);
                a = a.wrapping_mul(8).wrapping_add(da);
                b = b.wrapping_mul(8).wrapping_add(db);
            }
            if overrun >> k & 1 == 0 {
                assert_eq!((a, b), (*k1, *k2));
                sound += 1;
            } else {
                overrun_lanes += 1;
            }
        }
    }
    assert!(sound > 1500, "{sound} {overrun_lanes}");
    // 2^128 and more: the top window cannot hold it with its carry.
    let far = [[u64::MAX >> 12, u64::MAX >> 12, (1 << 25) - 1]; 2];
    // SAFETY: as above.
    let (_, overrun) = unsafe { digits_of(&[far; 8]) };
    assert_eq!(overrun, 0xff);
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn odd_digits_of(limbs: [u64; 3]) -> Vec<i64> {
    let half = limbs.map(|limb| vector([limb; 8]));
    (0..10)
        .map(|window| {
            let (index, negative) = odd_digit(&half, 13 * window, 13);
            let magnitude = 2 * super::big::lanes(index)[5] as i64 + 1;
            if negative >> 5 & 1 == 1 { -magnitude } else { magnitude }
        })
        .collect()
}

/// K = sum of B_i 2^(13 i) has the digits 2 B_i - 8191.
#[test]
fn odd_digits() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(4);
    for _ in 0..200 {
        let windows: Vec<u64> = (0..10).map(|_| rng.edge(13)).collect();
        let mut limbs = [0; 3];
        for (i, window) in windows.iter().enumerate() {
            for bit in 0..13 {
                let at = 13 * i + bit;
                limbs[at / 52] |= (window >> bit & 1) << (at % 52);
            }
        }
        // SAFETY: there is a kernel, so the CPU has the features.
        let found = unsafe { odd_digits_of(limbs) };
        let expected: Vec<_> = windows.iter().map(|&window| 2 * window as i64 - 8191).collect();
        assert_eq!(found, expected);
    }
}
