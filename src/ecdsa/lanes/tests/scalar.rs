//! [`Scalar`] and its inverses for each modulus, and odd digits.

use std::array::from_fn;

use super::{
    super::{digits::odd_digit, invert::invert, k256, kernel, p256, scalar::*},
    big::{Big, clean_lane, lane, lanes, vector},
    kit::Rng,
};

pub(super) fn value(number: &Scalar, at: usize) -> Big {
    let limbs = clean_lane(&number.0, at);
    assert!(limbs[4] < 1 << 49);
    Big::from_limbs(&limbs, 52)
}

/// Dirty, below 2^257, often at the ends.
pub(super) fn extreme(rng: &mut Rng) -> Scalar {
    Scalar(from_fn(|limb| {
        vector(from_fn(|_| if limb < 4 { rng.edge(52) | rng.next() << 52 } else { rng.edge(49) }))
    }))
}

fn modulus<M: Modulus>() -> Big {
    let modulus = Big::from_limbs(&M::LIMBS, 52);
    assert_eq!(Big::from_limbs(&M::FOR_INVERSION.limbs, 62), modulus);
    modulus
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn products<M: Modulus>(rng: &mut Rng) {
    let m = modulus::<M>();
    let (a, b) = (extreme(rng), extreme(rng));
    let product = a.montgomery::<M>(&b);
    let constant = [3, 1 << 51, 0, (1 << 52) - 1, (1 << 48) - 1];
    let sum = a.plus_constant(&constant);
    for k in 0..8 {
        let (x, y) = (value(&a, k), value(&b, k));
        let scaled = value(&product, k).mul(&Big::power_of_two(260));
        assert_eq!(scaled.modulo(&m), x.mul(&y).modulo(&m));
        let expected = x.add(&Big::from_limbs(&constant, 52));
        assert_eq!(Big::from_limbs(&clean_lane(&sum.0, k), 52), expected);
    }
    if value(&a, 0).modulo(&m) != Big::zero() {
        let inverse = Big::from_limbs(&invert(&M::FOR_INVERSION, &lane(&a.0, 0)), 52);
        assert!(inverse.is_below(&m));
        assert_eq!(inverse.mul(&value(&a, 0)).modulo(&m), Big::power_of_two(0));
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn inverses<M: Modulus>(rng: &mut Rng, vectors: usize) {
    let numbers: Vec<_> = (0..vectors)
        .map(|_| {
            // Not zero mod n.
            Scalar(from_fn(|limb| {
                vector(from_fn(|_| if limb < 4 { rng.next() } else { rng.edge(47) | 1 }))
            }))
        })
        .collect();
    let mut inverted = numbers.clone();
    invert_all::<M>(&mut inverted);
    for (number, inverse) in numbers.iter().zip(&inverted) {
        for k in 0..8 {
            let product = value(number, k).mul(&value(inverse, k)).modulo(&modulus::<M>());
            assert_eq!(product, Big::power_of_two(260).modulo(&modulus::<M>()));
        }
    }
}

fn arithmetic<M: Modulus>() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(2);
    for _ in 0..150 {
        // SAFETY: there is a kernel, so the CPU has the features.
        unsafe { products::<M>(&mut rng) };
    }
    for vectors in 0..=VECTORS {
        // SAFETY: as above.
        unsafe { inverses::<M>(&mut rng, vectors) };
    }
}

#[test]
fn arithmetic_modulo_each() {
    arithmetic::<k256::Order>();
    arithmetic::<p256::Order>();
    arithmetic::<p256::Prime>();
}

fn small_and_large<M: Modulus>() {
    let top = modulus::<M>().sub(&Big::power_of_two(0));
    for small in [1, 2, 3, 5, 1 << 51] {
        let inverse = Big::from_limbs(&invert(&M::FOR_INVERSION, &[small, 0, 0, 0, 0]), 52);
        let number = Big::from_limbs(&[small], 64);
        assert_eq!(inverse.mul(&number).modulo(&modulus::<M>()), Big::power_of_two(0));
    }
    // m - 1 is its own inverse; so is 2 m - 1, which is the same number; and 2^258 - 1 fits.
    let less_one = M::LIMBS;
    let limbs = [less_one[0] - 1, less_one[1], less_one[2], less_one[3], less_one[4]];
    assert_eq!(Big::from_limbs(&invert(&M::FOR_INVERSION, &limbs), 52), top);
    let largest = [u64::MAX, u64::MAX, u64::MAX, u64::MAX, (1 << 50) - 1];
    let number = Big::power_of_two(258).sub(&Big::power_of_two(0));
    let inverse = Big::from_limbs(&invert(&M::FOR_INVERSION, &largest), 52);
    assert_eq!(inverse.mul(&number).modulo(&modulus::<M>()), Big::power_of_two(0));
    // Zero, in each of its forms, has none.
    assert_eq!(invert(&M::FOR_INVERSION, &[0; 5]), [0; 5]);
    assert_eq!(invert(&M::FOR_INVERSION, &M::LIMBS), [0; 5]);
}

#[test]
fn inverses_of_small_and_of_large_numbers() {
    small_and_large::<k256::Order>();
    small_and_large::<p256::Order>();
    small_and_large::<p256::Prime>();
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn odd_digits_of(limbs: [u64; 3]) -> Vec<i64> {
    let half = limbs.map(|limb| vector([limb; 8]));
    (0..10)
        .map(|window| {
            let (index, negative) = odd_digit(&half, 13 * window, 13);
            let magnitude = 2 * lanes(index)[5] as i64 + 1;
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
