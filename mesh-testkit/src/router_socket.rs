//! `envoy-router-check` once more, through the sockets of a running proxy.
//!
//! Each route configuration gets a listener, each cluster an upstream that answers with its name and with the head that it saw. What
//! the router check tool asserts is then read off real responses. Entries whose inputs no socket can carry (random values, runtime,
//! dynamic metadata), and assertions that no client can see (virtual host, virtual cluster, timeout, metadata), are counted apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::conformance::SuiteResult;
use crate::program::free_port;
use crate::suites::envoy_router_check::entry;
use crate::suites::{read_json, read_text};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Inputs that no socket can carry.
const UNSENDABLE: [&str; 3] = ["random_value", "runtime", "dynamic_metadata"];
/// Assertions that no client can see.
const UNSEEN: [&str; 4] = [
    "virtual_host_name",
    "virtual_cluster_name",
    "timeout",
    "route_metadata",
];

/// The cases, with upstreams that listen; [`Play::config`] is what the proxy is to be started on.
#[derive(Debug)]
pub struct Play {
    dir: PathBuf,
    cases: Vec<Value>,
    /// A port for each route configuration, and its text.
    listeners: BTreeMap<String, (u16, String)>,
    /// Route configurations in which chance decides; the tool's is always 0.
    by_chance: BTreeSet<String>,
    /// The port of each upstream.
    clusters: BTreeMap<String, u16>,
}

impl Play {
    /// Reads the suite's folder and starts the upstreams; their threads end with the process.
    ///
    /// # Errors
    ///
    /// A file cannot be read or understood, or no port is left.
    pub fn new(dir: &Path) -> Result<Self, String> {
        let mut play = Self {
            dir: dir.to_path_buf(),
            cases: read_json(&dir.join("cases.json"))?,
            listeners: BTreeMap::new(),
            by_chance: BTreeSet::new(),
            clusters: BTreeMap::new(),
        };
        let mut names = BTreeSet::new();
        for case in &play.cases {
            let config = text(case, "config");
            if !play.listeners.contains_key(config) {
                let file = read_text(&dir.join("config").join(config))?;
                let value: Value = mesh_xds::yaml::from_str(&file)
                    .map_err(|error| format!("{config}: {error}"))?;
                cluster_names(&value, &mut names);
                if has_chance(&value) {
                    play.by_chance.insert(config.to_owned());
                }
                let port = free_port().map_err(|error| error.to_string())?;
                play.listeners.insert(config.to_owned(), (port, file));
            }
            let wanted = entry(dir, case)?["validate"]["cluster_name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            names.insert(wanted);
        }
        names.remove("");
        for name in names {
            play.clusters.insert(
                name.clone(),
                upstream(name).map_err(|error| error.to_string())?,
            );
        }
        Ok(play)
    }

    /// Envoy's bootstrap for the proxy: its admin server's port, a listener for each configuration, the upstreams as clusters.
    pub fn config(&self, admin: u16) -> String {
        let mut out = format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\nstatic_resources:\n  listeners:\n"
        );
        for (config, (port, routes)) in &self.listeners {
            listener(&mut out, config, *port, routes);
        }
        out.push_str("  clusters:\n");
        for (name, port) in &self.clusters {
            let _ = writeln!(
                out,
                "  - {{name: {name:?}, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: {name:?}, endpoints: \
                 [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}"
            );
        }
        out
    }

