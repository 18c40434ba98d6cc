//! The test that the lanes pass at start, for each curve: they agree with the library on good
//! signatures, on spoiled ones and on sums that are infinity, in every lane and for several lengths.

use crate::{
    Check, Curve, VerifyingKey,
    kernel::{GROUP, Item, Kernel, Verdict},
    library,
    sign::SigningKey,
};

/// Two full vectors and some lanes.
const SIGNATURES: u8 = 19;

pub(crate) fn passes_self_test(kernel: Kernel) -> bool {
    [Curve::K256, Curve::P256].into_iter().all(|curve| passes(kernel, curve))
}

fn passes(kernel: Kernel, curve: Curve) -> bool {
    let signers: Vec<_> =
        (0..SIGNATURES).map(|seed| SigningKey::from_seed(curve, &[seed])).collect();
    let mut keys: Vec<_> = signers.iter().map(SigningKey::verifying_key).collect();
    let messages: Vec<_> = (0..SIGNATURES).map(|number| [number]).collect();
    let mut signatures: Vec<_> =
        signers.iter().zip(&messages).map(|(signer, message)| signer.sign(message)).collect();
    for (i, signature) in signatures.iter_mut().enumerate().skip(1).step_by(3) {
        signature[(i * 29) % 64] ^= 1 << (i % 8);
    }
    let minus_g = minus_generator(curve);
    for i in (0..keys.len()).step_by(5) {
        // z = r and Q = -G: u1 G + u2 Q is infinity.
        keys[i] = minus_g;
        let check = Check { key: &minus_g, message: &messages[i], signature: &signatures[i] };
        let digest = library::digest(&check);
        signatures[i][..32].copy_from_slice(&digest);
    }
    let mut checks: Vec<_> = keys
        .iter()
        .zip(&messages)
        .zip(&signatures)
        .map(|((key, message), signature)| Check { key, message, signature })
        .collect();
    // Rotated, so that each signature meets each lane.
    let in_all_lanes = (0..8).all(|_| {
        checks.rotate_left(1);
        agrees(kernel, &checks, &minus_g)
    });
    in_all_lanes && (1..checks.len()).all(|len| agrees(kernel, &checks[..len], &minus_g))
}

/// Whether every verdict is the library's. Undecided may only be left what `minus_g` signs.
fn agrees(kernel: Kernel, checks: &[Check<'_>], minus_g: &VerifyingKey) -> bool {
    let items: Vec<_> = checks
        .iter()
        .map(|check| Item {
            key: check.key,
            digest: library::digest(check),
            signature: check.signature,
        })
        .collect();
    let mut verdicts = [Verdict::Undecided; GROUP];
    let verdicts = &mut verdicts[..items.len()];
    kernel(minus_g.curve(), &items, verdicts);
    checks.iter().zip(verdicts).all(|(check, verdict)| match verdict {
        Verdict::Undecided => check.key == minus_g,
        Verdict::Good => library::verify(check),
        Verdict::Bad => !library::verify(check),
    })
}

/// -G, whose private key is the group order less one: twice the largest low `s`.
fn minus_generator(curve: Curve) -> VerifyingKey {
    let mut number = *crate::verify::half_order(curve);
    let mut carry = 0;
    for byte in number.iter_mut().rev() {
        let top = *byte >> 7;
        *byte = *byte << 1 | carry;
        carry = top;
    }
    SigningKey::from_bytes(curve, &number).expect("below the order and not zero").verifying_key()
}
