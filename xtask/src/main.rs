//! The commands that README and CI name: test, bars, bench.
fn main() {}
