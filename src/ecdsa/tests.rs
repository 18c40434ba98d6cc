//! Verdicts against the oracles `k256` and `p256`, on random and on chosen input.

mod verifier;
mod wycheproof;

use proptest::prelude::*;

use crate::{
    Check, Curve, KeyError, VerifyingKey, is_low_s, sign::SigningKey, verify, verify_batch,
};

const CURVES: [Curve; 2] = [Curve::K256, Curve::P256];

const ORDER_K256: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];
const ORDER_P256: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn order(curve: Curve) -> [u8; 32] {
    match curve {
        Curve::K256 => ORDER_K256,
        Curve::P256 => ORDER_P256,
    }
}

/// Big-endian `a + b` and `a - b`, for tables of edges.
fn add(mut a: [u8; 32], b: u8) -> [u8; 32] {
    let mut carry = u16::from(b);
    for byte in a.iter_mut().rev() {
        carry += u16::from(*byte);
        *byte = carry as u8;
        carry >>= 8;
    }
    a
}

fn subtract(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    let mut borrow = 0;
    for i in (0..32).rev() {
        let digit = i16::from(a[i]) - i16::from(b[i]) - borrow;
        borrow = i16::from(digit < 0);
        out[i] = (digit + 256 * borrow) as u8;
    }
    out
}

fn number(n: u8) -> [u8; 32] {
    add([0; 32], n)
}

fn halved(mut a: [u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    for byte in &mut a {
        let next = *byte & 1;
        *byte = *byte >> 1 | carry << 7;
        carry = next;
    }
    a
}

fn join(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

fn split(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    (signature[..32].try_into().unwrap(), signature[32..].try_into().unwrap())
}

/// The verdict of the pure Rust crates, with the rule of low `s` on top.
fn oracle(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    use k256::ecdsa::signature::Verifier;
    let point = key.to_sec1_uncompressed();
    match key.curve() {
        Curve::K256 => {
            let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
            k256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                signature.normalize_s() == signature && key.verify(message, &signature).is_ok()
            })
        }
        Curve::P256 => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
            p256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                signature.normalize_s() == signature && key.verify(message, &signature).is_ok()
            })
        }
    }
}

/// Our verdict, after asserting that the oracle agrees.
fn verdict(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    let ours = verify(key, message, signature);
    assert_eq!(ours, oracle(key, message, signature), "{key:?} {signature:02x?}");
    ours
}

fn curve() -> impl Strategy<Value = Curve> {
    prop_oneof![Just(Curve::K256), Just(Curve::P256)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn signatures_verify_and_their_twins_do_not(
        curve in curve(), seed: [u8; 8], message: Vec<u8>,
    ) {
        let signing = SigningKey::from_seed(curve, &seed);
        let key = signing.verifying_key();
        let signature = signing.sign(&message);
        prop_assert!(verdict(&key, &message, &signature));
        prop_assert!(is_low_s(curve, &signature));
        prop_assert_eq!(signature, signing.sign(&message));

        let (r, s) = split(&signature);
        let twin = join(r, subtract(order(curve), s));
        prop_assert!(!is_low_s(curve, &twin));
        prop_assert!(!verdict(&key, &message, &twin));
        prop_assert!(!verdict(&key, &message, &join(s, r)));
    }

    #[test]
    fn one_wrong_bit_is_enough(
        curve in curve(), seed: [u8; 8], mut message in prop::collection::vec(any::<u8>(), 1..99),
        bit in 0..512usize, message_bit: prop::sample::Index,
    ) {
        let signing = SigningKey::from_seed(curve, &seed);
        let key = signing.verifying_key();
        let signature = signing.sign(&message);

        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verdict(&key, &message, &flipped));

        let bit = message_bit.index(message.len() * 8);
        message[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verdict(&key, &message, &signature));

        let other = SigningKey::from_seed(curve, b"another key").verifying_key();
        prop_assert!(!verdict(&other, &message, &signature));
    }

    #[test]
    fn arbitrary_signatures_do_not_verify(
        curve in curve(), seed: [u8; 8], message: Vec<u8>, signature: [[u8; 32]; 2],
    ) {
        let key = SigningKey::from_seed(curve, &seed).verifying_key();
        prop_assert!(!verdict(&key, &message, &join(signature[0], signature[1])));
    }

    #[test]
    fn keys_survive_every_form(curve in curve(), seed: [u8; 8]) {
        let key = SigningKey::from_seed(curve, &seed).verifying_key();
        prop_assert_eq!(Ok(key), VerifyingKey::from_sec1(curve, &key.to_sec1_compressed()));
        prop_assert_eq!(Ok(key), VerifyingKey::from_sec1(curve, &key.to_sec1_uncompressed()));
        prop_assert_eq!(Ok(key), VerifyingKey::from_bytes(&key.to_bytes()));
        prop_assert_eq!(key.curve(), curve);
    }

    #[test]
    fn arbitrary_bytes_as_key_never_panic(
        curve in curve(), lead in prop_oneof![0..9u8, any::<u8>()],
        bytes in prop::collection::vec(any::<u8>(), 0..70),
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = lead;
        }
        let _ = VerifyingKey::from_bytes(&bytes);
        if let Ok(key) = VerifyingKey::from_sec1(curve, &bytes) {
            prop_assert!(bytes == key.to_sec1_compressed() || bytes == key.to_sec1_uncompressed());
        }
    }
}

