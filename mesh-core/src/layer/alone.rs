//! Each of the ten layers alone in a plain tower stack, through `fixed`.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{ServiceBuilder, service_fn, util::ServiceFn};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Routed, admit::AdmitLayer, cors::CorsLayer, fault::FaultLayer, headers::HeaderRules,
    headers::HeadersLayer, mirror::FixedMirrors, mirror::MirrorLayer, mirror::Shadow,
    observe::ObserveLayer, respond::RespondLayer, retry::Retries, retry::RetryLayer,
    route::RouteLayer, tests::Strict, tests::table, timeout::TimeoutLayer, timeout::Timeouts,
};
use crate::{
    BoxError, Error, Kind,
    body::{RequestBody, ResponseBody},
    cluster::Cluster,
    model::{self, Fraction, RetryOn},
    pool::Outgoing,
    stack::tests::{cluster_config, forward},
    telemetry::record::{Late, Record, Sink},
};

type Body = RequestBody<Full<Bytes>>;

/// Somebody's application: tells what it got, and fails in its own way when it is asked to.
async fn app(request: Request<Body>) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if body == "fail" {
        return Err("the application failed".into());
    }
    if body == "sleep" {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let mut response = Response::new(Full::new(body));
    if let Some(value) = head.headers.get("x-seen") {
        response.headers_mut().insert("x-seen", value.clone());
    }
    Ok(response)
}

/// A service that wants to be asked before each call.
fn strict<F>(app: F) -> Strict<ServiceFn<F>> {
    Strict::new(service_fn(app))
}

fn request(body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post("http://a/b").header("origin", "http://o");
    request.body(Full::from(body)).expect("a request")
}

/// Status, text and headers of the answer.
async fn ask<S, U>(
    mut service: S,
    body: &'static str,
) -> Result<(u16, Bytes, http::HeaderMap), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<U>, Error: Into<BoxError>>,
    U: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx))
        .await
        .map_err(Into::into)?;
    let response = service.call(request(body)).await.map_err(Into::into)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok((head.status.as_u16(), body, head.headers))
}

fn cluster(max_requests: u32) -> Arc<Cluster> {
    let mut config = cluster_config("c", ([127, 0, 0, 1], 1).into());
    config.limits[0].max_requests = max_requests;
    Arc::new(Cluster::new(Arc::new(config), None))
}

#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<u16>>);

impl Sink for Told {
    fn finish(&self, _: &Record, late: &Late) {
        self.0.lock().expect("no panic").push(late.status);
    }
}

#[tokio::test]
async fn observe() {
    let told = Arc::new(Told::default());
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::fixed(told.clone()))
        .service(strict(app));
    let (status, body, _) = ask(service, "x").await.expect("an answer");
    assert_eq!((status, &*body), (200, &b"x"[..]));
    assert_eq!(*told.0.lock().expect("no panic"), [200]);
}

#[tokio::test]
async fn respond() {
    let service = ServiceBuilder::new()
        .layer(RespondLayer::fixed(Default::default()))
        .service(strict(app));
    let (status, ..) = ask(service.clone(), "x").await.expect("an answer");
    assert_eq!(status, 200);
    let (status, body, _) = ask(service, "fail").await.expect("an answer");
    assert_eq!(status, 503);
    assert!(body.starts_with(b"upstream connect error"), "{body:?}");
}

#[tokio::test]
async fn route() {
    let table = table(vec![forward("c")], &[cluster(1)].into_iter().collect());
    let service = ServiceBuilder::new()
        .layer(RouteLayer::fixed(table))
        .service(strict(|routed: Routed<Body>| async move {
            assert_eq!(&**routed.cluster.name(), "c");
            app(routed.into()).await
        }));
    let (status, body, _) = ask(service, "x").await.expect("an answer");
    assert_eq!((status, &*body), (200, &b"x"[..]));
}

#[tokio::test]
async fn a_redirect_is_followed_as_soon_as_the_service_is_ready() {
    let mut route = forward("c");
    let model::Action::Forward(action) = &mut route.action else {
        unreachable!("the route forwards");
    };
    action.internal_redirect = Some(model::InternalRedirect {
        max: 1,
        codes: vec![302],
        cross_scheme: false,
        predicates: Vec::new(),
        copy_headers: Vec::new(),
    });
    let table = table(vec![route], &[cluster(1)].into_iter().collect());
    let service = ServiceBuilder::new()
        .layer(RouteLayer::fixed(table))
        .service(strict(|routed: Routed<Body>| async move {
            let request = Request::from(routed);
            let mut response = Response::new(Full::<Bytes>::default());
            if request.uri().path() == "/b" {
                *response.status_mut() = StatusCode::FOUND;
                let target = "http://a/c".parse().expect("a value");
                response.headers_mut().insert("location", target);
                return Ok(response);
            }
            app(request).await
        }));
    let (status, body, _) = ask(service, "x").await.expect("an answer");
    assert_eq!((status, &*body), (200, &b"x"[..]));
}

#[tokio::test]
async fn cors() {
    let policy = model::Cors {
        allow_origins: vec![model::StringMatcher {
            pattern: model::StringPattern::Exact("http://o".into()),
            ignore_case: false,
        }],
        ..Default::default()
    };
    let service = ServiceBuilder::new()
        .layer(CorsLayer::fixed(policy))
        .service(strict(app));
    let (_, _, headers) = ask(service, "x").await.expect("an answer");
    assert_eq!(headers["access-control-allow-origin"], "http://o");
}

