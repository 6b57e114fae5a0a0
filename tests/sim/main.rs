//! simnode
fn main() {}
