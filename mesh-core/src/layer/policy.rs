//! Where a layer finds its policy.

use http::Request;

use super::Carrier;

/// Finds the policy `P` for a request `R`.
///
/// Policy and request come together, since a layer that changes the request needs both at once.
pub trait PolicyOf<R: Carrier, P: ?Sized> {
    /// The policy, if there is one, and the request.
    fn split<'a>(&'a self, request: &'a mut R) -> (Option<&'a P>, &'a mut Request<R::Body>);

    /// The policy alone.
    fn policy<'a>(&'a self, request: &'a R) -> Option<&'a P>;
}

/// One policy for all requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed<P>(pub P);

impl<R: Carrier, P> PolicyOf<R, P> for Fixed<P> {
    fn split<'a>(&'a self, request: &'a mut R) -> (Option<&'a P>, &'a mut Request<R::Body>) {
        (Some(&self.0), request.request_mut())
    }

    fn policy<'a>(&'a self, _request: &'a R) -> Option<&'a P> {
        Some(&self.0)
    }
}

/// The policy of the request's route.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByRoute;
