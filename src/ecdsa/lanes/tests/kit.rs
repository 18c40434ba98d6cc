//! Random numbers, the curves by their libraries, signatures made to measure, and the comparison.

use std::sync::atomic::{AtomicU64, Ordering};

use k256::elliptic_curve::{Field, PrimeField};
use sha2::{Digest, Sha256};

use super::super::kernel;
use crate::{
    Check, Curve, VerifyingKey, is_low_s,
    kernel::{GROUP, Item, Verdict},
    library,
};

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

    pub(super) fn scalar<C: Tested>(&mut self) -> C::Scalar {
        C::scalar(self.bytes())
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

/// A curve as the libraries know it.
pub(super) trait Tested {
    type Scalar: PrimeField;
    const CURVE: Curve;
    /// n and p.
    const ORDER: &str;
    const FIELD_SIZE: &str;

    /// The number mod n.
    fn scalar(bytes: [u8; 32]) -> Self::Scalar;
    fn bytes(scalar: &Self::Scalar) -> [u8; 32];
    /// `scalar` times G in 65 bytes; `None` is infinity.
    fn times_g(scalar: &Self::Scalar) -> Option<[u8; 65]>;
    /// The key under which (r, s) is a good signature of z, with the nonce's point given.
    fn recovered(
        nonce: &VerifyingKey,
        r: &Self::Scalar,
        s: &Self::Scalar,
        z: &Self::Scalar,
    ) -> VerifyingKey;
    /// The verdict of the fastest library that takes a digest.
    fn by_library(case: &Case) -> bool;
    /// The verdict of the pure Rust crate.
    fn by_rust(case: &Case) -> bool;
    /// Numbers at which this curve's code may turn.
    fn own_specials() -> Vec<[u8; 32]>;

    fn order() -> [u8; 32] {
        hex(Self::ORDER)
    }

    fn half_order() -> [u8; 32] {
        *crate::verify::half_order(Self::CURVE)
    }

    fn key(sec1: &[u8]) -> Option<VerifyingKey> {
        VerifyingKey::from_sec1(Self::CURVE, sec1).ok()
    }

    fn public(scalar: &Self::Scalar) -> Option<VerifyingKey> {
        Self::key(&Self::times_g(scalar)?)
    }

    /// x of `scalar` times G, mod n.
    fn x_of(scalar: &Self::Scalar) -> Option<Self::Scalar> {
        let point = Self::times_g(scalar)?;
        Some(Self::scalar(point[1..33].try_into().unwrap()))
    }

    fn inverse(scalar: &Self::Scalar) -> Self::Scalar {
        scalar.invert().unwrap()
    }

    fn is_high(scalar: &Self::Scalar) -> bool {
        Self::bytes(scalar) > Self::half_order()
    }

    /// The scalar with this small number, which may be negative.
    fn signed(number: i64) -> Self::Scalar {
        let magnitude = Self::Scalar::from(number.unsigned_abs());
        if number < 0 { -magnitude } else { magnitude }
    }

    /// Numbers at which something may turn: near 0, n, n / 2, p, p - n, powers of two.
    fn specials() -> Vec<[u8; 32]> {
        let (n, p, half) = (Self::order(), hex(Self::FIELD_SIZE), Self::half_order());
        let gap = minus(&p, &n);
        let mut list = vec![[0; 32], [0xff; 32], n, p, half, gap];
        for base in [n, p, half, gap, [0; 32]] {
            for distance in 1..4 {
                list.push(plus(&base, &small(distance)));
                list.push(minus(&base, &small(distance)));
            }
        }
        for k in [1, 5, 13, 51, 52, 64, 103, 104, 127, 128, 129, 130, 155, 156, 207, 208, 254, 255]
        {
            list.push(power_of_two(k));
            list.push(minus(&power_of_two(k), &small(1)));
            list.push(minus(&n, &power_of_two(k)));
        }
        list.extend(Self::own_specials());
        list
    }
}

/// What both crates of pure Rust do in the same words.
macro_rules! by_crate {
    ($curve_crate:ident) => {
        type Scalar = $curve_crate::Scalar;

        fn scalar(bytes: [u8; 32]) -> Self::Scalar {
            use $curve_crate::{FieldBytes, Scalar, elliptic_curve::ops::Reduce};
            <Scalar as Reduce<FieldBytes>>::reduce(&bytes.into())
        }

        fn bytes(scalar: &Self::Scalar) -> [u8; 32] {
            scalar.to_bytes().into()
        }

        fn recovered(
            nonce: &VerifyingKey,
            r: &Self::Scalar,
            s: &Self::Scalar,
            z: &Self::Scalar,
        ) -> VerifyingKey {
            use $curve_crate::{ProjectivePoint, PublicKey, elliptic_curve::sec1::ToSec1Point};
            let nonce = PublicKey::from_sec1_bytes(&nonce.to_sec1_compressed()).unwrap();
            let nonce = ProjectivePoint::from(*nonce.as_affine());
            let q = (nonce * s - ProjectivePoint::GENERATOR * z) * Self::inverse(r);
            let q = PublicKey::from_affine(q.to_affine()).unwrap();
            Self::key(q.to_sec1_point(true).as_bytes()).unwrap()
        }

        fn by_rust(case: &Case) -> bool {
            use $curve_crate::ecdsa::{
                Signature, VerifyingKey, signature::hazmat::PrehashVerifier,
            };
            let key = VerifyingKey::from_sec1_bytes(&case.key.to_sec1_uncompressed()).unwrap();
            Signature::from_slice(&case.signature).is_ok_and(|signature| {
                signature.normalize_s() == signature
                    && key.verify_prehash(&case.digest, &signature).is_ok()
            })
        }
    };
}

pub(super) struct K256;

pub(super) fn lambda_bytes() -> [u8; 32] {
    hex("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72")
}

impl Tested for K256 {
    by_crate!(k256);

    const CURVE: Curve = Curve::K256;
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    const FIELD_SIZE: &str = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f";

    fn times_g(scalar: &Self::Scalar) -> Option<[u8; 65]> {
        let secret = secp256k1::SecretKey::from_secret_bytes(Self::bytes(scalar)).ok()?;
        Some(secp256k1::PublicKey::from_secret_key(&secret).serialize_uncompressed())
    }

    fn by_library(case: &Case) -> bool {
        let key = secp256k1::PublicKey::from_slice(&case.key.to_sec1_uncompressed()).unwrap();
        let digest = secp256k1::Message::from_digest(case.digest);
        secp256k1::ecdsa::Signature::from_compact(&case.signature)
            .is_ok_and(|signature| secp256k1::ecdsa::verify(&signature, digest, &key).is_ok())
    }

    fn own_specials() -> Vec<[u8; 32]> {
        vec![lambda_bytes(), minus(&Self::order(), &lambda_bytes())]
    }
}

pub(super) struct P256;

impl Tested for P256 {
    by_crate!(p256);

    const CURVE: Curve = Curve::P256;
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    const FIELD_SIZE: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";

    fn times_g(scalar: &Self::Scalar) -> Option<[u8; 65]> {
        use p256::elliptic_curve::sec1::ToSec1Point;
        let point = (p256::ProjectivePoint::GENERATOR * scalar).to_affine();
        point.to_sec1_point(false).as_bytes().try_into().ok()
    }

    /// ring takes messages only, so it is asked where the digest is that of a message.
    fn by_library(case: &Case) -> bool {
        if Sha256::digest(case.message)[..] != case.digest {
            return Self::by_rust(case);
        }
        let Case { key, message, signature, .. } = case;
        let verdict = library::verify(&Check { key, message, signature });
        assert!(!verdict || is_low_s(Curve::P256, signature));
        verdict
    }

    fn own_specials() -> Vec<[u8; 32]> {
        [96, 192, 224].map(power_of_two).to_vec()
    }
}

pub(super) fn join(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Of which the digest is the hash, or not.
    pub(super) message: [u8; 32],
    pub(super) digest: [u8; 32],
    pub(super) signature: [u8; 64],
    pub(super) key: VerifyingKey,
}

impl Case {
    /// A good signature of a message.
    pub(super) fn valid<C: Tested>(rng: &mut Rng) -> Self {
        let signer = crate::sign::SigningKey::from_seed(C::CURVE, &rng.bytes());
        let message = rng.bytes();
        let digest = Sha256::digest(message).into();
        Self { message, digest, signature: signer.sign(&message), key: signer.verifying_key() }
    }

    /// Of a digest without a message.
    pub(super) fn of_digest(digest: [u8; 32], signature: [u8; 64], key: VerifyingKey) -> Self {
        Self { message: [0; 32], digest, signature, key }
    }

    /// The signature whose verification computes u1 G + u2 Q with these scalars, Q = q G; both are
    /// negated if that makes s low.
    pub(super) fn crafted<C: Tested>(u1: &C::Scalar, u2: &C::Scalar, q: &C::Scalar) -> Self {
        // Infinity has no x: any r.
        let r = C::x_of(&(*u1 + *u2 * *q)).unwrap_or_else(|| C::scalar(lambda_bytes()));
        let s = r * C::inverse(u2);
        let z = *u1 * s;
        let s = if C::is_high(&s) { -s } else { s };
        let signature = join(C::bytes(&r), C::bytes(&s));
        Self::of_digest(C::bytes(&z), signature, C::public(q).unwrap())
    }

    pub(super) fn with_digest_bit(mut self, bit: usize) -> Self {
        self.digest[bit / 8] ^= 1 << (bit % 8);
        self
    }

    pub(super) fn with_negated_key(mut self) -> Self {
        let mut point = self.key.to_sec1_compressed();
        point[0] ^= 1;
        self.key = VerifyingKey::from_sec1(self.key.curve(), &point).unwrap();
        self
    }

    fn item(&self) -> Item<'_> {
        Item { key: &self.key, digest: self.digest, signature: &self.signature }
    }
}

