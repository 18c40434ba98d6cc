//! The halves of a scalar, and their digits.

use std::array::from_fn;

use super::{
    super::{
        super::{
            k256::{
                digits::Digits,
                eisenstein::{LUT, STEPS},
                halves::*,
            },
            kernel,
            vector::V,
        },
        big::{Big, lane, lanes, vector},
        kit::Rng,
        scalar::{extreme, value},
    },
    n,
};

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
fn check_halves(rng: &mut Rng) {
    let a = extreme(rng);
    let (halves, odd) = (split(&a), split_odd(&a));
    for k in 0..8 {
        let whole = value(&a, k).modulo(&n());
        assert_eq!(recombined(half(&halves.0, k), half(&halves.1, k)), whole);
        assert_eq!(recombined(odd_half(&odd.0, k), odd_half(&odd.1, k)), whole);
    }
}

#[test]
fn halves_make_the_whole() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(2);
    for _ in 0..150 {
        // SAFETY: there is a kernel, so the CPU has the features.
        unsafe { check_halves(&mut rng) };
    }
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
                let byte = lanes(*digit)[k];
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
