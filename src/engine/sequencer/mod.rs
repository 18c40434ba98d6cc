//! Numbering of verified events.
