//! One program for each way to use the mesh.
