//! The arithmetic at the ends of its ranges against plain big integers, and the verdicts of the lanes
//! against libsecp256k1 and `k256`.
//!
//! `ECDSA_CASES` raises the number of random signatures, `ECDSA_SEED` chooses others.

mod big;
mod constants;
mod crafted;
mod field;
mod kit;
mod oracle;
mod scalar;
