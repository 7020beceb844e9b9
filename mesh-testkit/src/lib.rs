//! Fakes, golden-case loaders and the conformance runner of the mesh.
