//! What the fuzz target does with its input. The function is plain, so that the crate's tests run it,
//! too: over the corpus, and over seeded input.
//!
//! An input is a list of signatures. Each is made by the private key of a number and then spoiled or
//! not; or of any two numbers; or to measure, so that its verification computes u1 G + u2 Q with a
//! chosen u1 or u2 and ends at a chosen point. Numbers are those at which something may turn, or any.

use std::sync::LazyLock;

use ecdsa::{Check, Curve, Settings, Signatures, Verifier, VerifyingKey, sign::SigningKey};

/// More than a group, so that a batch may have several.
const SIGNATURES_MAX: usize = 72;

/// Without audits: what the lanes say is what the batch says.
pub static LANES: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::new(Settings { signatures: Signatures::Auto, audit_every: 0 }));
static LIBRARY: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::new(Settings { signatures: Signatures::Library, audit_every: 0 }));

type Number = [u8; 32];

struct Signed {
    key: VerifyingKey,
    message: [u8; 4],
    signature: [u8; 64],
}

/// Of a message, with the number for u1 (or u2) and that for the nonce.
type ToMeasure = fn(&[u8], bool, &Number, &Number) -> Option<(VerifyingKey, [u8; 64])>;

/// What a library of pure Rust knows of its curve.
struct Library {
    curve: Curve,
    /// Group order n and field size p.
    order: Number,
    field_size: Number,
    to_measure: ToMeasure,
    /// Its verdict, high `s` refused.
    verify: fn(&Signed) -> bool,
}

macro_rules! library {
    ($library:ident, $curve:expr, $order:literal, $field_size:literal) => {{
        use $library::{
            FieldBytes, NonZeroScalar, ProjectivePoint, PublicKey, Scalar,
            ecdsa::signature::Verifier as _,
            elliptic_curve::{ops::Reduce, sec1::ToSec1Point as _},
        };

        fn scalar(number: &Number) -> Scalar {
            <Scalar as Reduce<FieldBytes>>::reduce(&(*number).into())
        }

        /// The key is (k - u1) / u2 times G for the nonce k; with r and z given, u1 or u2 can be
        /// chosen, and s = z / u1 = r / u2.
        fn to_measure(
            message: &[u8],
            choose_u1: bool,
            chosen: &Number,
            nonce: &Number,
        ) -> Option<(VerifyingKey, [u8; 64])> {
            let digest: Number = <sha2::Sha256 as sha2::Digest>::digest(message).into();
            let (z, chosen, nonce) = (scalar(&digest), scalar(chosen), scalar(nonce));
            let point = (ProjectivePoint::GENERATOR * nonce).to_affine().to_sec1_point(false);
            let r = scalar(point.as_bytes().get(1..33)?.try_into().ok()?);
            let invert = |scalar: Scalar| Option::<Scalar>::from(scalar.invert());
            let s = if choose_u1 { z } else { r } * invert(chosen)?;
            let inverse = invert(s)?;
            let (u1, u2) = (z * inverse, r * inverse);
            let private =
                Option::<NonZeroScalar>::from(NonZeroScalar::new((nonce - u1) * invert(u2)?))?;
            let public = PublicKey::from_secret_scalar(&private).to_sec1_point(false);
            let key = VerifyingKey::from_sec1($curve, public.as_bytes()).ok()?;
            let signature = $library::ecdsa::Signature::from_scalars(r, s).ok()?;
            Some((key, signature.normalize_s().to_bytes().into()))
        }

        fn verify(signed: &Signed) -> bool {
            let key = signed.key.to_sec1_uncompressed();
            let key = $library::ecdsa::VerifyingKey::from_sec1_bytes(&key)
                .expect("a parsed key is a point of its curve");
            $library::ecdsa::Signature::from_slice(&signed.signature).is_ok_and(|signature| {
                signature.normalize_s() == signature
                    && key.verify(&signed.message, &signature).is_ok()
            })
        }

        Library {
            curve: $curve,
            order: number($order),
            field_size: number($field_size),
            to_measure,
            verify,
        }
    }};
}

fn k256() -> Library {
    library!(
        k256,
        Curve::K256,
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"
    )
}

fn p256() -> Library {
    library!(
        p256,
        Curve::P256,
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
    )
}

