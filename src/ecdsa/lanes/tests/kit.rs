//! Random numbers, signatures made to measure, and the comparison with the libraries.

use std::sync::atomic::Ordering;

use k256::{
    FieldBytes, Scalar,
    ecdsa::signature::hazmat::PrehashVerifier,
    elliptic_curve::{PrimeField, ops::Reduce},
};
use secp256k1::{PublicKey, SecretKey};

use super::super::{GROUP, RECOMPUTED, kernel};
use crate::library::{self, Item};

pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// SplitMix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Below 2^bits, often at the ends.
    pub(super) fn edge(&mut self, bits: u32) -> u64 {
        let max = u64::MAX >> (64 - bits);
        match self.next() % 4 {
            0 => 0,
            1 => max,
            2 => max - self.next() % 3,
            _ => self.next() & max,
        }
    }

    pub(super) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes());
        }
        bytes
    }

    pub(super) fn scalar(&mut self) -> Scalar {
        scalar(self.bytes())
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// A number from the environment.
pub(super) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

pub(super) fn hex(digits: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
}

pub(super) fn order() -> [u8; 32] {
    hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
}

pub(super) fn half_order() -> [u8; 32] {
    hex("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
}

pub(super) fn field_size() -> [u8; 32] {
    hex("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f")
}

pub(super) fn lambda_bytes() -> [u8; 32] {
    hex("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72")
}

pub(super) fn lambda() -> Scalar {
    scalar(lambda_bytes())
}

pub(super) fn small(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(super) fn power_of_two(exponent: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[31 - exponent / 8] = 1 << (exponent % 8);
    bytes
}

/// a + b mod 2^256.
pub(super) fn plus(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut sum = [0; 32];
    let mut carry = 0;
    for i in (0..32).rev() {
        carry += u16::from(a[i]) + u16::from(b[i]);
        sum[i] = carry as u8;
        carry >>= 8;
    }
    sum
}

/// a - b mod 2^256.
pub(super) fn minus(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut difference = [0; 32];
    let mut borrow = 0;
    for i in (0..32).rev() {
        borrow += i16::from(a[i]) - i16::from(b[i]);
        difference[i] = borrow as u8;
        borrow >>= 8;
    }
    difference
}

/// Numbers at which something may turn: near 0, n, n / 2, p, p - n, lambda, powers of two.
pub(super) fn specials() -> Vec<[u8; 32]> {
    let (n, p, half) = (order(), field_size(), half_order());
    let gap = minus(&p, &n);
    let mut list =
        vec![[0; 32], [0xff; 32], n, p, half, gap, lambda_bytes(), minus(&n, &lambda_bytes())];
    for base in [n, p, half, gap, [0; 32]] {
        for distance in 1..4 {
            list.push(plus(&base, &small(distance)));
            list.push(minus(&base, &small(distance)));
        }
    }
    for k in [1, 5, 13, 51, 52, 64, 103, 104, 127, 128, 129, 130, 155, 156, 207, 208, 254, 255] {
        list.push(power_of_two(k));
        list.push(minus(&power_of_two(k), &small(1)));
        list.push(minus(&n, &power_of_two(k)));
    }
    list
}

/// The number mod n.
pub(super) fn scalar(bytes: [u8; 32]) -> Scalar {
    <Scalar as Reduce<FieldBytes>>::reduce(&bytes.into())
}

pub(super) fn bytes(scalar: &Scalar) -> [u8; 32] {
    scalar.to_bytes().into()
}

pub(super) fn inverse(scalar: &Scalar) -> Scalar {
    scalar.invert().unwrap()
}

pub(super) fn is_high(scalar: &Scalar) -> bool {
    bytes(scalar) > half_order()
}

/// `scalar` times G; `None` is infinity.
pub(super) fn public(scalar: &Scalar) -> Option<PublicKey> {
    let secret = SecretKey::from_secret_bytes(bytes(scalar)).ok()?;
    Some(PublicKey::from_secret_key(&secret))
}

/// x of `scalar` times G, mod n.
pub(super) fn x_of(scalar: &Scalar) -> Option<Scalar> {
    let point = public(scalar)?.serialize();
    Some(self::scalar(point[1..].try_into().unwrap()))
}

pub(super) fn join(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) digest: [u8; 32],
    pub(super) signature: [u8; 64],
    pub(super) key: PublicKey,
}

impl Case {
    /// A good signature.
    pub(super) fn valid(rng: &mut Rng) -> Self {
        let secret = SecretKey::from_secret_bytes(rng.bytes()).unwrap();
        let digest = rng.bytes();
        let message = secp256k1::Message::from_digest(digest);
        let signature = secp256k1::ecdsa::sign(message, &secret).serialize_compact();
        Self { digest, signature, key: PublicKey::from_secret_key(&secret) }
    }

    /// The signature whose verification computes u1 G + u2 Q with these scalars, Q = q G; both are
    /// negated if that makes s low.
    pub(super) fn crafted(u1: &Scalar, u2: &Scalar, q: &Scalar) -> Self {
        // Infinity has no x: any r.
        let r = x_of(&(*u1 + *u2 * *q)).unwrap_or_else(lambda);
        let s = r * inverse(u2);
        let z = *u1 * s;
        let s = if is_high(&s) { -s } else { s };
        let signature = join(bytes(&r), bytes(&s));
        Self { digest: bytes(&z), signature, key: public(q).unwrap() }
    }

    pub(super) fn with_digest_bit(mut self, bit: usize) -> Self {
        self.digest[bit / 8] ^= 1 << (bit % 8);
        self
    }

    pub(super) fn with_negated_key(mut self) -> Self {
        let mut point = self.key.serialize();
        point[0] ^= 1;
        self.key = PublicKey::from_slice(&point).unwrap();
        self
    }

    fn item(&self) -> Item<'_> {
        Item { key: &self.key, digest: self.digest, signature: &self.signature }
    }

    /// The verdict of `k256`.
    fn by_k256(&self) -> bool {
        let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&self.key.serialize()).unwrap();
        k256::ecdsa::Signature::from_slice(&self.signature).is_ok_and(|signature| {
            signature.normalize_s() == signature
                && key.verify_prehash(&self.digest, &signature).is_ok()
        })
    }
}

