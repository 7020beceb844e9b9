//! The services among themselves, without any mesh: paths, JSON, page, and what each does when another fails.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, response::IntoResponse as _, routing::get};
use bookinfo::{
    caller::{CallError, CallFuture, Caller},
    services::Service,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use serde_json::{Value, json};
use tower_service::Service as _;

/// Calls routers of this process, by the name of the service, and remembers what it was asked.
#[derive(Clone, Default)]
struct Town {
    services: BTreeMap<&'static str, Router>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Town {
    fn with(mut self, name: &'static str, router: Router) -> Self {
        self.services.insert(name, router);
        self
    }

    fn asked(&self) -> MutexGuard<'_, Vec<(String, HeaderMap)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Vec<String> {
        self.asked().iter().map(|(uri, _)| uri.clone()).collect()
    }

    /// The headers of the last call.
    fn last_headers(&self) -> HeaderMap {
        self.asked().last().expect("a call").1.clone()
    }
}

impl Caller for Town {
    fn call(&self, request: Request<Empty<Bytes>>) -> CallFuture<'_> {
        let asked = (request.uri().to_string(), request.headers().clone());
        self.asked().push(asked);
        Box::pin(async move {
            let gone = || CallError::Failed("connection refused".into());
            let name = request
                .uri()
                .host()
                .expect("services name each other")
                .to_owned();
            let mut router = self.services.get(name.as_str()).cloned().ok_or_else(gone)?;
            let answer = router
                .call(request.map(Body::new))
                .await
                .map_err(|never| match never {})?;
            let (head, body) = answer.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| CallError::Failed(error.into()))?
                .to_bytes();
            Ok(Response::from_parts(head, body))
        })
    }
}

fn router(app: &str, version: &str, town: &Town) -> Router {
    let service = Service::from_labels(app, version).expect("a service of bookinfo");
    service.router(&format!("{app}-{version}"), Arc::new(town.clone()))
}

/// details, ratings v1 and one version of reviews.
fn town(reviews: &str) -> Town {
    let alone = Town::default();
    let town = Town::default().with("ratings", router("ratings", "v1", &alone));
    let reviews = router("reviews", reviews, &town);
    town.with("details", router("details", "v1", &alone))
        .with("reviews", reviews)
}

async fn ask(mut router: Router, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let answer = router
        .call(request)
        .await
        .unwrap_or_else(|never| match never {});
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .expect("a body of this process")
        .to_bytes();
    (
        head.status,
        head.headers,
        String::from_utf8_lossy(&body).into_owned(),
    )
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

async fn json_of(router: Router, path: &str) -> (StatusCode, Value) {
    let (status, headers, body) = ask(router, request(path)).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{path}");
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn details_answers_for_every_number_and_only_for_numbers() {
    let details = router("details", "v1", &Town::default());
    let (status, book) = json_of(details.clone(), "/details/7").await;
    let wanted = json!({"id": 7, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
        "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890"});
    assert_eq!((status, book), (StatusCode::OK, wanted));
    for path in ["/details/x", "/details"] {
        let (status, error) = json_of(details.clone(), path).await;
        assert_eq!(
            (status, error),
            (
                StatusCode::BAD_REQUEST,
                json!({"error": "please provide numeric product id"})
            )
        );
    }
    assert_eq!(
        json_of(details, "/health").await.1,
        json!({"status": "Details is healthy"})
    );
}

#[tokio::test]
async fn ratings_v1_keeps_what_is_posted_and_v2_takes_nothing() {
    let stars = json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}});
    let post = || {
        Request::post("/ratings/0")
            .body(Body::from("{\"Reviewer1\": 1}"))
            .expect("a request")
    };
    let v1 = router("ratings", "v1", &Town::default());
    assert_eq!(
        json_of(v1.clone(), "/ratings/0").await,
        (StatusCode::OK, stars.clone())
    );
    assert_eq!(ask(v1.clone(), post()).await.0, StatusCode::OK);
    assert_eq!(
        json_of(v1.clone(), "/ratings/0").await.1,
        json!({"id": 0, "ratings": {"Reviewer1": 1}})
    );
    let broken = Request::post("/ratings/0")
        .body(Body::from("{"))
        .expect("a request");
    assert_eq!(ask(v1.clone(), broken).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        json_of(v1.clone(), "/ratings/x").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        json_of(v1, "/health").await.1,
        json!({"status": "Ratings is healthy"})
    );
    let v2 = router("ratings", "v2", &Town::default());
    assert_eq!(ask(v2.clone(), post()).await.0, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(json_of(v2, "/ratings/0").await, (StatusCode::OK, stars));
}

