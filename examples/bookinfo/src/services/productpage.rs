//! productpage: the page, signing in and out, and the API behind the page.

use std::{sync::Arc, time::Duration};

use axum::{
    Form, Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{headers::handed_on, page, session};
use crate::caller::{self, Caller};

/// How long productpage waits for each call.
const PATIENCE: Duration = Duration::from_secs(3);

/// A book of the catalogue, which has one.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Product {
    id: u32,
    pub(super) title: &'static str,
    #[serde(rename = "descriptionHtml")]
    pub(super) description_html: &'static str,
}

pub(super) const PRODUCTS: [Product; 1] = [Product {
    id: 0,
    title: "The Comedy of Errors",
    description_html: "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia Summary</a>: \
        The Comedy of Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his most \
        farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, in addition to \
        puns and word play.",
}];

type App = State<Arc<dyn Caller>>;

pub(super) fn router(caller: Arc<dyn Caller>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/index.html", get(index))
        .route("/health", get(|| async { "Product page is healthy" }))
        .route("/productpage", get(front))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route(
            "/static/tailwind/tailwind.css",
            get(|| file("text/css", include_bytes!("../../assets/bookinfo.css"))),
        )
        .route(
            "/static/img/izzy.png",
            get(|| file("image/png", include_bytes!("../../assets/izzy.png"))),
        )
        .route("/api/v1/products", get(|| async { Json(PRODUCTS) }))
        .route("/api/v1/products/{id}", get(product))
        .route("/api/v1/products/{id}/reviews", get(product_reviews))
        .route("/api/v1/products/{id}/ratings", get(product_ratings))
        .with_state(caller)
}

fn file(kind: &'static str, bytes: &'static [u8]) -> impl Future<Output = Response> + Send {
    std::future::ready(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

async fn index() -> Html<String> {
    Html(page::index())
}

async fn front(State(caller): App, headers: HeaderMap) -> Html<String> {
    let user = session::user(&headers);
    let onward = onward(&headers);
    let details = details(&caller, "0", &onward).await;
    let reviews = reviews(&caller, "0", &onward).await;
    Html(page::product(
        &PRODUCTS[0],
        &details,
        &reviews,
        user.as_deref(),
    ))
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
}

async fn login(headers: HeaderMap, Form(login): Form<Login>) -> Response {
    back(&headers, session::sign_in(&login.username))
}

async fn logout(headers: HeaderMap) -> Response {
    back(&headers, session::sign_out())
}

/// Back to the page that the browser came from.
fn back(headers: &HeaderMap, cookie: HeaderValue) -> Response {
    let to = headers
        .get(header::REFERER)
        .cloned()
        .unwrap_or(HeaderValue::from_static("/productpage"));
    (
        StatusCode::FOUND,
        [(header::LOCATION, to), (header::SET_COOKIE, cookie)],
    )
        .into_response()
}

async fn product(State(caller): App, Path(id): Path<String>, headers: HeaderMap) -> Response {
    details(&caller, &id, &onward(&headers))
        .await
        .into_response()
}

async fn product_reviews(
    State(caller): App,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    reviews(&caller, &id, &onward(&headers))
        .await
        .into_response()
}

async fn product_ratings(
    State(caller): App,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    ask(&caller, "ratings", &id, &onward(&headers))
        .await
        .into_response()
}

/// What goes on to the services: trace context, session, and the user who is signed in.
///
/// An `end-user` header of the browser does not: who a user is, the session says.
fn onward(headers: &HeaderMap) -> HeaderMap {
    let mut onward = handed_on(headers);
    onward.remove("end-user");
    if let Some(Ok(user)) = session::user(headers).map(HeaderValue::try_from) {
        onward.insert("end-user", user);
    }
    onward
}

/// An answer of one of the services, or the text that stands in for it.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) json: Value,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, Json(self.json)).into_response()
    }
}

async fn details(caller: &Arc<dyn Caller>, id: &str, onward: &HeaderMap) -> Answer {
    ask(caller, "details", id, onward).await
}

/// Asks twice. Istio's sample does so on purpose, for its lesson on timeouts that do not fit together.
async fn reviews(caller: &Arc<dyn Caller>, id: &str, onward: &HeaderMap) -> Answer {
    let first = ask(caller, "reviews", id, onward).await;
    if first.status == StatusCode::OK {
        return first;
    }
    ask(caller, "reviews", id, onward).await
}

/// One call. An answer that is not 200 keeps its status; none at all, or one that is not JSON, is 500.
async fn ask(caller: &Arc<dyn Caller>, service: &str, id: &str, onward: &HeaderMap) -> Answer {
    let answer = caller::get(
        caller,
        service,
        &format!("/{service}/{id}"),
        onward,
        PATIENCE,
    )
    .await;
    let status = match answer {
        Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
            Ok(json) => {
                return Answer {
                    status: StatusCode::OK,
                    json,
                };
            }
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        },
        Ok((status, _)) => status,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Answer {
        status,
        json: json!({"error": format!("Sorry, product {service} are currently unavailable for this book.")}),
    }
}
