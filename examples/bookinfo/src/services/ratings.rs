//! ratings: how many stars each reviewer gave.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

/// Where ratings keeps its stars.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Store {
    /// v1: what was posted for a book, in memory, or else five and four stars.
    Memory,
    /// v2: a table of five and four stars that takes no posts. Istio's v2 asks a database; the rows are the same.
    Table,
}

/// The most books for which posted stars are kept; a post for one more is refused.
const MAX_POSTED: usize = 1024;

struct Ratings {
    store: Store,
    posted: Mutex<HashMap<i64, Value>>,
}

pub(super) fn router(store: Store) -> Router {
    let state = Arc::new(Ratings {
        store,
        posted: Mutex::default(),
    });
    Router::new()
        .route(
            "/health",
            get(|| async { Json(json!({"status": "Ratings is healthy"})) }),
        )
        .route("/ratings/", get(no_number).post(no_number))
        .route("/ratings/{*id}", get(read).post(write))
        .with_state(state)
}

async fn no_number() -> Response {
    refuse(StatusCode::BAD_REQUEST, "please provide numeric product ID")
}

async fn read(State(ratings): State<Arc<Ratings>>, Path(id): Path<String>) -> Response {
    let Some(id) = number(&id) else {
        return no_number().await;
    };
    let posted = match ratings.store {
        Store::Memory => ratings
            .posted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned(),
        Store::Table => None,
    };
    Json(answer(
        id,
        &posted.unwrap_or_else(|| json!({"Reviewer1": 5, "Reviewer2": 4})),
    ))
    .into_response()
}

async fn write(
    State(ratings): State<Arc<Ratings>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let Some(id) = number(&id) else {
        return no_number().await;
    };
    let Ok(stars) = serde_json::from_slice::<Value>(&body) else {
        return refuse(StatusCode::BAD_REQUEST, "please provide valid ratings JSON");
    };
    if ratings.store == Store::Table {
        return refuse(
            StatusCode::NOT_IMPLEMENTED,
            "Post not implemented for database backed ratings",
        );
    }
    let mut posted = ratings
        .posted
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if posted.len() >= MAX_POSTED && !posted.contains_key(&id) {
        return refuse(
            StatusCode::INSUFFICIENT_STORAGE,
            "no room for ratings of another product",
        );
    }
    let answer = answer(id, &stars);
    posted.insert(id, stars);
    Json(answer).into_response()
}

fn answer(id: i64, stars: &Value) -> Value {
    json!({"id": id, "ratings": stars})
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"error": why}))).into_response()
}

/// The number with which the last part of the path begins, as JavaScript reads one: `7x` is 7.
fn number(path: &str) -> Option<i64> {
    let last = path.rsplit('/').next()?;
    let digits = last
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(last.len());
    last[..digits].parse().ok()
}