    /// Where the proxy will listen.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.listeners.values().map(|(port, _)| *port)
    }

    /// Sends each entry through the proxy.
    pub fn run(&self) -> SuiteResult {
        let mut result = SuiteResult::new("envoy-router-check through sockets");
        let mut unsendable = 0;
        let mut unseen = BTreeMap::<&str, usize>::new();
        for case in &self.cases {
            let outcome = entry(&self.dir, case).and_then(|entry| {
                let sendable = |input: &&str| entry["input"].get(input).is_none();
                if self.by_chance.contains(text(case, "config")) || !UNSENDABLE.iter().all(sendable)
                {
                    return Ok(false);
                }
                for name in UNSEEN {
                    *unseen.entry(name).or_default() +=
                        usize::from(entry["validate"].get(name).is_some());
                }
                self.one(case, &entry).map(|()| true)
            });
            match outcome {
                Ok(true) => result.pass(),
                Ok(false) => unsendable += 1,
                Err(why) => result.fail(text(case, "id"), why),
            }
        }
        result.note(format!(
            "{unsendable} entries have inputs that no socket can carry ({}), or are decided by chance",
            UNSENDABLE.join(", ")
        ));
        result.note(format!("assertions that no client can see: {unseen:?}"));
        result
    }

    fn one(&self, case: &Value, entry: &Value) -> Result<(), String> {
        let (port, _) = self
            .listeners
            .get(text(case, "config"))
            .ok_or("no listener")?;
        let answer = ask(*port, &entry["input"])?;
        let verdict = check(&entry["validate"], &answer);
        // What an entry that must be refused asserts wrongly is nothing that a socket shows, so the rest must hold all the more.
        verdict.map_err(|why| format!("{why}; answer {} {:?}", answer.status, answer.headers))
    }
}

fn listener(out: &mut String, config: &str, port: u16, routes: &str) {
    let _ = write!(
        out,
        r#"  - name: {config:?}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: check
          internal_address_config: {{cidr_ranges: [{{address_prefix: 10.0.0.0, prefix_len: 8}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
"#
    );
    for line in routes.lines() {
        let _ = writeln!(out, "            {line}");
    }
}

/// Names in lower case, and values.
type Headers = Vec<(String, String)>;

/// A response, and, where an upstream made it, what that saw.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Headers,
    upstream: Option<Upstream>,
}

/// What the upstream that answered saw.
#[derive(Debug)]
struct Upstream {
    cluster: String,
    method: String,
    path: String,
    headers: Headers,
}

fn ask(port: u16, input: &Value) -> Result<Answer, String> {
    let ssl = input["ssl"].as_bool().unwrap_or(false);
    // Without trusted hops, Envoy takes the scheme and the address that a client claims; 10.0.0.0/8 is internal here.
    let from = match input["internal"].as_bool() {
        Some(true) => "X-Forwarded-For: 10.0.0.1\r\n",
        Some(false) => "X-Forwarded-For: 203.0.113.1\r\n",
        None => "",
    };
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nX-Forwarded-Proto: {}\r\n{from}Connection: close\r\n",
        text(input, "method"),
        text(input, "path"),
        text(input, "authority"),
        if ssl { "https" } else { "http" },
    );
    for header in input["additional_request_headers"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let _ = write!(
            head,
            "{}: {}\r\n",
            text(header, "key"),
            text(header, "value")
        );
    }
    head.push_str("\r\n");
    let bytes = exchange(port, head.as_bytes()).map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&bytes);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("an answer without a head: {answer:?}"))?;
    let (line, headers) = parse_head(head);
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or("no status")?;
    let cluster = headers
        .iter()
        .find(|(name, _)| name == "x-test-cluster")
        .map(|(_, value)| value.clone());
    let upstream = cluster.map(|cluster| {
        let (line, headers) = parse_head(body);
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        Upstream {
            cluster,
            method: word(),
            path: word(),
            headers,
        }
    });
    Ok(Answer {
        status,
        headers,
        upstream,
    })
}

