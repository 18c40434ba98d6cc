//! The generated constants: what they are meant to be.

use super::{
    super::{
        super::{
            batch::{coordinates, words},
            p256::constants::*,
        },
        big::Big,
        kit::*,
    },
    n, p,
};

fn number(bytes: [u8; 32]) -> Big {
    Big::from_limbs(&words(&bytes), 64)
}

#[test]
fn moduli() {
    assert_eq!(p(), number(hex(P256::FIELD_SIZE)));
    assert_eq!(n(), number(P256::order()));
    assert_eq!(Big::from_limbs(&N64, 64), n());
    assert_eq!(Big::from_limbs(&NHALF64, 64), number(P256::half_order()));
    assert_eq!(Big::from_limbs(&P_MINUS_N64, 64), p().sub(&n()));
    assert_eq!(Big::from_limbs(&P62, 62), p());
    assert_eq!(Big::from_limbs(&N62, 62), n());
    assert_eq!(P62[0].wrapping_mul(PINV62) & ((1 << 62) - 1), 1);
    assert_eq!(N62[0].wrapping_mul(NINV62) & ((1 << 62) - 1), 1);
    assert_eq!(N52[0].wrapping_mul(N0INV52) & ((1 << 52) - 1), (1 << 52) - 1);
    let p_plus_one = p().add(&Big::power_of_two(0));
    assert_eq!(Big::from_limbs(&[0, Q1, 0, Q3, Q4], 52), p_plus_one);
}

#[test]
fn powers() {
    for (limbs, exponent, modulus) in
        [(ONE, 260, p()), (R2_P, 520, p()), (R3_P, 780, p()), (R2_N, 520, n())]
    {
        let expected = Big::power_of_two(exponent).modulo(&modulus);
        assert_eq!(Big::from_limbs(&limbs, 52), expected);
    }
}

#[test]
fn generator() {
    let g = coordinates(&P256::times_g(&P256::signed(1)).unwrap());
    assert_eq!((GX64, GY64), g);
}
