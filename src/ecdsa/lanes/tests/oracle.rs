//! Random signatures, spoiled in every way, in batches of every length.

use super::{both, kit::*};
use crate::VerifyingKey;

both! {
    random_signatures => random_signatures_k256, random_signatures_p256;
    /// One bad signature in every place of every length: no lane leaks into another.
    lanes_do_not_touch_each_other => lanes_do_not_touch_k256, lanes_do_not_touch_p256;
    /// All pairs of special r and s under special digests and keys.
    special_numbers => special_numbers_k256, special_numbers_p256;
    /// The ends of the ranges of r and s, on either side.
    ends_of_the_ranges => ends_of_the_ranges_k256, ends_of_the_ranges_p256;
    /// An r of n and more that is x of the very point.
    r_is_below_the_order => r_is_below_the_order_k256, r_is_below_the_order_p256;
}

/// Spoils the case, or not.
fn mutated<C: Tested>(rng: &mut Rng, case: &Case, other: &Case, specials: &[[u8; 32]]) -> Case {
    let Case { message, mut digest, mut signature, mut key } = *case;
    let (halves, _) = signature.as_chunks::<32>();
    let (r, s) = (halves[0], halves[1]);
    match rng.below(20) {
        0..=5 => {}
        6 => digest[rng.below(32)] ^= 1 << rng.below(8),
        7 | 8 => signature[rng.below(32)] ^= 1 << rng.below(8),
        9 | 10 => signature[32 + rng.below(32)] ^= 1 << rng.below(8),
        11 => key = other.key,
        // The high twin.
        12 => signature = join(r, minus(&C::order(), &s)),
        13 => signature = join(*rng.pick(specials), s),
        14 => signature = join(r, *rng.pick(specials)),
        15 => digest = *rng.pick(specials),
        16 => return case.with_negated_key(),
        17 => signature = join(minus(&C::order(), &r), s),
        18 => signature = join(rng.bytes(), s),
        _ => signature = join(*rng.pick(specials), *rng.pick(specials)),
    }
    Case { message, digest, signature, key }
}

fn random_signatures<C: Tested>() {
    let wanted = setting("ECDSA_CASES", 30_000);
    let mut rng = Rng(setting("ECDSA_SEED", 1) * 1000);
    let specials = C::specials();
    let (mut done, mut good) = (0, 0);
    while done < wanted {
        let fresh: Vec<_> = (0..16).map(|_| Case::valid::<C>(&mut rng)).collect();
        let mut pool: Vec<_> = (0..160)
            .map(|i| mutated::<C>(&mut rng, &fresh[i % 16], &fresh[(i + 1) % 16], &specials))
            .collect();
        rng.shuffle(&mut pool);
        good += compare_in_groups::<C>(&pool, &mut rng);
        done += pool.len() as u64;
    }
    assert!(good as u64 > done / 5 && (good as u64) < done / 2);
}

fn lanes_do_not_touch_each_other<C: Tested>() {
    let mut rng = Rng(9);
    let pool: Vec<_> = (0..20).map(|_| Case::valid::<C>(&mut rng)).collect();
    assert!(verdicts::<C>(&[]).is_empty());
    for len in 1..=pool.len() {
        assert!(verdicts::<C>(&pool[..len]).iter().all(|&good| good));
        for bad in 0..len {
            for how in 0..4 {
                let mut cases = pool[..len].to_vec();
                match how {
                    0 => cases[bad].digest[0] ^= 1,
                    1 => cases[bad].signature = [0; 64],
                    2 => cases[bad].signature = [0xff; 64],
                    _ => cases[bad] = cases[bad].with_negated_key(),
                }
                let expected: Vec<_> = (0..len).map(|i| i != bad).collect();
                assert_eq!(verdicts::<C>(&cases), expected, "{how}");
            }
        }
    }
}

fn special_numbers<C: Tested>() {
    let mut rng = Rng(11);
    let specials = C::specials();
    let keys: Vec<VerifyingKey> =
        specials.iter().filter_map(|&number| C::public(&C::scalar(number))).collect();
    let cases: Vec<_> = specials
        .iter()
        .flat_map(|&r| specials.iter().map(move |&s| join(r, s)))
        .map(|signature| Case::of_digest(*rng.pick(&specials), signature, *rng.pick(&keys)))
        .collect();
    compare_in_groups::<C>(&cases, &mut rng);
}

fn ends_of_the_ranges<C: Tested>() {
    let mut rng = Rng(13);
    let case = Case::valid::<C>(&mut rng);
    let (halves, _) = case.signature.as_chunks::<32>();
    let (n, half) = (C::order(), C::half_order());
    let ends =
        [[0; 32], small(1), half, plus(&half, &small(1)), minus(&n, &small(1)), n, [0xff; 32]];
    let mut cases = vec![case];
    for end in ends {
        cases.push(Case { signature: join(end, halves[1]), ..case });
        cases.push(Case { signature: join(halves[0], end), ..case });
    }
    // A good signature whose s is exactly the largest that is low, and its neighbour with s one
    // more: u2 = r / s, and the digest is free.
    for s in [C::scalar(half), C::scalar(plus(&half, &small(1)))] {
        let nonce = rng.scalar::<C>();
        let r = C::x_of(&nonce).unwrap();
        let q = rng.scalar::<C>();
        // s k = z + r q
        let z = s * nonce - r * q;
        let signature = join(C::bytes(&r), C::bytes(&s));
        cases.push(Case::of_digest(C::bytes(&z), signature, C::public(&q).unwrap()));
    }
    let last_two = verdicts::<C>(&cases)[cases.len() - 2..].to_vec();
    assert_eq!(last_two, [true, false]);
    assert_eq!(compare::<C>(&cases), 2);
    // r + n and s + n are the same residues where they fit, and yet no signatures.
    for small_number in 1..40 {
        let wrapped = plus(&n, &small(small_number));
        let cases = [
            Case { signature: join(wrapped, halves[1]), ..case },
            Case { signature: join(halves[0], wrapped), ..case },
        ];
        assert_eq!(compare::<C>(&cases), 0);
    }
}

fn r_is_below_the_order<C: Tested>() {
    let mut rng = Rng(17);
    let n = C::order();
    let mut cases = Vec::new();
    for above in 0..40 {
        let x = plus(&n, &small(above));
        let mut point = [2; 33];
        point[1..].copy_from_slice(&x);
        let Some(nonce) = C::key(&point) else { continue };
        let (r, s, z) = (C::scalar(x), rng.scalar::<C>(), rng.scalar::<C>());
        let s = if C::is_high(&s) { -s } else { s };
        if above > 0 {
            let key = C::recovered(&nonce, &r, &s, &z);
            cases.push(Case::of_digest(C::bytes(&z), join(x, C::bytes(&s)), key));
            cases.push(Case::of_digest(C::bytes(&z), join(C::bytes(&r), C::bytes(&s)), key));
        }
    }
    // Of each pair only the second is a signature.
    assert!(cases.len() >= 16);
    assert_eq!(compare::<C>(&cases), cases.len() / 2);
}
