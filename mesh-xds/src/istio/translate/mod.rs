//! The Envoy resources that istiod would send to one proxy.

mod base64;
mod domain;
mod fault;
mod hash;
mod header;
mod pb;
mod retry;
pub mod route;
mod route_match;
mod session;
mod sidecar_route;

pub use pb::{config_name, subset_key};
