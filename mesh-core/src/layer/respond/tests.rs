use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::{Replies, RespondLayer};
use crate::{
    Error, Kind,
    body::{RequestBody, ResponseBody},
    layer::Exchange,
    model::{
        BodyFormat, Comparison, Format, FormatKind, LocalReply, LogFilter, ReplyMapper,
        ServerHeader,
    },
    telemetry::{flags::Flag, record::Record},
};

/// What becomes of an error: the response and its record.
async fn reply(
    replies: Replies,
    error: fn() -> Error,
    grpc: bool,
) -> (Response<ResponseBody<Full<Bytes>>>, Arc<Record>) {
    let inner = tower::service_fn(move |_: Exchange<RequestBody<Empty<Bytes>>>| async move {
        Err::<Response<ResponseBody<Full<Bytes>>>, _>(error())
    });
    let mut service = RespondLayer::new(Arc::new(replies)).layer(inner);
    let record = Record::begin(None, http::Version::HTTP_11, grpc);
    let mut request = Request::new(RequestBody::new(Empty::new()));
    if grpc {
        let kind = HeaderValue::from_static("application/grpc+proto");
        request.headers_mut().insert("content-type", kind);
    }
    let exchange = Exchange::new(request, record.clone());
    let Ok(response) = service.call(exchange).await;
    (response, record)
}

