//! A stage that knows a filter of its own: authorization by identity, headers and what another filter found out.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use mesh_core::{
    Error, Kind,
    config::{Change, MemorySource, Update},
    decide::Chain,
    model::{
        Action, Address, DirectResponse, Direction, FilterChain, FilterChainMatch, FilterConfig,
        FilterOverride, HttpConnectionManager, HttpFilter, HttpFilterKind, Listener, Metadata,
        Name, Network, PathMatch, Route, RouteConfiguration, RouteMatch, RouteRules, RouteSource,
        Value, VirtualHost,
    },
    pool::Pool,
    route::{ConnectionFacts, Decision, Field, FilterSetting, Head},
    server::{self, Listeners},
    snapshot::{ConnFacts, Guard, Judged, Mesh, MeshBuilder, Stage, Verdict},
    stack::Proxy,
    telemetry::record::{Late, Record, Sink},
    transport::{TcpConnector, TokioExec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const RBAC: &str = "type.test/Rbac";
const TOKEN: &str = "type.test/Token";

/// Knows two filters: one that reads a token, and one that allows what the configuration names.
#[derive(Debug, Default)]
struct Policies {
    shadowed: Arc<AtomicU32>,
}

/// Puts the value of a header into the metadata.
#[derive(Debug)]
struct Token;

/// Allows one subject; a route may name another one.
#[derive(Debug)]
struct Allow {
    name: Name,
    subject: String,
    shadowed: Option<Arc<AtomicU32>>,
}

impl Stage for Policies {
    fn knows(&self, type_url: &str) -> bool {
        [TOKEN, RBAC].contains(&type_url)
    }

    fn compile(&self, filter: &HttpFilter, direction: Direction) -> Result<Box<dyn Guard>, String> {
        let HttpFilterKind::Opaque(kind, bytes) = &filter.kind else {
            unreachable!("mesh-core understands the others itself");
        };
        if direction != Direction::Inbound {
            return Err("it protects what comes in".to_owned());
        }
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        Ok(match &**kind {
            TOKEN => Box::new(Token),
            _ => Box::new(Allow {
                name: filter.name.clone(),
                subject: text.trim_start_matches("shadow:").to_owned(),
                shadowed: text.starts_with("shadow:").then(|| self.shadowed.clone()),
            }),
        })
    }
}

impl Guard for Token {
    fn judge(&self, request: &Judged<'_>, found: &mut Metadata) -> Verdict {
        let name = http::HeaderName::from_static("authorization");
        if let Some(token) = request.head.field(&Field::Header(name)) {
            let subject = String::from_utf8_lossy(&token).into_owned();
            found.namespaces.push((
                "token".into(),
                Value::Object(vec![("subject".into(), Value::String(subject.into()))]),
            ));
        }
        Verdict::Pass
    }
}

impl Guard for Allow {
    fn judge(&self, request: &Judged<'_>, found: &mut Metadata) -> Verdict {
        let wanted = match request.setting(&self.name) {
            Some(FilterSetting::Disabled) => return Verdict::Pass,
            Some(FilterSetting::Opaque(_, bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => self.subject.clone(),
        };
        let peer = request.head.connection.peer_identity.as_deref();
        let subject = found.get("token", &["subject".into()]);
        let subject = subject.and_then(Value::as_text);
        if [peer, subject].contains(&Some(&*wanted)) {
            return Verdict::Pass;
        }
        match &self.shadowed {
            Some(count) => {
                count.fetch_add(1, Ordering::Relaxed);
                Verdict::Pass
            }
            None => Verdict::Refuse(Error::new(Kind::Denied)),
        }
    }
}

fn filter(name: &str, kind: &str, text: &str) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        kind: HttpFilterKind::Opaque(kind.into(), Bytes::copy_from_slice(text.as_bytes())),
        disabled: false,
    }
}

/// `/open` turns the filter `rbac` off, `/bob` names another subject; each route answers by itself.
fn table() -> RouteConfiguration {
    let route = |path: &str, setting: Option<FilterConfig>| {
        let answer = DirectResponse {
            status: http::StatusCode::OK,
            body: "in".into(),
            format: None,
        };
        let matches = RouteMatch::path(PathMatch::Prefix(path.into()));
        let mut route = Route::new(matches, Action::DirectResponse(answer));
        route
            .filters
            .extend(setting.map(|config| FilterOverride::new("rbac".into(), config)));
        route
    };
    let bob = FilterConfig::Opaque(RBAC.into(), "bob".into());
    let routes = vec![
        route("/open", Some(FilterConfig::Disabled)),
        route("/bob", Some(bob)),
        route("/", None),
    ];
    RouteConfiguration {
        name: "in".into(),
        virtual_hosts: vec![VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: RouteRules::List(routes),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

/// A mesh whose listener `in` has these filters; whether it was taken.
fn mesh_of(direction: Direction, filters: Vec<HttpFilter>, stage: bool) -> (Mesh, String) {
    let builder = match stage {
        true => Mesh::builder().stage(Arc::new(Policies::default())),
        false => Mesh::builder(),
    };
    build(builder, direction, filters)
}

fn build(
    builder: MeshBuilder<()>,
    direction: Direction,
    filters: Vec<HttpFilter>,
) -> (Mesh, String) {
    let manager = HttpConnectionManager {
        routes: RouteSource::Inline(Arc::new(table())),
        filters,
        ..HttpConnectionManager::default()
    };
    let mut listener = Listener::new("in", Address::Socket(([127, 0, 0, 1], 0).into()));
    listener.direction = direction;
    listener.filter_chains = vec![FilterChain {
        name: "".into(),
        matches: FilterChainMatch::default(),
        transport: Default::default(),
        transport_connect_timeout: None,
        network: Network::Http(Box::new(manager)),
        refuse: None,
    }];
    let (source, handle) = MemorySource::new();
    let (mesh, mut driver) = builder.source(source).build();
    driver.apply(Update {
        changes: vec![Change::Listener(Arc::new(listener))],
        ..Update::default()
    });
    let outcome = handle.outcome().expect("it was applied");
    let refused = outcome.rejections.first().map(ToString::to_string);
    (mesh, refused.unwrap_or_default())
}

fn chain(mesh: &Mesh) -> Chain {
    let address = Address::Socket(([127, 0, 0, 1], 1).into());
    let facts = ConnFacts::plain(&address, &address);
    mesh.reader().chain("in", &facts).expect("a chain")
}

/// Why a request is refused; `None`: it is not.
fn asked(chain: &Chain, path: &str, token: Option<&str>, peer: Option<&str>) -> Option<Kind> {
    let headers: Vec<(&str, &str)> = token
        .map(|one| ("authorization", one))
        .into_iter()
        .collect();
    let connection = ConnectionFacts {
        peer_identity: peer.map(Into::into),
        ..ConnectionFacts::default()
    };
    let head = Head {
        connection: &connection,
        ..Head::new(b"GET", b"http", b"host", path.as_bytes(), &headers)
    };
    match chain.decide(&head) {
        Ok(decision) => {
            assert!(matches!(decision, Decision::DirectResponse(_)));
            None
        }
        Err(kind) => Some(kind),
    }
}

/// Keeps status, details and subject of each request.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u16, String, Option<Name>)>>);

impl Sink for Told {
    fn finish(&self, _record: &Record, late: &Late) {
        let found = late.dynamic.as_deref();
        let subject = found.and_then(|found| found.get("token", &["subject".into()]));
        let subject = subject.and_then(Value::as_text).map(Name::from);
        let details = late.details.clone().unwrap_or_default().into_owned();
        let mut told = self.0.lock().expect("no panic under the lock");
        told.push((late.status, details, subject));
    }
}

fn filters() -> Vec<HttpFilter> {
    vec![filter("token", TOKEN, ""), filter("rbac", RBAC, "alice")]
}

#[test]
fn guards_judge_in_the_order_of_filters_by_identity_token_and_route() {
    let (mesh, refused) = mesh_of(Direction::Inbound, filters(), true);
    assert_eq!(refused, "");
    let chain = chain(&mesh);
    let denied = Some(Kind::Denied);
    for (path, token, peer, wanted) in [
        ("/", None, None, denied),
        ("/", None, Some("alice"), None),
        ("/", Some("alice"), None, None),
        ("/", Some("bob"), None, denied),
        ("/bob", Some("bob"), None, None),
        ("/bob", Some("alice"), None, denied),
        ("/open", None, None, None),
    ] {
        let found = asked(&chain, path, token, peer);
        assert_eq!(found, wanted, "{path} {token:?} {peer:?}");
    }
    // Ahead of what it reads, the guard knows nothing of the token.
    let turned = filters().into_iter().rev().collect();
    let (mesh, _) = mesh_of(Direction::Inbound, turned, true);
    let chain = self::chain(&mesh);
    assert_eq!(asked(&chain, "/", Some("alice"), None), denied);
}

#[test]
fn a_stage_may_only_count_or_refuse_a_configuration() {
    let shadow = vec![filter("rbac", RBAC, "shadow:alice")];
    let (mesh, _) = mesh_of(Direction::Inbound, shadow, true);
    assert_eq!(asked(&chain(&mesh), "/", None, None), None);
    let (_, refused) = mesh_of(Direction::Outbound, filters(), true);
    assert_eq!(
        refused,
        "listener in: filter_chains[0].http_filters[0]: it protects what comes in"
    );
}

#[test]
fn filters_that_no_stage_takes_refuse() {
    let closed = Some(Kind::FailClosedInbound);
    let (mesh, _) = mesh_of(Direction::Inbound, filters(), false);
    assert_eq!(asked(&chain(&mesh), "/open", None, None), closed);
    // What is off refuses where a route turns it on.
    let off = HttpFilter {
        disabled: true,
        ..filter("rbac", "type.test/Other", "")
    };
    let (mesh, _) = mesh_of(Direction::Inbound, vec![off], false);
    let answer = |path: &str| {
        let headers: &[(&str, &str)] = &[];
        let head = Head::new(b"GET", b"http", b"host", path.as_bytes(), headers);
        let decision = chain(&mesh).decide(&head).expect("decided");
        let Decision::DirectResponse(route) = decision else {
            panic!("an answer, not {decision:?}");
        };
        route.direct_response(&()).status().as_u16()
    };
    assert_eq!(["/", "/open", "/bob"].map(answer), [200, 200, 403]);
}

#[tokio::test]
async fn a_listener_answers_what_a_guard_refuses_and_tells_what_it_found() {
    let told = Arc::new(Told::default());
    let builder = Mesh::builder().stage(Arc::new(Policies::default()));
    let (mesh, _) = build(builder.sink(told.clone()), Direction::Inbound, filters());
    let pool = Pool::new(TcpConnector);
    let clusters = mesh.clusters().clone();
    let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    let mut address = String::new();
    let mut listeners = Listeners::default();
    let failed = listeners.follow(&mesh.snapshot(), |socket, listener| {
        address = socket.address().to_string();
        let serving = server::serve(socket, listener.clone(), proxy.clone(), TokioExec);
        tokio::spawn(serving);
        Ok(())
    });
    assert!(failed.is_empty(), "{failed:?}");
    for (subject, wanted) in [("alice", "HTTP/1.1 200 "), ("bob", "HTTP/1.1 403 ")] {
        let mut client = TcpStream::connect(&address).await.expect("a connection");
        let request = format!(
            "GET / HTTP/1.1\r\nhost: h\r\nauthorization: {subject}\r\nconnection: close\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(wanted), "{answer}");
        assert_eq!(answer.ends_with("RBAC: access denied"), subject == "bob");
    }
    let told = std::mem::take(&mut *told.0.lock().expect("no panic under the lock"));
    let line = |status, details: &str, who: &str| (status, details.to_owned(), Some(who.into()));
    let wanted = [
        line(200, "direct_response", "alice"),
        line(403, "rbac_access_denied", "bob"),
    ];
    assert_eq!(told, wanted);
}
