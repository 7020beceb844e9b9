//! details: facts about a book, the same for every number.

use axum::{
    Json, Router, http::StatusCode, response::IntoResponse, response::Response, routing::get,
};
use serde::Serialize;
use serde_json::json;

/// What details says about a book. The fields stand in the order in which they are sent.
#[derive(Serialize)]
struct Details {
    id: i64,
    author: &'static str,
    year: u16,
    r#type: &'static str,
    pages: u16,
    publisher: &'static str,
    language: &'static str,
    #[serde(rename = "ISBN-10")]
    isbn10: &'static str,
    #[serde(rename = "ISBN-13")]
    isbn13: &'static str,
}

pub(super) fn router() -> Router {
    Router::new()
        .route("/health", get(|| async { Json(json!({"status": "Details is healthy"})) }))
        .route("/details", get(|| book("")))
        .route("/details/{*id}", get(|axum::extract::Path(id): axum::extract::Path<String>| async move { book(&id).await }))
}

/// The number is the last part of the path.
fn book(path: &str) -> impl Future<Output = Response> + Send + use<> {
    let id = path
        .rsplit('/')
        .find(|part| !part.is_empty())
        .and_then(|id| id.parse().ok());
    std::future::ready(match id {
        Some(id) => Json(facts(id)).into_response(),
        None => (
            StatusCode::BAD_REQUEST,
            Json(json!({"error": "please provide numeric product id"})),
        )
            .into_response(),
    })
}

fn facts(id: i64) -> Details {
    Details {
        id,
        author: "William Shakespeare",
        year: 1595,
        r#type: "paperback",
        pages: 200,
        publisher: "PublisherA",
        language: "English",
        isbn10: "1234567890",
        isbn13: "123-1234567890",
    }
}
