//! reviews: two reviews of a book, with stars in v2 and v3.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::headers::handed_on;
use crate::caller::{self, Caller};

/// The colour of the stars, by which a page shows the version of reviews behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stars {
    /// v2; waits ten seconds for ratings.
    Black,
    /// v3; waits two and a half seconds for ratings.
    Red,
}

impl Stars {
    fn patience(self) -> Duration {
        match self {
            Self::Black => Duration::from_secs(10),
            Self::Red => Duration::from_millis(2500),
        }
    }
}

const TEXTS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    ),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
];

/// The answer; the fields stand in the order in which they are sent.
#[derive(Serialize)]
struct Reviews<'a> {
    id: String,
    podname: &'a str,
    clustername: &'static str,
    reviews: Vec<Review>,
}

#[derive(Serialize)]
struct Review {
    reviewer: &'static str,
    text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<Rating>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rating {
    Stars { stars: i64, color: Stars },
    Missing { error: &'static str },
}

struct App {
    pod: String,
    stars: Option<Stars>,
    caller: Arc<dyn Caller>,
}

pub(super) fn router(pod: &str, stars: Option<Stars>, caller: Arc<dyn Caller>) -> Router {
    let app = Arc::new(App {
        pod: pod.to_owned(),
        stars,
        caller,
    });
    Router::new()
        .route(
            "/health",
            get(|| async { Json(json!({"status": "Reviews is healthy"})) }),
        )
        .route("/reviews/{id}", get(reviews))
        .with_state(app)
}

async fn reviews(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Ok(id) = id.parse::<i32>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut ratings = [None, None];
    if let Some(color) = app.stars {
        let given = app.ratings(id, color, &headers).await;
        ratings = TEXTS.map(|(reviewer, _)| {
            let stars = given
                .as_ref()
                .and_then(|given| given.get("ratings")?.get(reviewer)?.as_i64());
            Some(match stars {
                Some(stars) => Rating::Stars { stars, color },
                None => Rating::Missing {
                    error: "Ratings service is currently unavailable",
                },
            })
        });
    }
    let reviews = TEXTS
        .into_iter()
        .zip(ratings)
        .map(|((reviewer, text), rating)| Review {
            reviewer,
            text,
            rating,
        });
    Json(Reviews {
        id: id.to_string(),
        podname: &app.pod,
        clustername: "null",
        reviews: reviews.collect(),
    })
    .into_response()
}

impl App {
    /// What ratings says, or nothing when it does not answer 200 with JSON in time.
    async fn ratings(&self, id: i32, color: Stars, headers: &HeaderMap) -> Option<Value> {
        let path = format!("/ratings/{id}");
        let (status, body) = caller::get(
            &self.caller,
            "ratings",
            &path,
            &handed_on(headers),
            color.patience(),
        )
        .await
        .ok()?;
        (status == StatusCode::OK).then(|| serde_json::from_slice(&body).ok())?
    }
}
