//! Signatures made to meet the exceptional cases: sums of equal and opposite points, infinity, r + n.

use k256::elliptic_curve::Field;

use super::{super::kernel, both, kit::*};
use crate::Curve;

both! {
    structured_scalars => structured_scalars_k256, structured_scalars_p256;
    /// x between n and p: r = x - n. And the same small r as x itself.
    x_above_the_order => x_above_the_order_k256, x_above_the_order_p256;
}

/// A number whose products are structured on secp256k1, and mean nothing on P-256.
fn lambda<C: Tested>() -> C::Scalar {
    C::scalar(lambda_bytes())
}

/// Keys with structure: small multiples of G, of lambda G and lambda^2 G, powers of two, specials.
fn structured_keys<C: Tested>(rng: &mut Rng, specials: &[[u8; 32]]) -> Vec<C::Scalar> {
    let mut keys: Vec<_> = (1..40).flat_map(|i| [C::signed(i), C::signed(-i)]).collect();
    keys.extend(specials.iter().map(|&number| C::scalar(number)));
    keys.extend((1..16).map(|i| lambda::<C>() * C::signed(i)));
    keys.extend((1..16).map(|i| lambda::<C>() * lambda::<C>() * C::signed(i)));
    keys.extend((0..130).map(|i| C::scalar(power_of_two(i))));
    keys.extend((0..40).map(|_| rng.scalar::<C>()));
    keys.retain(|key| *key != C::Scalar::ZERO);
    keys
}

fn structured_scalars<C: Tested>() {
    // Some of the keys are plenty for every run; all of them if more cases are asked for. (The only
    // library for P-256 that takes a digest is slow.)
    let step = match C::CURVE {
        _ if setting("ECDSA_CASES", 0) > 100_000 => 1,
        Curve::K256 => 5,
        Curve::P256 => 20,
    };
    let mut rng = Rng(setting("ECDSA_SEED", 77));
    let specials = C::specials();
    let before = undecided::<C>();
    let numbers: Vec<_> =
        (1..34).map(C::signed).chain(specials.iter().map(|&number| C::scalar(number))).collect();
    let mut cases = Vec::new();
    for q in structured_keys::<C>(&mut rng, &specials).iter().step_by(step) {
        let mut pairs: Vec<_> =
            (0..60).map(|_| (*rng.pick(&numbers), *rng.pick(&numbers))).collect();
        for _ in 0..6 {
            let u2 = if rng.below(2) == 0 { rng.scalar::<C>() } else { numbers[rng.below(33)] };
            let t = u2 * *q;
            // u1 G equal and opposite to u2 Q, to lambda u2 Q; the sum is G; z is zero.
            for u1 in [t, -t, t + C::Scalar::ONE, C::Scalar::ONE - t, C::Scalar::ZERO] {
                pairs.push((u1, u2));
            }
            pairs.push((lambda::<C>() * t, u2));
            pairs.push((-(lambda::<C>() * t), u2));
        }
        for (u1, u2) in pairs.into_iter().filter(|(_, u2)| *u2 != C::Scalar::ZERO) {
            let case = Case::crafted::<C>(&u1, &u2, q);
            let bit = rng.below(256);
            cases.extend([case, case.with_digest_bit(bit), case.with_negated_key()]);
        }
    }
    rng.shuffle(&mut cases);
    let good = compare_in_groups::<C>(&cases, &mut rng);
    assert!(good > cases.len() / 5);
    assert!(kernel().is_none() || undecided::<C>() > before, "no lane met an exceptional case");
}

/// Small numbers, and those just below p - n: the largest r that may stand for r + n.
fn small_r<C: Tested>() -> impl Iterator<Item = [u8; 32]> {
    let gap = minus(&hex(C::FIELD_SIZE), &C::order());
    (1..100).flat_map(move |number| [small(number), minus(&gap, &small(number))])
}

fn x_above_the_order<C: Tested>() {
    let mut rng = Rng(5);
    let (mut cases, mut made) = (Vec::new(), 0);
    for r in small_r::<C>() {
        for x in [plus(&C::order(), &r), r] {
            let sec1 = [&[2 + (r[31] & 1)][..], &x].concat();
            let Some(nonce) = C::key(&sec1) else { continue };
            let s = rng.scalar::<C>();
            let s = if C::is_high(&s) { -s } else { s };
            let digest = rng.bytes();
            let key = C::recovered(&nonce, &C::scalar(r), &s, &C::scalar(digest));
            let case = Case::of_digest(digest, join(r, C::bytes(&s)), key);
            made += 1;
            cases.extend([case, case.with_digest_bit(29)]);
        }
    }
    assert!(made > 100);
    assert_eq!(compare_in_groups::<C>(&cases, &mut rng), made);
}
