//! Accounts and verification.
