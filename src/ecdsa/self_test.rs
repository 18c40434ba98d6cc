//! The test that the lanes pass at start: they agree with the library on good signatures, on spoiled
//! ones and on sums that are infinity, in every lane and for several lengths.

use crate::{
    Curve, VerifyingKey,
    key::Point,
    library::{self, Item},
    sign::SigningKey,
    verifier::lanes::{GROUP, Kernel},
};

/// Two full vectors and some lanes.
const SIGNATURES: u8 = 19;

pub(crate) fn passes_self_test(kernel: Kernel) -> bool {
    let signers: Vec<_> =
        (0..SIGNATURES).map(|seed| SigningKey::from_seed(Curve::K256, &[seed])).collect();
    let keys: Vec<_> = signers.iter().map(SigningKey::verifying_key).collect();
    let mut signatures: Vec<_> =
        signers.iter().zip(0..).map(|(signer, number)| signer.sign(&[number])).collect();
    for (i, signature) in signatures.iter_mut().enumerate().skip(1).step_by(3) {
        signature[(i * 29) % 64] ^= 1 << (i % 8);
    }
    let mut items: Vec<_> = keys
        .iter()
        .filter_map(point)
        .zip(&signatures)
        .zip(0..)
        .map(|((key, signature), number)| Item::new(key, &[number], signature))
        .collect();
    let minus_g = SigningKey::from_bytes(Curve::K256, &ORDER_LESS_ONE)
        .expect("below the order and not zero")
        .verifying_key();
    if let Some(key) = point(&minus_g) {
        for item in items.iter_mut().step_by(5) {
            // z = r and Q = -G: u1 G + u2 Q is infinity.
            item.key = key;
            item.digest.copy_from_slice(&item.signature[..32]);
        }
    }
    // Rotated, so that each signature meets each lane.
    let in_all_lanes = (0..8).all(|_| {
        items.rotate_left(1);
        agrees(kernel, &items)
    });
    in_all_lanes && (1..items.len()).all(|len| agrees(kernel, &items[..len]))
}

fn point(key: &VerifyingKey) -> Option<&secp256k1::PublicKey> {
    match &key.0 {
        Point::K256(point) => Some(point),
        Point::P256(_) => None,
    }
}

fn agrees(kernel: Kernel, items: &[Item<'_>]) -> bool {
    let mut found = [false; GROUP];
    let mut expected = [true; GROUP];
    kernel(items, &mut found[..items.len()]);
    library::verify_items(items, &mut expected[..items.len()]);
    found[..items.len()] == expected[..items.len()]
}

/// The private key of -G.
const ORDER_LESS_ONE: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x40,
];
