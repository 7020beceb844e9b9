//! bookinfo's services, written after Istio's: the same paths, JSON and page.

mod details;
mod headers;
mod page;
mod productpage;
mod ratings;
mod reviews;
mod session;

use std::{fmt, sync::Arc};

use axum::Router;

pub use ratings::Store;
pub use reviews::Stars;

use crate::caller::Caller;

/// One of the services, in one of its versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// The page, and the API behind it. Calls details and reviews.
    Productpage,
    /// Facts about the book.
    Details,
    /// Two reviews; v1 without stars, v2 with black and v3 with red ones, which come from ratings.
    Reviews(Option<Stars>),
    /// The stars; v1 holds what is posted in memory, v2 reads them from a table and takes no posts.
    Ratings(Store),
}

/// There is no such service or version in bookinfo.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "bookinfo has no service {app} {version}; it has productpage v1, details v1, reviews v1 to v3, ratings v1 and v2"
)]
pub struct UnknownService {
    app: String,
    version: String,
}

impl Service {
    /// The service that a workload with the labels `app` and `version` runs.
    ///
    /// # Errors
    /// [`UnknownService`] when bookinfo has none of that name and version.
    pub fn from_labels(app: &str, version: &str) -> Result<Self, UnknownService> {
        match (app, version) {
            ("productpage", "v1") => Ok(Self::Productpage),
            ("details", "v1") => Ok(Self::Details),
            ("reviews", "v1") => Ok(Self::Reviews(None)),
            ("reviews", "v2") => Ok(Self::Reviews(Some(Stars::Black))),
            ("reviews", "v3") => Ok(Self::Reviews(Some(Stars::Red))),
            ("ratings", "v1") => Ok(Self::Ratings(Store::Memory)),
            ("ratings", "v2") => Ok(Self::Ratings(Store::Table)),
            _ => Err(UnknownService {
                app: app.to_owned(),
                version: version.to_owned(),
            }),
        }
    }

    /// The service as an axum application; `pod` is the name that reviews gives as where it runs.
    pub fn router(self, pod: &str, caller: Arc<dyn Caller>) -> Router {
        match self {
            Self::Productpage => productpage::router(caller),
            Self::Details => details::router(),
            Self::Reviews(stars) => reviews::router(pod, stars, caller),
            Self::Ratings(store) => ratings::router(store),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Productpage => "productpage v1",
            Self::Details => "details v1",
            Self::Reviews(None) => "reviews v1",
            Self::Reviews(Some(Stars::Black)) => "reviews v2",
            Self::Reviews(Some(Stars::Red)) => "reviews v3",
            Self::Ratings(Store::Memory) => "ratings v1",
            Self::Ratings(Store::Table) => "ratings v2",
        })
    }
}
