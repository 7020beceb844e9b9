//! What the benches of the mesh have in common.

pub mod loopback;
pub mod stack;