#[tokio::test]
async fn reviews_differ_in_their_stars() {
    for (version, rating) in [
        ("v1", Value::Null),
        ("v2", json!({"stars": 5, "color": "black"})),
        ("v3", json!({"stars": 5, "color": "red"})),
    ] {
        let (status, reviews) =
            json_of(router("reviews", version, &town("v1")), "/reviews/0").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&reviews["id"], &reviews["podname"]),
            (&json!("0"), &json!(format!("reviews-{version}")))
        );
        assert_eq!(reviews["clustername"], "null");
        assert_eq!(reviews["reviews"][0]["reviewer"], "Reviewer1");
        assert_eq!(reviews["reviews"][0]["rating"], rating);
    }
    let (status, _, _) = ask(router("reviews", "v1", &town("v1")), request("/reviews/x")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_ratings_each_review_says_so() {
    let (status, reviews) = json_of(router("reviews", "v2", &Town::default()), "/reviews/0").await;
    assert_eq!(status, StatusCode::OK);
    for review in 0..2 {
        let rating = &reviews["reviews"][review]["rating"];
        assert_eq!(
            *rating,
            json!({"error": "Ratings service is currently unavailable"})
        );
    }
}

#[tokio::test]
async fn the_page_has_everything() {
    for (version, stars) in [
        ("v1", None),
        ("v2", Some("text-black-500")),
        ("v3", Some("text-red-500")),
    ] {
        let (status, headers, page) = ask(
            router("productpage", "v1", &town(version)),
            request("/productpage"),
        )
        .await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        for wanted in [
            "The Comedy of Errors",
            "1234567890",
            "slapstick humour",
            "Book Details",
            "Book Reviews",
        ] {
            assert!(
                page.contains(wanted),
                "{wanted} is missing with reviews {version}"
            );
        }
        assert!(page.contains(&format!("Reviews served by: reviews-{version}")));
        assert_eq!(
            page.matches("class=\"stars").count(),
            if stars.is_some() { 2 } else { 0 }
        );
        assert!(stars.is_none_or(|stars| page.contains(stars)));
    }
}

#[tokio::test]
async fn the_page_comes_without_any_other_service_and_asks_reviews_twice() {
    let nobody = Town::default();
    let (status, _, page) = ask(
        router("productpage", "v1", &nobody),
        request("/productpage"),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    for what in ["details", "reviews"] {
        assert!(page.contains(&format!("Error fetching product {what}!")));
        assert!(page.contains(&format!(
            "Sorry, product {what} are currently unavailable for this book."
        )));
    }
    let [details, reviews] = [
        "http://details:9080/details/0",
        "http://reviews:9080/reviews/0",
    ];
    assert_eq!(nobody.seen(), [details, reviews, reviews]);
}

#[tokio::test(start_paused = true)]
async fn productpage_gives_up_after_three_seconds_and_once_more() {
    let slow = Router::new().fallback(get(|| async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        "{}".into_response()
    }));
    let start = tokio::time::Instant::now();
    let town = town("v1").with("reviews", slow);
    let (_, _, page) = ask(router("productpage", "v1", &town), request("/productpage")).await;
    assert_eq!(start.elapsed().as_secs(), 6);
    assert!(page.contains("Error fetching product reviews!") && page.contains("Book Details"));
}

#[tokio::test]
async fn signing_in_makes_an_end_user_of_the_session_alone() {
    let town = town("v1");
    let page = router("productpage", "v1", &town);
    let login = Request::post("/login")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::REFERER, "http://127.0.0.1:8080/productpage?u=test")
        .body(Body::from("username=jason&passwd="))
        .expect("a request");
    let (status, headers, _) = ask(page.clone(), login).await;
    assert_eq!(status, StatusCode::FOUND);
    assert_eq!(
        headers[header::LOCATION],
        "http://127.0.0.1:8080/productpage?u=test"
    );
    let cookie = headers[header::SET_COOKIE]
        .to_str()
        .expect("text")
        .split(';')
        .next()
        .expect("a pair")
        .to_owned();

    let signed_in = Request::get("/productpage")
        .header(header::COOKIE, cookie)
        .header("x-request-id", "1")
        .header("end-user", "mallory")
        .body(Body::empty())
        .expect("a request");
    let (_, _, html) = ask(page.clone(), signed_in).await;
    assert!(html.contains("jason") && html.contains("Sign out"));
    let headers = town.last_headers();
    assert_eq!(headers["end-user"], "jason");
    assert_eq!(headers["x-request-id"], "1");

    let (status, headers, _) = ask(page.clone(), request("/logout")).await;
    assert_eq!(status, StatusCode::FOUND);
    assert!(
        headers[header::SET_COOKIE]
            .to_str()
            .expect("text")
            .contains("Max-Age=0")
    );
    let mut forged = request("/productpage");
    forged
        .headers_mut()
        .insert("end-user", "mallory".parse().expect("a header value"));
    ask(page, forged).await;
    let headers = town.last_headers();
    assert!(!headers.contains_key("end-user"));
}

#[tokio::test]
async fn the_api_hands_answers_and_errors_on() {
    let whole = router("productpage", "v1", &town("v3"));
    let (status, products) = json_of(whole.clone(), "/api/v1/products").await;
    assert_eq!(
        (status, &products[0]["title"]),
        (StatusCode::OK, &json!("The Comedy of Errors"))
    );
    assert_eq!(
        json_of(whole.clone(), "/api/v1/products/0").await.1["pages"],
        200
    );
    assert_eq!(
        json_of(whole.clone(), "/api/v1/products/0/reviews").await.1["podname"],
        "reviews-v3"
    );
    assert_eq!(
        json_of(whole.clone(), "/api/v1/products/0/ratings").await.1["ratings"]["Reviewer2"],
        4
    );
    let broken = Router::new().fallback(|| async { StatusCode::from_u16(555).expect("a status") });
    let hurt = router("productpage", "v1", &town("v1").with("details", broken));
    let (status, error) = json_of(hurt, "/api/v1/products/0").await;
    assert_eq!(status.as_u16(), 555);
    assert_eq!(
        error,
        json!({"error": "Sorry, product details are currently unavailable for this book."})
    );
    for (path, kind) in [
        ("/static/tailwind/tailwind.css", "text/css"),
        ("/static/img/izzy.png", "image/png"),
    ] {
        let (status, headers, _) = ask(whole.clone(), request(path)).await;
        assert_eq!(
            (status, &headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &kind.parse().expect("a header value"))
        );
    }
}
