//! The tables hold the odd multiples that they are meant to.

use super::{
    super::{
        super::{
            batch::{Words, coordinates},
            kernel,
            p256::{base_table::BaseTable, constants::ONE, field::*, key_table::KeyTable},
            vector::splat,
        },
        big::{Big, clean_lane, vector},
        kit::*,
    },
    p,
};

/// -x and y of a multiple of the key, in Montgomery form.
fn expected(scalar: &::p256::Scalar) -> [Big; 2] {
    let (x, y) = coordinates(&P256::times_g(scalar).unwrap());
    let r = Big::from_limbs(&ONE, 52);
    let minus_x = p().sub(&Big::from_limbs(&x, 64));
    [minus_x.mul(&r).modulo(&p()), Big::from_limbs(&y, 64).mul(&r).modulo(&p())]
}

fn assert_entry((nx, y): (Field, Field), lane: usize, scalar: &::p256::Scalar) {
    let found =
        [nx, y].map(|number| Big::from_limbs(&clean_lane(&number.0, lane), 52).modulo(&p()));
    assert_eq!(found, expected(scalar));
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn key_table(keys: &[::p256::Scalar; 8]) {
    let (mut x, mut y) = (Words::filled([0; 4]), Words::filled([0; 4]));
    for (lane, key) in keys.iter().enumerate() {
        let point = coordinates(&P256::times_g(key).unwrap());
        x.set(lane, point.0);
        y.set(lane, point.1);
    }
    let minus_x = Loose::multiple_of_p::<1>().sub(&Field(x.limbs()).clean()).carry();
    let mut table = KeyTable::new();
    table.fill(&Field::from_plain(&minus_x.0), &Field::from_plain(&y.limbs()));
    for index in 0..16 {
        let entry = table.look_up(splat(index));
        for (lane, key) in keys.iter().enumerate() {
            assert_entry(entry, lane, &(*key * P256::signed(2 * index as i64 + 1)));
        }
    }
    // Each lane looks up its own.
    let entry = table.look_up(vector([15, 0, 7, 8, 1, 2, 14, 3]));
    for (lane, index) in [15, 0, 7, 8, 1, 2, 14, 3].into_iter().enumerate() {
        assert_entry(entry, lane, &(keys[lane] * P256::signed(2 * index + 1)));
    }
}

#[test]
fn multiples_of_keys() {
    if kernel().is_none() {
        return;
    }
    let mut rng = Rng(17);
    let specials = P256::specials();
    for _ in 0..4 {
        let keys = std::array::from_fn(|lane| match lane {
            0 => P256::signed(1),
            1 => P256::signed(-1),
            2 | 3 => P256::scalar(*rng.pick(&specials[6..])),
            _ => rng.scalar::<P256>(),
        });
        // SAFETY: there is a kernel, so the CPU has the features.
        unsafe { key_table(&keys) };
    }
}

#[target_feature(enable = "avx512ifma,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")]
fn base_table(indices: [u64; 8]) {
    let entry = BaseTable::get().look_up(vector(indices));
    for (lane, index) in indices.into_iter().enumerate() {
        assert_entry(entry, lane, &P256::signed(2 * index as i64 + 1));
    }
}

#[test]
fn multiples_of_g() {
    if kernel().is_none() {
        return;
    }
    for first in (0..4096).step_by(128).chain([4088]) {
        // SAFETY: there is a kernel, so the CPU has the features.
        unsafe { base_table(std::array::from_fn(|lane| first + lane as u64)) };
    }
}
