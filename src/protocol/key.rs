//! (opening line)
