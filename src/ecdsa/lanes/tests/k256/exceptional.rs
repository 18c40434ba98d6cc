//! Good signatures that meet exceptional additions, and halves at the ends of their range.

use std::array::from_fn;

use k256::Scalar;

use super::{
    super::{
        super::{
            batch::words,
            k256::{
                eisenstein::{LUT, T_CORR},
                halves::{split, split_odd},
            },
            kernel,
            scalar::Scalar as Lanes,
            vector::words_to_limbs,
        },
        big::{lanes, vector},
        kit::*,
    },
    lambda,
};

/// The low digits of a scalar's two halves.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn low_limbs(number: &Scalar, odd: bool) -> (u64, u64) {
    let number = Lanes(words_to_limbs(&words(&K256::bytes(number)).map(|word| vector([word; 8]))));
    let halves = if odd { split_odd(&number.plus_constant(&T_CORR)) } else { split(&number) };
    (lanes(halves.0[0])[0], lanes(halves.1[0])[0])
}

/// What the lowest digit of u2 multiplies Q with.
fn lowest_digit(u2: &Scalar) -> Scalar {
    // The path of `eisenstein.rs`.
    const PATH: [(i64, i64); 11] =
        [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (3, 1), (2, 1), (3, 2), (4, 3), (4, 2), (5, 3)];
    // SAFETY: the caller has found a kernel, so the CPU has the features.
    let (k1, k2) = unsafe { low_limbs(u2, false) };
    let byte = LUT[(k1 & 7 | (k2 & 7) << 3) as usize];
    if byte == 0x80 {
        return Scalar::ZERO;
    }
    let (a, b) = PATH[usize::from(byte & 63) / 4];
    let digit = (0..byte & 3)
        .fold(K256::signed(a) + K256::signed(b) * lambda(), |digit, _rotation| digit * lambda());
    if byte & 0x40 == 0 { digit } else { -digit }
}

/// *Good* signatures whose verification meets an exceptional addition near its end: the digits of u1
/// and u2 are known beforehand, so the key is chosen to make a partial sum equal, or opposite, to
/// what is added next.
#[test]
fn exceptional_and_yet_good() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(21);
    let mut cases = Vec::new();
    for i in 0..600 {
        let (u1, u2) = (rng.scalar::<K256>(), rng.scalar::<K256>());
        // SAFETY: there is a kernel, so the CPU has the features.
        let (k1, k2) = unsafe { low_limbs(&u1, true) };
        let digit = |low: u64| K256::signed(2 * (low & 8191) as i64 - 8191);
        // The last two additions of G, and the last of Q before them.
        let (d1, d2) = (digit(k1), digit(k2) * lambda());
        let e = lowest_digit(&u2);
        let two = K256::signed(2);
        let over = |sum: Scalar, by: Scalar| (sum - u1) * K256::inverse(&by);
        let q = match i % 5 {
            // The last addition: equal points. The one before: equal, opposite.
            0 => over(two * d2, u2),
            1 => over(two * d1 + d2, u2),
            2 => over(d2, u2),
            // The last addition of the key: opposite, equal.
            3 => over(d1 + d2, u2),
            _ => over(d1 + d2, u2 - two * e),
        };
        // s must not become negative: that would change the digits.
        let r = K256::x_of(&(u1 + u2 * q)).unwrap();
        if !K256::is_high(&(r * K256::inverse(&u2))) {
            let case = Case::crafted::<K256>(&u1, &u2, &q);
            cases.extend([case, case.with_digest_bit(i % 256)]);
        }
    }
    let before = undecided::<K256>();
    let good = compare_in_groups::<K256>(&cases, &mut rng);
    assert_eq!(good, cases.len() / 2);
    assert!(undecided::<K256>() - before >= good as u64 * 9 / 10);
}

/// Scalars whose halves reach the far ends of their range: the digits still fit, or say so.
#[test]
fn halves_at_their_ends() {
    let mut rng = Rng(31);
    let numbers: Vec<Scalar> = (0..60)
        .map(|_| {
            let k: [Scalar; 2] =
                from_fn(|_| K256::scalar(power_of_two(127)) - Scalar::from(rng.next() % 5));
            let k1 = if rng.below(2) == 0 { k[0] } else { -k[0] };
            let k2 = if rng.below(2) == 0 { k[1] } else { -k[1] };
            k1 + k2 * lambda()
        })
        .collect();
    let cases: Vec<_> = numbers
        .iter()
        .flat_map(|u2| {
            let case = Case::crafted::<K256>(&rng.scalar::<K256>(), u2, &rng.scalar::<K256>());
            let other = Case::crafted::<K256>(u2, &rng.scalar::<K256>(), &rng.scalar::<K256>());
            [case, other, case.with_digest_bit(7)]
        })
        .collect();
    assert_eq!(compare_in_groups::<K256>(&cases, &mut rng), numbers.len() * 2);
}
