//! Eight signatures at once, in the lanes of AVX-512 IFMA: exact, one verdict a lane.
//!
//! * [`batch`] makes lanes of signatures and verdicts of lanes, the same way for both curves; it says
//!   which lanes are left undecided, for a library.
//! * [`k256`] and [`p256`] compute u1 G + u2 Q on their curves.
//! * [`scalar`] and [`invert`] are the arithmetic modulo the orders of the groups, [`digits`] the windows
//!   of scalars, [`vector`] what all of it is made of.
//! * Constants are written by the scripts in `generate/`.
//!
//! Nothing here is constant in time: keys and signatures are public.
#![allow(unsafe_code, reason = "vectors are loaded and gathered through pointers")]
#![allow(
    clippy::large_types_passed_by_value,
    clippy::many_single_char_names,
    clippy::needless_range_loop,
    clippy::wildcard_imports,
    reason = "the letters of the formulas; limbs and columns are told apart by their index; \
              what is inlined is not passed"
)]

mod batch;
mod digits;
mod invert;
mod k256;
mod p256;
mod scalar;
pub(crate) mod sha256;
#[cfg(test)]
mod tests;
mod vector;

use self::batch::InLanes;
use crate::{
    Curve,
    kernel::{Item, Kernel, Verdict},
};

/// The kernel, with its tables made, if the CPU has what it takes.
pub(crate) fn kernel() -> Option<Kernel> {
    let able = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vbmi2");
    able.then(|| {
        k256::K256::base();
        p256::P256::base();
        verify as Kernel
    })
}

/// Given out by [`kernel`] only.
fn verify(curve: Curve, items: &[Item<'_>], verdicts: &mut [Verdict]) {
    // SAFETY: `kernel` has found every feature that the functions are compiled for.
    unsafe {
        match curve {
            Curve::K256 => batch::verify::<k256::K256>(items, verdicts),
            Curve::P256 => batch::verify::<p256::P256>(items, verdicts),
        }
    }
}
