//! What Istio's own validation asks of each object, beyond its types.
//!
//! [`object`] checks one object alone. What needs other objects (a host or subset that does not exist) is no refusal in
//! Istio; [`dangling`] lists it.

mod check;

pub use check::{Problem, Severity};

use crate::istio::Object;
use check::Check;

/// The problems of one object.
pub fn object(object: &Object) -> Vec<Problem> {
    let mut check = Check::default();
    let _ = (object, &mut check);
    check.into_problems()
}
