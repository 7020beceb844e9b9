//! Who is told of what the mesh carries, beside its metrics.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use mesh_core::{
    body::RequestBody,
    config::{Change, MemorySource, Update},
    model::{
        self, Action, DirectResponse, Format, FormatKind, LogSink, PathMatch, Route,
        RouteConfiguration, RouteMatch, RouteRules, VirtualHost,
    },
    snapshot::Mesh,
    telemetry::{
        access_log::AccessLog,
        record::{Late, Record, Sink, Wants},
    },
    transport::TcpConnector,
};
use tower_layer::Layer;
use tower_service::Service;

/// Keeps path, status and trace context of each request.
#[derive(Debug)]
struct Spans {
    wants: Wants,
    seen: Mutex<Vec<(String, u16, Option<String>)>>,
}

impl Sink for Spans {
    fn wants(&self) -> &Wants {
        &self.wants
    }

    fn finish(&self, _record: &Record, late: &Late) {
        let head = late.head.as_ref().expect("it is wanted");
        let path = head.path.as_ref().map(ToString::to_string);
        let mut headers = late.request_headers.iter();
        let context = headers.find(|(name, _)| name.as_str() == "traceparent");
        let context = context.and_then(|(_, value)| value.to_str().ok());
        let span = (
            path.unwrap_or_default(),
            late.status,
            context.map(str::to_owned),
        );
        self.seen
            .lock()
            .expect("no panic under the lock")
            .push(span);
    }
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://host{path}"))
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .body(Empty::new())
        .expect("a valid request")
}

/// A table whose only route answers with 418.
fn teapot() -> RouteConfiguration {
    let pot = DirectResponse {
        status: StatusCode::IM_A_TEAPOT,
        body: "short".into(),
        format: None,
    };
    let all = RouteMatch::path(PathMatch::Prefix("/".into()));
    RouteConfiguration {
        name: "80".into(),
        virtual_hosts: vec![VirtualHost {
            domains: vec!["*".into()],
            routes: RouteRules::List(vec![Route::new(all, Action::DirectResponse(pot))]),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

/// The lines of `path`, once there is one.
fn lines(path: &PathBuf) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if !text.is_empty() || Instant::now() > end {
            return text;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn calls_and_what_is_served_are_told_to_sinks_of_the_program() {
    let spans = Arc::new(Spans {
        wants: Wants {
            head: true,
            request: vec![HeaderName::from_static("traceparent")],
            ..Wants::default()
        },
        seen: Mutex::default(),
    });
    let file = std::env::temp_dir().join(format!("mesh-core-sink-{}.log", std::process::id()));
    let log = AccessLog::new(&model::AccessLog {
        sink: LogSink::File(file.clone()),
        format: Some(FormatKind::Text(Format {
            text: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\n".into(),
        })),
        filter: None,
        omit_empty: false,
    });
    let (source, handle) = MemorySource::new();
    let builder = Mesh::builder().sink(spans.clone());
    let builder = builder.sink(Arc::new(log.expect("a valid format")));
    let (mesh, driver) = builder.source(source).build();
    tokio::spawn(driver.run());
    handle.push(Update {
        changes: vec![Change::Routes(Arc::new(teapot()))],
        ..Update::default()
    });
    mesh.ready(Duration::from_secs(5)).await.expect("ready");

    let Ok(response) = mesh.client(TcpConnector).call(request("/called")).await;
    response.into_body().collect().await.expect("a body");
    let app = tower::service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
        Ok::<_, Infallible>(Response::new(String::from("hello")))
    });
    let Ok(response) = mesh.inbound().layer(app).call(request("/served")).await;
    response.into_body().collect().await.expect("a body");

    let seen = std::mem::take(&mut *spans.seen.lock().expect("no panic under the lock"));
    let told: Vec<_> = seen
        .iter()
        .map(|(path, status, _)| (&**path, *status))
        .collect();
    assert_eq!(told, [("/called", 418), ("/served", 200)]);
    assert!(
        seen.iter().all(|(_, _, context)| context.is_some()),
        "{seen:?}"
    );
    let logged = lines(&file);
    // Best effort: a file that stays is the system's to remove.
    let _ = std::fs::remove_file(&file);
    assert!(
        logged.starts_with("GET /called 418 direct_response\n"),
        "{logged:?}"
    );
}