fn exchange(port: u16, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(request)?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check(validate: &Value, answer: &Answer) -> Result<(), String> {
    for (assertion, wanted) in validate.as_object().ok_or("nothing to validate")? {
        let wanted_text = wanted.as_str().unwrap_or_default();
        let upstream = answer.upstream.as_ref();
        let seen = match assertion.as_str() {
            "cluster_name" => upstream.map_or("", |upstream| &upstream.cluster),
            "path_rewrite" => upstream.map_or("", |upstream| &upstream.path),
            "host_rewrite" => upstream.map_or("", |upstream| {
                find(&upstream.headers, "host").unwrap_or_default()
            }),
            // The tool names the request's own URI where a direct response is no redirect.
            "path_redirect" if !(300..400).contains(&answer.status) && !wanted_text.is_empty() => {
                continue;
            }
            "path_redirect" => find(&answer.headers, "location").unwrap_or_default(),
            "code_redirect" if wanted.as_u64() == Some(u64::from(answer.status)) => continue,
            "code_redirect" => {
                return Err(format!("expected status {wanted}, seen {}", answer.status));
            }
            "response_header_matches" => {
                matches(wanted, &|name| {
                    find(&answer.headers, name).map(str::to_owned)
                })?;
                continue;
            }
            "request_header_matches" => {
                let upstream = upstream.ok_or("no upstream saw the request")?;
                matches(wanted, &|name| match name {
                    ":path" => Some(upstream.path.clone()),
                    ":method" => Some(upstream.method.clone()),
                    ":authority" => find(&upstream.headers, "host").map(str::to_owned),
                    _ => find(&upstream.headers, name).map(str::to_owned),
                })?;
                continue;
            }
            known if UNSEEN.contains(&known) => continue,
            other => return Err(format!("the assertion {other} is not understood")),
        };
        if seen != wanted_text {
            return Err(format!(
                "{assertion}: expected {wanted_text:?}, seen {seen:?}"
            ));
        }
    }
    Ok(())
}

/// Header matchers, as far as the suite uses them.
fn matches(matchers: &Value, value_of: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    for matcher in matchers.as_array().into_iter().flatten() {
        let value = value_of(&text(matcher, "name").to_ascii_lowercase());
        let hit = if let Some(string) = matcher.get("string_match") {
            let exact = string["exact"]
                .as_str()
                .ok_or_else(|| format!("the matcher {matcher} is not understood"))?;
            value.as_deref() == Some(exact)
        } else if let Some(range) = matcher.get("range_match") {
            let bound = |key| {
                range[key]
                    .as_str()
                    .map_or(range[key].as_i64(), |text| text.parse().ok())
                    .unwrap_or(0)
            };
            let number = value.as_deref().and_then(|value| value.parse::<i64>().ok());
            number.is_some_and(|number| (bound("start")..bound("end")).contains(&number))
        } else {
            value.is_some() == matcher["present_match"].as_bool().unwrap_or(true)
        };
        if hit == matcher["invert_match"].as_bool().unwrap_or(false) {
            return Err(format!("expected {matcher}, seen {value:?}"));
        }
    }
    Ok(())
}

/// Starts an upstream that answers with `name` and the head that it read; returns its port.
fn upstream(name: String) -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let name = name.clone();
            thread::spawn(move || answer_all(socket, &name));
        }
    });
    Ok(port)
}

fn answer_all(mut socket: TcpStream, name: &str) {
    let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = bytes.drain(..end + 4).take(end).collect();
            let start = format!(
                "HTTP/1.1 200 OK\r\nx-test-cluster: {name}\r\ncontent-length: {}\r\n\r\n",
                head.len()
            );
            if socket
                .write_all(&[start.as_bytes(), &head].concat())
                .is_err()
            {
                return;
            }
        }
        match socket.read(&mut block) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&block[..n]),
        }
    }
}

/// All clusters that a route configuration names.
fn cluster_names(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get("cluster") {
                out.insert(name.clone());
            }
            for arm in fields
                .get("weighted_clusters")
                .and_then(|weighted| weighted["clusters"].as_array())
                .into_iter()
                .flatten()
            {
                out.insert(text(arm, "name").to_owned());
            }
            fields.values().for_each(|value| cluster_names(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| cluster_names(value, out)),
        _ => {}
    }
}

/// Whether a route is taken, or an arm chosen, by a random number.
fn has_chance(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            let arms = |weighted: &Value| weighted["clusters"].as_array().map_or(0, Vec::len);
            fields.contains_key("runtime_fraction")
                || fields
                    .get("weighted_clusters")
                    .is_some_and(|weighted| arms(weighted) > 1)
                || fields.values().any(has_chance)
        }
        Value::Array(items) => items.iter().any(has_chance),
        _ => false,
    }
}

fn parse_head(head: &str) -> (&str, Headers) {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(':'));
    (
        first,
        headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
    )
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}
