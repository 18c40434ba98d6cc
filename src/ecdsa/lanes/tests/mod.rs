//! The arithmetic at the ends of its ranges against plain big integers, and the verdicts of the lanes
//! against the libraries, for both curves by the same tests.
//!
//! `ECDSA_CASES` raises the number of random signatures, `ECDSA_SEED` chooses others.

mod big;
mod crafted;
mod generated;
mod kit;
mod oracle;
mod scalar;

mod k256;
mod p256;

/// A test for each curve: `both!(name)` calls `name::<C>()`.
macro_rules! both {
    ($($(#[$meta:meta])* $name:ident => $k256:ident, $p256:ident;)*) => { $(
        $(#[$meta])*
        #[test]
        fn $k256() {
            $name::<super::kit::K256>();
        }

        $(#[$meta])*
        #[test]
        fn $p256() {
            $name::<super::kit::P256>();
        }
    )* };
}
use both;
