//! Micro, stack and allocation benches of the mesh.
