//! The Merkle search tree of a repository.
