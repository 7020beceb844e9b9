//! Istio and Kubernetes YAML, as istiod understands it: [`api`] is what stands in the files, [`read`] reads and
//! [`validate`] judges them, [`index`] is what they say together, [`translate`] the Envoy resources that istiod would send
//! to one proxy.

pub mod api;
pub mod index;
pub mod read;
pub mod source;
pub mod translate;
pub mod validate;

pub use api::{Object, Origin, Spec};
pub use source::{IstioOptions, IstioSource, ProxySpec};
