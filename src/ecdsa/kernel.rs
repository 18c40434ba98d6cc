//! What lanes are asked, and what they answer.

use crate::{Curve, VerifyingKey};

/// Signatures that lanes are given at most in one call: they share one inversion.
pub(crate) const GROUP: usize = 64;

/// A signature whose message has been hashed.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    /// A key of the curve that the kernel is called for.
    pub(crate) key: &'a VerifyingKey,
    /// SHA-256 of the message.
    pub(crate) digest: [u8; 32],
    /// `r‖s`, in range or not.
    pub(crate) signature: &'a [u8; 64],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Bad,
    Good,
    /// The lane met an exceptional case: a library has to decide.
    Undecided,
}

/// Leaves a verdict for each item. At most [`GROUP`] items, all of the same curve.
pub(crate) type Kernel = fn(Curve, &[Item<'_>], &mut [Verdict]);

/// The lanes of this CPU, their tables made; `None` if it has none.
pub(crate) fn detect() -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    return crate::lanes::kernel();
    #[cfg(not(target_arch = "x86_64"))]
    None
}