/// The verdicts of the lanes; of the library where there are none.
pub(super) fn verdicts(cases: &[Case]) -> Vec<bool> {
    let kernel = kernel().unwrap_or(library::verify_items);
    let mut verdicts = vec![false; cases.len()];
    for (cases, verdicts) in cases.chunks(GROUP).zip(verdicts.chunks_mut(GROUP)) {
        let items: Vec<_> = cases.iter().map(Case::item).collect();
        kernel(&items, verdicts);
    }
    verdicts
}

/// Asserts that the lanes agree with libsecp256k1 on all cases, and both with `k256` on some.
/// Returns the number of good ones.
pub(super) fn compare(cases: &[Case]) -> usize {
    let mut good = 0;
    for (i, (case, lanes)) in cases.iter().zip(verdicts(cases)).enumerate() {
        let library = library::verify_item(&case.item());
        assert_eq!(lanes, library, "case {i} of {}: {case:02x?}", cases.len());
        if i % 32 == 7 {
            assert_eq!(library, case.by_k256(), "{case:02x?}");
        }
        good += usize::from(library);
    }
    good
}

/// [`compare`] in groups of changing length.
pub(super) fn compare_in_groups(cases: &[Case], rng: &mut Rng) -> usize {
    let (mut good, mut rest) = (0, cases);
    while !rest.is_empty() {
        let (group, others) = rest.split_at((1 + rng.below(GROUP + 3)).min(rest.len()));
        good += compare(group);
        rest = others;
    }
    good
}

pub(super) fn recomputed() -> u64 {
    RECOMPUTED.load(Ordering::Relaxed)
}

/// The scalar with this small number, which may be negative.
pub(super) fn signed(number: i64) -> Scalar {
    let magnitude = Scalar::from(number.unsigned_abs());
    if number < 0 { -magnitude } else { magnitude }
}

pub(super) fn in_range(bytes: [u8; 32]) -> bool {
    bool::from(Scalar::from_repr(bytes.into()).is_some())
}