async fn text(response: Response<ResponseBody<Full<Bytes>>>) -> String {
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

/// What becomes of a direct response.
async fn own(replies: Replies, grpc: bool) -> Response<ResponseBody<Full<Bytes>>> {
    let inner = tower::service_fn(|_: Exchange<RequestBody<Empty<Bytes>>>| async {
        let mut response = Response::new(ResponseBody::local(Bytes::from_static(b"moved")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
            .headers_mut()
            .insert("x-kept", HeaderValue::from_static("yes"));
        response.extensions_mut().insert(super::OwnReply);
        Ok::<Response<ResponseBody<Full<Bytes>>>, Error>(response)
    });
    let mut service = RespondLayer::new(Arc::new(replies)).layer(inner);
    let record = Record::begin(None, http::Version::HTTP_11, grpc);
    let request = Request::new(RequestBody::new(Empty::new()));
    let Ok(response) = service.call(Exchange::new(request, record)).await;
    response
}

#[tokio::test]
async fn an_answer_of_a_route_is_a_local_reply_like_any_other() {
    let config = LocalReply {
        body: Some(BodyFormat {
            format: FormatKind::Text(Format {
                text: "<%LOCAL_REPLY_BODY% %RESPONSE_CODE%>".into(),
            }),
            content_type: None,
        }),
        ..LocalReply::default()
    };
    let response = own(Replies::new(&config).expect("valid"), false).await;
    assert_eq!(response.headers()["x-kept"], "yes");
    assert_eq!(response.headers()["content-length"], "11");
    assert_eq!(text(response).await, "<moved 404>");
    let response = own(Replies::default(), true).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(response.headers()["grpc-message"], "moved");
    assert_eq!(response.headers()["x-kept"], "yes");
}

#[tokio::test]
async fn an_error_becomes_envoys_reply_with_flag_and_details() {
    let (response, record) = reply(Replies::default(), || Kind::Overflow.into(), false).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["x-envoy-overloaded"], "true");
    assert!(record.late().flags.contains(Flag::UpstreamOverflow));
    assert_eq!(
        record.late().details.as_deref(),
        Some(Kind::Overflow.reply().details)
    );
    assert_eq!(text(response).await, Kind::Overflow.reply().body);
}

#[tokio::test]
async fn grpc_gets_trailers_only() {
    let (response, _) = reply(
        Replies::default(),
        || Error::detailed(Kind::NoHealthyUpstream, "100% ü"),
        true,
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.headers()["grpc-message"], "100%25 %C3%BC");
    assert_eq!(text(response).await, "");
    let abort = || Error::new(Kind::FaultAbort).with_status(StatusCode::NOT_FOUND);
    let (response, _) = reply(Replies::default(), abort, true).await;
    assert_eq!(
        response.headers()["grpc-status"],
        "12",
        "404 is UNIMPLEMENTED"
    );
}

/// Measured with Envoy 1.40.
#[tokio::test]
async fn grpc_statuses_are_those_of_the_http_statuses_but_for_what_the_codec_refuses() {
    let reply = async |error: fn() -> Error| {
        let (response, _) = reply(Replies::default(), error, true).await;
        let grpc = response.headers().get("grpc-status");
        let grpc = grpc.map(|code| code.to_str().expect("a number").to_owned());
        (response.status().as_u16(), grpc)
    };
    let of = |code: &str| (200, Some(code.to_owned()));
    assert_eq!(reply(|| Kind::UpstreamTimeout.into()).await, of("14"));
    assert_eq!(reply(|| Kind::StreamIdle.into()).await, of("14"));
    assert_eq!(reply(|| Kind::PathNormalization.into()).await, of("13"));
    assert_eq!(reply(|| Kind::RequestTimeout.into()).await, of("2"));
    assert_eq!(reply(|| Kind::DownstreamProtocol.into()).await, (400, None));
    assert_eq!(reply(|| Kind::ConnectionHeader.into()).await, (400, None));
}

#[tokio::test]
async fn a_reply_that_is_mapped_to_204_has_no_body() {
    let config = LocalReply {
        mappers: vec![ReplyMapper {
            filter: LogFilter::Status(Comparison::Eq, 404),
            status: Some(StatusCode::NO_CONTENT),
            body: Some("not here".into()),
            body_format: None,
            headers: Vec::new(),
        }],
        body: None,
    };
    let replies = Replies::new(&config).expect("valid");
    let (response, _) = reply(replies, || Kind::NoRoute.into(), false).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    for name in ["content-length", "content-type"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn mappers_change_status_body_and_format() {
    let config = LocalReply {
        mappers: vec![ReplyMapper {
            filter: LogFilter::Status(Comparison::Eq, 404),
            status: Some(StatusCode::GONE),
            body: Some("not here".into()),
            body_format: None,
            headers: Vec::new(),
        }],
        body: Some(BodyFormat {
            format: FormatKind::Text(Format {
                text: "<%LOCAL_REPLY_BODY%|%RESPONSE_FLAGS%>".into(),
            }),
            content_type: Some(HeaderValue::from_static("text/html")),
        }),
    };
    let replies = || Replies::new(&config).expect("valid");
    let (response, _) = reply(replies(), || Kind::NoRoute.into(), false).await;
    assert_eq!(response.status(), StatusCode::GONE);
    assert_eq!(response.headers()["content-type"], "text/html");
    assert_eq!(text(response).await, "<not here|NR>");
    let (response, _) = reply(replies(), || Kind::NoHealthyUpstream.into(), false).await;
    assert_eq!(text(response).await, "<no healthy upstream|UH>");
}

#[tokio::test]
async fn responses_lose_the_upstreams_connection_and_get_server_and_via() {
    let inner = tower::service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
        let mut response = Response::new(Full::<Bytes>::from("x"));
        for (name, value) in [
            ("connection", "x-a"),
            ("keep-alive", "1"),
            ("server", "other"),
            ("via", "1.1 a"),
        ] {
            response
                .headers_mut()
                .insert(name, value.parse().expect("a value"));
        }
        Ok::<_, std::convert::Infallible>(response)
    });
    let name = HeaderValue::from_static("envoy");
    for (mode, wanted) in [
        (ServerHeader::Overwrite, "envoy"),
        (ServerHeader::AppendIfAbsent, "other"),
        (ServerHeader::PassThrough, "other"),
    ] {
        let replies = Replies::default().server(name.clone(), mode).via("1.1 b");
        let mut service = RespondLayer::fixed(replies).layer(inner);
        let Ok(response) = service.call(Request::new(Empty::<Bytes>::new())).await;
        assert_eq!(response.headers()["server"], wanted, "{mode:?}");
        assert_eq!(response.headers()["via"], "1.1 a, 1.1 b");
        assert!(!response.headers().contains_key("connection"));
        assert!(!response.headers().contains_key("keep-alive"));
    }
}