/// Reads digits of hexadecimal; whatever else is zero.
fn number(digits: &str) -> Number {
    let mut number = [0; 32];
    for (byte, pair) in number.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        *byte = pair.iter().fold(0, |byte, &pair| byte << 4 | digit(pair));
    }
    number
}

/// a + b mod 2^256.
fn plus(mut a: Number, b: i16) -> Number {
    let mut carry = b;
    for byte in a.iter_mut().rev() {
        carry += i16::from(*byte);
        *byte = carry as u8;
        carry >>= 8;
    }
    a
}

/// a - b mod 2^256.
fn minus(mut a: Number, b: &Number) -> Number {
    let mut borrow = 0;
    for (byte, other) in a.iter_mut().zip(b).rev() {
        borrow += i16::from(*byte) - i16::from(*other);
        *byte = borrow as u8;
        borrow >>= 8;
    }
    a
}

fn halved(mut a: Number) -> Number {
    let mut carry = 0;
    for byte in &mut a {
        (*byte, carry) = (*byte >> 1 | carry << 7, *byte & 1);
    }
    a
}

/// What is left of the input; zeros when nothing is.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let mut bytes = [0; COUNT];
        let (taken, rest) = self.0.split_at(COUNT.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    /// A number near one at which something may turn, a power of two, or any.
    fn number(&mut self, library: &Library) -> Number {
        let [kind, more] = self.bytes();
        let near = i16::from(more as i8);
        match kind % 8 {
            0 | 1 => plus([0; 32], i16::from(more)),
            2 => plus(library.order, near),
            3 => plus(halved(library.order), near),
            4 => plus(library.field_size, near),
            5 => plus(minus(library.field_size, &library.order), near),
            6 => {
                let mut power = [0; 32];
                power[usize::from(more) / 8] = 1 << (more % 8);
                plus(power, i16::from(kind / 8 % 4) - 2)
            }
            _ => self.bytes(),
        }
    }

    fn signed(&mut self, library: &Library) -> Option<Signed> {
        let [shape, spoiling] = self.bytes();
        let message = self.bytes();
        let (key, mut signature) = if shape % 4 == 0 {
            let (chosen, nonce) = (self.number(library), self.number(library));
            (library.to_measure)(&message, shape & 4 == 0, &chosen, &nonce)?
        } else {
            let private = self.number(library);
            let signer = SigningKey::from_bytes(library.curve, &private)?;
            let mut signature = signer.sign(&message);
            if shape % 4 == 1 {
                signature[..32].copy_from_slice(&self.number(library));
            }
            if shape % 4 == 1 || shape % 16 == 2 {
                signature[32..].copy_from_slice(&self.number(library));
            }
            (signer.verifying_key(), signature)
        };
        if spoiling < 64 {
            signature[usize::from(spoiling)] ^= 1 << (shape >> 5);
        } else if spoiling < 80 {
            let high = minus(library.order, signature[32..].try_into().ok()?);
            signature[32..].copy_from_slice(&high);
        }
        Some(Signed { key, message, signature })
    }
}

/// Lanes, the libraries in use and those of pure Rust say the same of each signature. Returns how many
/// are good.
pub fn batch(data: &[u8]) -> usize {
    let libraries = [k256(), p256()];
    let mut input = Input(data);
    let mut batch = Vec::new();
    while !input.0.is_empty() && batch.len() < SIGNATURES_MAX {
        let library = &libraries[usize::from(input.byte() % 2)];
        batch.extend(input.signed(library));
    }
    let checks: Vec<_> = batch
        .iter()
        .map(|Signed { key, message, signature }| Check { key, message, signature })
        .collect();
    let (mut lanes, mut library) = (Vec::new(), Vec::new());
    LANES.verify_batch(&checks, &mut lanes);
    LIBRARY.verify_batch(&checks, &mut library);
    for (i, check) in checks.iter().enumerate() {
        assert_eq!(lanes[i], library[i], "{i} of {}: {check:02x?}", checks.len());
    }
    // The slow ones are asked about one of them.
    if let Some(signed) = batch.get(data.len() % batch.len().max(1)) {
        let oracle = libraries.iter().find(|library| library.curve == signed.key.curve());
        let verdict = oracle.is_some_and(|oracle| (oracle.verify)(signed));
        assert_eq!(library[data.len() % batch.len()], verdict, "{:02x?}", signed.signature);
    }
    library.iter().filter(|&&good| good).count()
}
