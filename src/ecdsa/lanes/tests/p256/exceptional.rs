//! Good signatures whose verification meets an exceptional addition: the digits of u1 and u2 are
//! known beforehand, so the key is chosen to make a partial sum equal, or opposite, to what is added
//! next.

use p256::Scalar;

use super::super::{
    super::{
        batch::words, digits::odd_digit, kernel, p256::point::odd_bits, scalar::Scalar as Lanes,
        vector::words_to_limbs,
    },
    big::{lanes, vector},
    kit::*,
};

/// The digits of a scalar below n, lowest first.
#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn digits(number: &Scalar, window: u32) -> Vec<Scalar> {
    let words = words(&P256::bytes(number));
    let bits = odd_bits(&Lanes(words_to_limbs(&words.map(|word| vector([word; 8])))));
    (0..260 / window)
        .map(|i| {
            let (index, negative) = odd_digit(&bits, i * window, window);
            let magnitude = 2 * lanes(index)[3] as i64 + 1;
            P256::signed(if negative >> 3 & 1 == 1 { -magnitude } else { magnitude })
        })
        .collect()
}

/// The sum of the digits from `from` on, as it stands when bit `at` has been reached.
fn prefix(digits: &[Scalar], window: usize, from: usize, at: usize) -> Scalar {
    digits.iter().enumerate().skip(from).rev().fold(Scalar::ZERO, |sum, (i, digit)| {
        sum + *digit * P256::scalar(power_of_two(i * window - at))
    })
}

/// A key q that makes u1 + u2 q meet, at addition number `which` of G (or of Q), a sum that is `sign`
/// times what is added.
fn key(u1: &Scalar, u2: &Scalar, of_g: bool, which: usize, sign: i64) -> Scalar {
    // SAFETY: the caller has found a kernel, so the CPU has the features.
    let (g, q) = unsafe { (digits(u1, 13), digits(u2, 5)) };
    let sign = P256::signed(sign);
    if of_g {
        // At bit 13 i; the digit of Q, if there is one at this bit, has been added before.
        let at = 13 * which;
        let have_g = prefix(&g, 13, which + 1, at);
        let have_q = prefix(&q, 5, at.div_ceil(5), at);
        (sign * g[which] - have_g) * P256::inverse(&have_q)
    } else {
        let at = 5 * which;
        let have_g = prefix(&g, 13, at / 13 + 1, at);
        let have_q = prefix(&q, 5, which + 1, at);
        -have_g * P256::inverse(&(have_q - sign * q[which]))
    }
}

#[test]
fn exceptional_and_yet_good() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(21);
    let mut cases = Vec::new();
    for i in 0..400 {
        let (u1, u2) = (rng.scalar::<P256>(), rng.scalar::<P256>());
        let of_g = i % 2 == 0;
        let which = match i % 3 {
            0 => 0,
            _ => rng.below(if of_g { 20 } else { 49 }),
        };
        let sign = if i % 8 < 4 { 1 } else { -1 };
        if of_g && which == 0 && sign < 0 {
            // The sum is infinity: no good signature.
            continue;
        }
        let q = key(&u1, &u2, of_g, which, sign);
        // s must not become negative: that would change the digits.
        let r = P256::x_of(&(u1 + u2 * q)).unwrap();
        if !P256::is_high(&(r * P256::inverse(&u2))) {
            let case = Case::crafted::<P256>(&u1, &u2, &q);
            cases.extend([case, case.with_digest_bit(i % 256)]);
        }
    }
    let before = undecided::<P256>();
    let good = compare_in_groups::<P256>(&cases, &mut rng);
    assert_eq!(good, cases.len() / 2);
    // u1 and u2 may also come as themselves plus n, with other digits: seldom.
    assert!(undecided::<P256>() - before >= good as u64 * 4 / 5);
}
