//! The mesh data plane program as a library.
