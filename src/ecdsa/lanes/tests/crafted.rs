//! Signatures made to meet the exceptional cases: sums of equal and opposite points, infinity, r + n.

use std::array::from_fn;

use k256::{ProjectivePoint, Scalar, elliptic_curve::sec1::ToSec1Point};
use secp256k1::PublicKey;

use super::{
    super::{
        base_table::words,
        eisenstein::{LUT, T_CORR},
        kernel,
        scalar::{Scalar as Lanes, split, split_odd},
        vector::words_to_limbs,
    },
    big::{lanes, vector},
    kit::*,
};

/// Keys with structure: small multiples of G, of lambda G and lambda^2 G, powers of two, specials.
fn structured_keys(rng: &mut Rng, specials: &[[u8; 32]]) -> Vec<Scalar> {
    let mut keys: Vec<_> = (1..40).flat_map(|i| [signed(i), signed(-i)]).collect();
    keys.extend(specials.iter().map(|&number| scalar(number)));
    keys.extend((1..16).map(|i| lambda() * signed(i)));
    keys.extend((1..16).map(|i| lambda() * lambda() * signed(i)));
    keys.extend((0..130).map(|i| scalar(power_of_two(i))));
    keys.extend((0..40).map(|_| rng.scalar()));
    keys.retain(|key| *key != Scalar::ZERO);
    keys
}

#[test]
fn structured_scalars() {
    // One key in three is plenty for every run; all of them if more cases are asked for.
    let step = if setting("ECDSA_CASES", 0) > 100_000 { 1 } else { 5 };
    let mut rng = Rng(setting("ECDSA_SEED", 77));
    let specials = specials();
    let before = recomputed();
    let numbers: Vec<_> =
        (1..34).map(signed).chain(specials.iter().map(|&number| scalar(number))).collect();
    let mut cases = Vec::new();
    for q in structured_keys(&mut rng, &specials).iter().step_by(step) {
        let mut pairs: Vec<_> =
            (0..60).map(|_| (*rng.pick(&numbers), *rng.pick(&numbers))).collect();
        for _ in 0..6 {
            let u2 = if rng.below(2) == 0 { rng.scalar() } else { numbers[rng.below(33)] };
            let t = u2 * *q;
            // u1 G equal and opposite to u2 Q, to lambda u2 Q; the sum is G; z is zero.
            for u1 in [t, -t, t + Scalar::ONE, Scalar::ONE - t, Scalar::ZERO] {
                pairs.push((u1, u2));
            }
            pairs.push((lambda() * t, u2));
            pairs.push((-(lambda() * t), u2));
        }
        for (u1, u2) in pairs.into_iter().filter(|(_, u2)| *u2 != Scalar::ZERO) {
            let case = Case::crafted(&u1, &u2, q);
            let bit = rng.below(256);
            cases.extend([case, case.with_digest_bit(bit), case.with_negated_key()]);
        }
    }
    rng.shuffle(&mut cases);
    let good = compare_in_groups(&cases, &mut rng);
    assert!(good > cases.len() / 5);
    assert!(kernel().is_none() || recomputed() > before, "no lane met an exceptional case");
}

/// The key under which (r, s) is a good signature of the digest, with the nonce's point given.
fn recovered(point: &PublicKey, r: &Scalar, s: &Scalar, z: &Scalar) -> PublicKey {
    let nonce = k256::PublicKey::from_sec1_bytes(&point.serialize()).unwrap();
    let nonce = ProjectivePoint::from(*nonce.as_affine());
    let q = (nonce * s - ProjectivePoint::GENERATOR * z) * inverse(r);
    let q = k256::PublicKey::from_affine(q.to_affine()).unwrap();
    PublicKey::from_slice(q.to_sec1_point(true).as_bytes()).unwrap()
}

/// x between n and p: r = x - n. And the same small r as x itself.
#[test]
fn x_above_the_order() {
    let mut rng = Rng(5);
    let (mut cases, mut made) = (Vec::new(), 0);
    for r in 1..160 {
        for x in [plus(&order(), &small(r)), small(r)] {
            let sec1 = [&[2 + (r & 1) as u8][..], &x].concat();
            let Ok(point) = PublicKey::from_slice(&sec1) else { continue };
            let s = rng.scalar();
            let s = if is_high(&s) { -s } else { s };
            let digest = rng.bytes();
            let key = recovered(&point, &scalar(small(r)), &s, &scalar(digest));
            let case = Case { digest, signature: join(small(r), bytes(&s)), key };
            made += 1;
            cases.extend([case, case.with_digest_bit(29)]);
        }
    }
    assert!(made > 100);
    assert_eq!(compare_in_groups(&cases, &mut rng), made);
}

/// The low digits of a scalar's two halves.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn low_limbs(number: &Scalar, odd: bool) -> (u64, u64) {
    let number = Lanes(words_to_limbs(&words(&bytes(number)).map(|word| vector([word; 8]))));
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
    let digit =
        (0..byte & 3).fold(signed(a) + signed(b) * lambda(), |digit, _rotation| digit * lambda());
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
        let (u1, u2) = (rng.scalar(), rng.scalar());
        // SAFETY: there is a kernel, so the CPU has the features.
        let (k1, k2) = unsafe { low_limbs(&u1, true) };
        let digit = |low: u64| signed(2 * (low & 8191) as i64 - 8191);
        // The last two additions of G, and the last of Q before them.
        let (d1, d2) = (digit(k1), digit(k2) * lambda());
        let e = lowest_digit(&u2);
        let two = signed(2);
        let over = |sum: Scalar, by: Scalar| (sum - u1) * inverse(&by);
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
        let r = x_of(&(u1 + u2 * q)).unwrap();
        if !is_high(&(r * inverse(&u2))) {
            let case = Case::crafted(&u1, &u2, &q);
            cases.extend([case, case.with_digest_bit(i % 256)]);
        }
    }
    let before = recomputed();
    let good = compare_in_groups(&cases, &mut rng);
    assert_eq!(good, cases.len() / 2);
    assert!(recomputed() - before >= good as u64 * 9 / 10);
}

/// Scalars whose halves reach the far ends of their range: the digits still fit, or say so.
#[test]
fn halves_at_their_ends() {
    let mut rng = Rng(31);
    let numbers: Vec<Scalar> = (0..60)
        .map(|_| {
            let k: [Scalar; 2] =
                from_fn(|_| scalar(power_of_two(127)) - Scalar::from(rng.next() % 5));
            let k1 = if rng.below(2) == 0 { k[0] } else { -k[0] };
            let k2 = if rng.below(2) == 0 { k[1] } else { -k[1] };
            k1 + k2 * lambda()
        })
        .collect();
    let cases: Vec<_> = numbers
        .iter()
        .flat_map(|u2| {
            let case = Case::crafted(&rng.scalar(), u2, &rng.scalar());
            let other = Case::crafted(u2, &rng.scalar(), &rng.scalar());
            [case, other, case.with_digest_bit(7)]
        })
        .collect();
    assert_eq!(compare_in_groups(&cases, &mut rng), numbers.len() * 2);
}