#[test]
fn edges_of_the_range_are_refused() {
    for curve in CURVES {
        let signing = SigningKey::from_seed(curve, b"edges");
        let key = signing.verifying_key();
        let (r, s) = split(&signing.sign(b"message"));
        let n = order(curve);
        let edges = [
            number(0),
            number(1),
            subtract(n, number(1)),
            n,
            add(n, 1),
            [0xff; 32],
            halved(n),
            add(halved(n), 1),
        ];
        for edge in edges {
            assert!(!verdict(&key, b"message", &join(edge, s)), "{curve:?} r = {edge:02x?}");
            assert!(!verdict(&key, b"message", &join(r, edge)), "{curve:?} s = {edge:02x?}");
            for other in edges {
                assert!(!verdict(&key, b"message", &join(edge, other)));
            }
        }
        // The same numbers with the order added are the same residues, and yet not signatures.
        assert!(!verdict(&key, b"message", &join(r, subtract(n, s))));
    }
}

#[test]
fn low_s_ends_at_half_the_order() {
    for curve in CURVES {
        let half = halved(order(curve));
        assert!(is_low_s(curve, &join([0xff; 32], half)));
        assert!(!is_low_s(curve, &join([0; 32], add(half, 1))));
    }
}

#[test]
fn a_batch_gives_each_its_own_verdict() {
    let signing: Vec<_> =
        (0..12u8).map(|i| SigningKey::from_seed(CURVES[usize::from(i) % 2], &[i])).collect();
    let keys: Vec<_> = signing.iter().map(SigningKey::verifying_key).collect();
    let mut signatures: Vec<_> = signing.iter().map(|key| key.sign(b"message")).collect();
    signatures[3][10] ^= 1;
    signatures[8][40] ^= 1;
    let checks: Vec<_> = keys
        .iter()
        .zip(&signatures)
        .map(|(key, signature)| Check { key, message: b"message", signature })
        .collect();

    let mut verdicts = vec![false; 99];
    verify_batch(&checks, &mut verdicts);
    let expected: Vec<_> = (0..12).map(|i| i != 3 && i != 8).collect();
    assert_eq!(verdicts, expected);
    verify_batch(&[], &mut verdicts);
    assert!(verdicts.is_empty());
}