#[tokio::test]
async fn fault() {
    let policy = model::Fault {
        abort: Some(model::FaultAbort {
            with: model::AbortWith::Http(StatusCode::IM_A_TEAPOT),
            percentage: Fraction::ALWAYS,
        }),
        ..Default::default()
    };
    let service = ServiceBuilder::new()
        .layer(FaultLayer::fixed(policy).expect("valid"))
        .service(strict(app));
    let error = ask(service, "x").await.expect_err("a fault");
    let error = error.downcast::<Error>().expect("one of ours");
    assert_eq!((error.kind(), error.status()), (Kind::FaultAbort, 418));
}

#[tokio::test(start_paused = true)]
async fn a_delay_before_the_service_is_called() {
    let policy = model::Fault {
        delay: Some(model::FaultDelay {
            fixed: Some(Duration::from_secs(1)),
            percentage: Fraction::ALWAYS,
        }),
        ..Default::default()
    };
    let service = ServiceBuilder::new()
        .layer(FaultLayer::fixed(policy).expect("valid"))
        .service(strict(app));
    let begun = tokio::time::Instant::now();
    let (status, ..) = ask(service, "x").await.expect("an answer");
    assert_eq!((status, begun.elapsed().as_secs()), (200, 1));
}

/// One that takes no request and says why.
#[derive(Clone)]
struct Unready;

impl Service<Request<Body>> for Unready {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err(Error::new(Kind::Overloaded).into()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test]
async fn respond_answers_for_a_service_that_is_not_ready() {
    let service = RespondLayer::fixed(Default::default()).layer(Unready);
    let (status, body, _) = ask(service, "x").await.expect("an answer");
    assert_eq!((status, &*body), (503, &b"envoy overloaded"[..]));
}

#[tokio::test]
async fn mirror() {
    let (sender, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let shadow = service_fn(move |(_, copy): (Shadow, Request<Body>)| {
        let sender = sender.clone();
        async move {
            let body = copy.into_body().collect().await.map_err(Error::adopt)?;
            let _ = sender.send(body.to_bytes());
            Ok::<_, Error>(Response::new(ResponseBody::<Full<Bytes>>::empty()))
        }
    });
    let policy = FixedMirrors {
        share: Fraction::ALWAYS,
        timeout: None,
    };
    let service = ServiceBuilder::new()
        .layer(MirrorLayer::fixed(policy, shadow))
        .service(strict(app));
    let (status, ..) = ask(service, "x").await.expect("an answer");
    assert_eq!(status, 200);
    assert_eq!(copies.recv().await.expect("a copy"), "x");
}

#[tokio::test(start_paused = true)]
async fn timeout() {
    let policy = Timeouts {
        route: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::fixed(policy))
        .service(strict(app));
    assert!(ask(service.clone(), "x").await.is_ok());
    let error = ask(service, "sleep").await.expect_err("a timeout");
    let error = error.downcast::<Error>().expect("one of ours");
    assert_eq!(error.kind(), Kind::UpstreamTimeout);
}

#[tokio::test]
async fn headers() {
    let add = |name: &'static str| model::HeaderAddition {
        name: http::HeaderName::from_static(name),
        value: model::Format { text: "1".into() },
        action: Default::default(),
        keep_empty: false,
    };
    let rules = HeaderRules::new(&model::HeaderMutations {
        request_add: vec![add("x-seen")],
        response_add: vec![add("x-back")],
        ..Default::default()
    });
    let service = ServiceBuilder::new()
        .layer(HeadersLayer::fixed(rules.expect("valid")))
        .service(strict(app));
    let (_, _, headers) = ask(service, "x").await.expect("an answer");
    assert_eq!(
        (&headers["x-seen"], &headers["x-back"]),
        (
            &"1".parse().expect("a value"),
            &"1".parse().expect("a value")
        )
    );
}

#[tokio::test(start_paused = true)]
async fn retry() {
    let tries = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = tries.clone();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::fixed(Retries::simple(RetryOn::RESET, 2)))
        .service(strict(move |request| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            app(request)
        }));
    assert!(ask(service.clone(), "x").await.is_ok());
    assert_eq!(tries.swap(0, std::sync::atomic::Ordering::Relaxed), 1);
    assert!(ask(service, "fail").await.is_err());
    assert_eq!(tries.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn admit() {
    for (most, wanted) in [(1, None), (0, Some(Kind::Overflow))] {
        let pool = strict(|outgoing: Outgoing<Full<Bytes>>| async move {
            assert_eq!(&**outgoing.cluster.name(), "c");
            Ok::<_, Error>(Response::new(outgoing.request.into_body()))
        });
        let layer = AdmitLayer::fixed(cluster(most), model::Priority::Default);
        let seen = ask(layer.layer(pool), "x").await;
        let kind = seen
            .err()
            .map(|error| error.downcast::<Error>().expect("one of ours").kind());
        assert_eq!(kind, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn several_together_around_somebody_elses_service() {
    let limit = Timeouts {
        route: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    let service = ServiceBuilder::new()
        .layer(RespondLayer::fixed(Default::default()))
        .layer(TimeoutLayer::fixed(limit))
        .service(strict(
            |_: Request<RequestBody<RequestBody<Full<Bytes>>>>| async {
                std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>().await
            },
        ));
    let (status, body, _) = ask(service, "x").await.expect("an answer");
    assert_eq!((status, &*body), (504, &b"upstream request timeout"[..]));
}
