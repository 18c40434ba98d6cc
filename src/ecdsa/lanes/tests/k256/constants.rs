//! The generated constants: what they are meant to be.

use super::{
    super::{
        super::{
            batch::{coordinates, words},
            k256::{constants::*, eisenstein::*},
        },
        big::Big,
        kit::*,
    },
    lambda, n, p,
};

/// 2^exponent as a number of 52-bit limbs.
fn power(exponent: usize) -> Big {
    Big::power_of_two(exponent)
}

fn number(bytes: [u8; 32]) -> Big {
    Big::from_limbs(&words(&bytes), 64)
}

#[test]
fn moduli() {
    assert_eq!(p(), number(hex(K256::FIELD_SIZE)));
    assert_eq!(n(), number(K256::order()));
    for (limbs, expected) in [(P64, p()), (N64, n()), (NHALF64, number(K256::half_order()))] {
        assert_eq!(Big::from_limbs(&limbs, 64), expected);
    }
    assert_eq!(Big::from_limbs(&N62, 62), n());
    assert_eq!(Big::from_limbs(&P_MINUS_N64, 64), p().sub(&n()));
    assert_eq!(Big::from_limbs(&[C], 64), power(256).sub(&p()));
    assert_eq!(R260, 16 * C);
    assert_eq!(N52[0].wrapping_mul(N0INV52) & ((1 << 52) - 1), (1 << 52) - 1);
    assert_eq!(N62[0].wrapping_mul(NINV62) & ((1 << 62) - 1), 1);
    assert_eq!(Big::from_limbs(&R2_N, 52), power(520).modulo(&n()));
    let g = coordinates(&K256::times_g(&K256::signed(1)).unwrap());
    assert_eq!((GX64, GY64), g);
}

#[test]
fn biases() {
    for (bias, bits) in [(BIAS53, 53), (BIAS57, 57), (BIAS58, 58), (BIAS60, 60)] {
        assert_eq!(Big::from_limbs(&bias, 52).modulo(&p()), Big::zero());
        assert!(bias.iter().all(|limb| (1 << bits..(1 << bits) + (1 << 52)).contains(limb)));
    }
}

#[test]
fn roots_of_one_and_the_lattice() {
    let beta = Big::from_limbs(&BETA52, 52);
    let beta2 = beta.mul(&beta).modulo(&p());
    assert_eq!(Big::from_limbs(&BETA2, 52), beta2);
    assert_eq!(beta2.mul(&beta).modulo(&p()), power(0));
    // lambda G = (beta x, y)
    let (x, y) = coordinates(&K256::times_g(&lambda()).unwrap());
    assert_eq!(Big::from_limbs(&x, 64), beta.mul(&Big::from_limbs(&GX64, 64)).modulo(&p()));
    assert_eq!(y, GY64);

    let lambda = number(lambda_bytes());
    let magnitude = |limbs: [u64; 3]| power(156).sub(&Big::from_limbs(&limbs, 52));
    let (a1, a2) = (magnitude(NA1), magnitude(NA2));
    let minus_b1 = Big::from_limbs(&MB1, 52);
    let b2 = a1.clone();
    // a1 + b1 lambda = a2 + b2 lambda = 0 mod n, a1 b2 - a2 b1 = n
    assert_eq!(a1.modulo(&n()), minus_b1.mul(&lambda).modulo(&n()));
    assert_eq!(a2.add(&b2.mul(&lambda)).modulo(&n()), Big::zero());
    assert_eq!(a1.mul(&b2).add(&a2.mul(&minus_b1)), n());
    // The parities that `split_odd` counts on.
    assert_eq!([&a1, &minus_b1, &a2].map(|number| number.0[0] & 1), [1, 1, 0]);
    // The quotients' factors, rounded: |2 g n - 2^365 b| <= n.
    for (g, b) in [(G1, &b2), (G2, &minus_b1)] {
        let found = Big::from_limbs(&g, 52).mul(&n()).shl(1);
        let exact = b.shl(365);
        let off = if found.is_below(&exact) { exact.sub(&found) } else { found.sub(&exact) };
        assert!(!n().is_below(&off));
    }
}

#[test]
fn start_point() {
    use sha2::{Digest, Sha256};
    let t = K256::scalar(Sha256::digest(b"ifma-ecdsa start point").into());
    let (x, y) = coordinates(&K256::times_g(&t).unwrap());
    assert_eq!(Big::from_limbs(&TX, 52), Big::from_limbs(&x, 64));
    assert_eq!(Big::from_limbs(&TY, 52), Big::from_limbs(&y, 64));
    let correction = -(t * K256::scalar(power_of_two(126)));
    assert_eq!(Big::from_limbs(&T_CORR, 52), number(K256::bytes(&correction)));
}

/// Every digit is what its window says minus eight times its carry, and every entry lies in the table.
#[test]
fn digits() {
    let times_w = |(a, b): (i64, i64)| (-b, a - b);
    // The multiples, as the steps reach them.
    let mut path = vec![(1, 0), (2, 0)];
    let mut unit = (1, 0);
    for step in STEPS {
        for _ in 0..step % 3 {
            unit = times_w(unit);
        }
        if step >= 3 {
            unit = (-unit.0, -unit.1);
        }
        let (a, b) = path[path.len() - 1];
        path.push((a + unit.0, b + unit.1));
    }
    assert_eq!(path.len(), ENTRIES);
    for index in 0..64 {
        let (a, b) = (index as i64 & 7, index as i64 >> 3);
        let byte = LUT[index];
        if index == 0 {
            assert_eq!((byte, LUT_CARRY[0]), (0x80, 0));
            continue;
        }
        assert!(usize::from(byte & 0x3f) < 4 * ENTRIES && byte & 3 < 3 && byte & 0x80 == 0);
        let mut digit = path[usize::from(byte & 0x3f) / 4];
        for _ in 0..byte & 3 {
            digit = times_w(digit);
        }
        if byte & 0x40 != 0 {
            digit = (-digit.0, -digit.1);
        }
        let carry = i64::from(LUT_CARRY[index]);
        assert_eq!((digit.0 + 8 * (carry & 1), digit.1 + 8 * (carry >> 1)), (a, b));
    }
}