#[test]
fn bad_points_are_refused() {
    for curve in CURVES {
        let key = SigningKey::from_seed(curve, b"points").verifying_key();
        let point = key.to_sec1_uncompressed();
        let parse = |bytes: &[u8]| VerifyingKey::from_sec1(curve, bytes);

        assert_eq!(parse(&[]), Err(KeyError::Form));
        assert_eq!(parse(&[0]), Err(KeyError::Form));
        assert_eq!(parse(&point[1..]), Err(KeyError::Form));
        assert_eq!(parse(&point[..64]), Err(KeyError::Form));
        assert_eq!(parse(&[&point[..], &[0]].concat()), Err(KeyError::Form));
        for lead in [0, 1, 2, 3, 5, 6, 7] {
            let mut hybrid = point;
            hybrid[0] = lead;
            assert_eq!(parse(&hybrid), Err(KeyError::Form), "leading {lead}");
        }
        let mut off = point;
        off[64] ^= 1;
        assert_eq!(parse(&off), Err(KeyError::NotOnCurve));
        assert_eq!(parse(&[&[4][..], &[0; 64]].concat()), Err(KeyError::NotOnCurve));
        assert_eq!(parse(&[&[2][..], &[0xff; 32]].concat()), Err(KeyError::NotOnCurve));
        let mut compact = key.to_sec1_compressed();
        compact[0] = 5;
        assert_eq!(parse(&compact), Err(KeyError::Form));

        let mut stored = key.to_bytes();
        stored[0] = 9;
        assert_eq!(VerifyingKey::from_bytes(&stored), Err(KeyError::Form));
    }
}

#[test]
fn a_key_of_one_curve_does_not_verify_the_other() {
    let k256 = SigningKey::from_seed(Curve::K256, b"same seed");
    let p256 = SigningKey::from_seed(Curve::P256, b"same seed");
    assert_ne!(k256.verifying_key(), p256.verifying_key());
    assert!(!verdict(&p256.verifying_key(), b"message", &k256.sign(b"message")));
    assert!(!verdict(&k256.verifying_key(), b"message", &p256.sign(b"message")));
}

#[test]
fn private_keys_out_of_range_are_refused() {
    for curve in CURVES {
        assert!(SigningKey::from_bytes(curve, &[0; 32]).is_none());
        assert!(SigningKey::from_bytes(curve, &order(curve)).is_none());
        assert!(SigningKey::from_bytes(curve, &subtract(order(curve), number(1))).is_some());
    }
}

/// A point whose x lies between the group order and the field's size: its `r` is x - n, and a
/// verifier must find x again. Such signatures do not occur by chance, so one is made, with the
/// key that fits it: Q = (s R - z G) / r.
macro_rules! wrapped_r {
    ($curve_crate:ident, $curve:expr) => {{
        use $curve_crate::{
            FieldBytes, ProjectivePoint, PublicKey, Scalar,
            elliptic_curve::{PrimeField, ops::Reduce, sec1::ToSec1Point},
        };
        let message = b"message";
        let digest = <sha2::Sha256 as sha2::Digest>::digest(message);
        let z = <Scalar as Reduce<FieldBytes>>::reduce(&digest);
        let (r_bytes, point) = (1..=255u8)
            .find_map(|small| {
                let x = add(order($curve), small);
                let sec1 = [&[2][..], &x].concat();
                Some((number(small), PublicKey::from_sec1_bytes(&sec1).ok()?))
            })
            .unwrap();
        let r = Scalar::from_repr(r_bytes.into()).unwrap();
        let s = Scalar::from(7u64);
        let q = (ProjectivePoint::from(*point.as_affine()) * s - ProjectivePoint::GENERATOR * z)
            * r.invert().unwrap();
        let q = PublicKey::from_affine(q.to_affine()).unwrap();
        let key = VerifyingKey::from_sec1($curve, q.to_sec1_point(true).as_bytes()).unwrap();
        assert!(verdict(&key, message, &join(r_bytes, number(7))));
        assert!(!verdict(&key, message, &join(add(r_bytes, 1), number(7))));
    }};
}

#[test]
fn x_above_the_order_wraps_around() {
    wrapped_r!(k256, Curve::K256);
    wrapped_r!(p256, Curve::P256);
}
