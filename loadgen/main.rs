//! (opening line)
fn main() {}