/// Lanes that were left undecided, of each curve. (Tests that look at it are alone with their curve's
/// counter, or ask for more only.)
static UNDECIDED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

pub(super) fn undecided<C: Tested>() -> u64 {
    UNDECIDED[C::CURVE as usize].load(Ordering::Relaxed)
}

/// The verdicts of the lanes, those left undecided by the library; all by the library where there are
/// no lanes.
pub(super) fn verdicts<C: Tested>(cases: &[Case]) -> Vec<bool> {
    let Some(kernel) = kernel() else {
        return cases.iter().map(C::by_library).collect();
    };
    let mut verdicts = Vec::new();
    for cases in cases.chunks(GROUP) {
        let items: Vec<_> = cases.iter().map(Case::item).collect();
        let mut found = vec![Verdict::Undecided; items.len()];
        kernel(C::CURVE, &items, &mut found);
        verdicts.extend(cases.iter().zip(found).map(|(case, verdict)| match verdict {
            Verdict::Good => true,
            Verdict::Bad => false,
            Verdict::Undecided => {
                UNDECIDED[C::CURVE as usize].fetch_add(1, Ordering::Relaxed);
                C::by_library(case)
            }
        }));
    }
    verdicts
}

/// Asserts that the lanes agree with the library on all cases, and both with the pure Rust crate on
/// some. Returns the number of good ones.
pub(super) fn compare<C: Tested>(cases: &[Case]) -> usize {
    let mut good = 0;
    for (i, (case, lanes)) in cases.iter().zip(verdicts::<C>(cases)).enumerate() {
        let library = C::by_library(case);
        assert_eq!(lanes, library, "case {i} of {}: {case:02x?}", cases.len());
        if i % 32 == 7 {
            assert_eq!(library, C::by_rust(case), "{case:02x?}");
        }
        good += usize::from(library);
    }
    good
}

/// [`compare`] in groups of changing length.
pub(super) fn compare_in_groups<C: Tested>(cases: &[Case], rng: &mut Rng) -> usize {
    let (mut good, mut rest) = (0, cases);
    while !rest.is_empty() {
        let (group, others) = rest.split_at((1 + rng.below(GROUP + 3)).min(rest.len()));
        good += compare::<C>(group);
        rest = others;
    }
    good
}
