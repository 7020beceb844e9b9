//! `envoy-router-check`: entries of Envoy's router check tool, played as the tool plays them.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3 as proto;
use http::{HeaderMap, HeaderName};
use mesh_core::model::{self, Fraction, Metadata};
use mesh_core::route::{
    Decision, Field, Head, HeadBuf, HeadContext, HeaderTest, Headers, RouteTable, Runtime,
};
use mesh_xds::{decode, json};
use serde_json::Value;

use super::envoy_route_config::{
    cases, cluster, compile, finalized, loopback, lossy, message, only, same, set, status, text,
    timeout, virtual_host,
};
use super::read_json;
use crate::conformance::{Ctx, SuiteResult};

/// Plays all entries.
pub fn run(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("envoy-router-check");
    let dir = ctx.dir("envoy-router-check");
    let Some(cases) = cases(&dir, &mut result) else {
        return result;
    };
    let mut tables = BTreeMap::new();
    for case in &cases {
        let config = text(&case["config"]).to_owned();
        let table = tables
            .entry(config.clone())
            .or_insert_with(|| table(&dir.join("config").join(config)));
        let outcome = match table {
            Ok(table) => only(case, &["id", "config", "golden", "test_name", "expect"])
                .and_then(|()| entry(&dir, case))
                .and_then(|entry| judge(case, play(table, &entry))),
            Err(error) => Err(error.clone()),
        };
        result.case(text(&case["id"]), outcome);
    }
    result
}

/// The tool must report what the case says. An entry that is not understood fails whatever it says.
fn judge(case: &Value, outcome: Result<Result<(), String>, String>) -> Result<(), String> {
    match (text(&case["expect"]), outcome?) {
        ("pass", outcome) => outcome,
        ("fail", Err(_)) => Ok(()),
        ("fail", Ok(())) => Err("expected that the tool reports a failure, seen none".to_owned()),
        (other, _) => Err(format!("expect {other:?} is not understood")),
    }
}

fn table(path: &std::path::Path) -> Result<RouteTable, String> {
    let mut message = message(path)?;
    assign_runtime_fraction(&mut message);
    compile(&message)
}

/// As the tool does: a share of 0 becomes 1, so that an active runtime key can turn the route on.
fn assign_runtime_fraction(message: &mut proto::RouteConfiguration) {
    let routes = message
        .virtual_hosts
        .iter_mut()
        .flat_map(|host| &mut host.routes);
    for route in routes {
        let share = route
            .r#match
            .as_mut()
            .and_then(|matched| matched.runtime_fraction.as_mut())
            .and_then(|fraction| fraction.default_value.as_mut());
        if let Some(share) = share.filter(|share| share.numerator == 0) {
            share.numerator = 1;
        }
    }
}

/// The entry that a case names.
pub(crate) fn entry(dir: &std::path::Path, case: &Value) -> Result<Value, String> {
    let golden: Value = read_json(&dir.join("golden").join(text(&case["golden"])))?;
    golden["tests"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["test_name"] == case["test_name"])
        .cloned()
        .ok_or_else(|| format!("no entry {}", case["test_name"]))
}

/// The one runtime key that is on; without it every share is 0.
struct ActiveKey<'a>(&'a str);

impl Runtime for ActiveKey<'_> {
    fn fraction(&self, key: &str, default: Fraction) -> Fraction {
        if key == self.0 {
            default
        } else {
            Fraction::NEVER
        }
    }

    fn integer(&self, _key: &str, default: u64) -> u64 {
        default
    }
}

/// What the tool finds: the outer error if the entry is not understood, the inner one if an assertion does not hold.
fn play(table: &RouteTable, entry: &Value) -> Result<Result<(), String>, String> {
    only(entry, &["test_name", "input", "validate"])?;
    let input = &entry["input"];
    let head = head(input)?;
    let metadata = dynamic_metadata(&input["dynamic_metadata"])?;
    let runtime = ActiveKey(input["runtime"].as_str().unwrap_or(""));
    let connection = loopback();
    let borrowed = Head {
        connection: &connection,
        metadata: Some(&metadata),
        runtime: Some(&runtime),
        random: input["random_value"].as_u64().unwrap_or(0),
        ..head.head()
    };
    let decision = table.decide(&borrowed);
    let seen = Seen {
        upstream: finalized(&decision, &head, &borrowed),
        response: response(&decision, &borrowed),
        decision,
        head: borrowed,
    };
    let validate = entry["validate"].as_object().ok_or("nothing to validate")?;
    let mut verdict = Ok(());
    for (key, wanted) in validate {
        verdict = verdict.and(seen.check(key, wanted)?);
    }
    Ok(verdict)
}

fn head(input: &Value) -> Result<HeadBuf, String> {
    only(
        input,
        &[
            "authority",
            "path",
            "method",
            "ssl",
            "internal",
            "random_value",
            "runtime",
            "dynamic_metadata",
            "additional_request_headers",
        ],
    )?;
    let scheme = if input["ssl"] == true {
        "https"
    } else {
        "http"
    };
    let mut head = HeadBuf::default();
    set(&mut head, ":authority", text(&input["authority"]))?;
    set(&mut head, ":path", text(&input["path"]))?;
    set(&mut head, ":method", text(&input["method"]))?;
    set(&mut head, ":scheme", scheme)?;
    set(&mut head, "x-forwarded-proto", scheme)?;
    if input["internal"] == true {
        set(&mut head, "x-envoy-internal", "true")?;
    }
    for header in input["additional_request_headers"]
        .as_array()
        .into_iter()
        .flatten()
    {
        set(&mut head, text(&header["key"]), text(&header["value"]))?;
    }
    Ok(head)
}

/// A namespace that stands twice keeps its first value, unless the second may overwrite it.
fn dynamic_metadata(list: &Value) -> Result<Metadata, String> {
    let mut metadata = Metadata::default();
    for one in list.as_array().into_iter().flatten() {
        only(one, &["metadata_namespace", "value", "allow_overwrite"])?;
        let name = text(&one["metadata_namespace"]);
        let value = value(&one["value"]);
        match metadata
            .namespaces
            .iter_mut()
            .find(|(known, _)| **known == *name)
        {
            Some((_, known)) if one["allow_overwrite"] == true => *known = value,
            Some(_) => {}
            None => metadata.namespaces.push((name.into(), value)),
        }
    }
    Ok(metadata)
}

fn value(json: &Value) -> model::Value {
    match json {
        Value::Null => model::Value::Null,
        Value::Bool(value) => model::Value::Bool(*value),
        Value::Number(number) => model::Value::Number(number.to_string().into()),
        Value::String(text) => model::Value::String(text.as_str().into()),
        Value::Array(list) => model::Value::List(list.iter().map(value).collect()),
        Value::Object(members) => model::Value::Object(
            members
                .iter()
                .map(|(name, member)| (name.as_str().into(), value(member)))
                .collect(),
        ),
    }
}

/// The headers of the response: those of an answer that the route gives, else what it adds to the upstream's.
fn response(decision: &Decision, head: &Head<'_, HeaderMap>) -> HeaderMap {
    let context = HeadContext(*head);
    match decision {
        Decision::Forward(forwarding) => {
            let mut headers = HeaderMap::new();
            forwarding.finalize_response(&mut headers, &context);
            headers
        }
        Decision::Redirect(redirection) => redirection.response(&context).headers().clone(),
        Decision::DirectResponse(route) => route.direct_response(&context).headers().clone(),
        _ => HeaderMap::new(),
    }
}

struct Seen<'a> {
    decision: Decision,
    head: Head<'a, HeaderMap>,
    upstream: HeadBuf,
    response: HeaderMap,
}

impl Seen<'_> {
    /// One assertion: the outer error if it is not understood, the inner one if it does not hold.
    fn check(&self, key: &str, wanted: &Value) -> Result<Result<(), String>, String> {
        let forwards = matches!(self.decision, Decision::Forward(_));
        let if_forwarded = |text: String| if forwards { text } else { String::new() };
        Ok(match key {
            "cluster_name" => same(key, text(wanted), &cluster(&self.decision)),
            "virtual_host_name" => same(
                key,
                text(wanted),
                &if_forwarded(virtual_host(&self.decision)),
            ),
            "virtual_cluster_name" => {
                same(key, text(wanted), &if_forwarded(self.virtual_cluster()))
            }
            "path_rewrite" => same(key, text(wanted), &if_forwarded(lossy(&self.upstream.path))),
            "host_rewrite" => same(
                key,
                text(wanted),
                &if_forwarded(lossy(&self.upstream.authority)),
            ),
            "path_redirect" => same(key, text(wanted), &self.uri()),
            "code_redirect" => {
                let seen = status(&self.decision).map_or(0, |status| status.as_u16());
                same(key, &wanted.to_string(), &seen.to_string())
            }
            "timeout" => {
                let seen = self.decision.route().map(|route| timeout(route));
                same(
                    key,
                    &format!("{:?}", seconds(text(wanted))),
                    &format!("{seen:?}"),
                )
            }
            "route_metadata" => self.route_metadata(wanted),
            "request_header_matches" => self.matches(wanted, |field| {
                self.upstream
                    .head()
                    .field(field)
                    .map(|value| value.into_owned())
            })?,
            "response_header_matches" => self.matches(wanted, |field| match field {
                Field::Header(name) => self.response_value(name),
                _ => None,
            })?,
            _ => return Err(format!("assertion {key:?} is not understood")),
        })
    }

    fn virtual_cluster(&self) -> String {
        let host = self.decision.host();
        host.and_then(|host| host.virtual_cluster(&self.head))
            .unwrap_or("")
            .to_owned()
    }

    /// Where the answer leads; a direct response that is no redirect has the request's own URI.
    fn uri(&self) -> String {
        match &self.decision {
            Decision::Redirect(redirection) => lossy(redirection.location()),
            Decision::DirectResponse(route) => lossy(&route.own_uri(&self.head)),
            _ => String::new(),
        }
    }

    fn response_value(&self, name: &HeaderName) -> Option<Vec<u8>> {
        self.response.joined(name).map(|value| value.into_owned())
    }

    fn route_metadata(&self, wanted: &Value) -> Result<(), String> {
        for one in wanted.as_array().into_iter().flatten() {
            let path = [text(&one["key"]).into()];
            let metadata = self.decision.route().map(|route| &route.config().metadata);
            let seen = metadata
                .and_then(|metadata| metadata.get(text(&one["namespace"]), &path))
                .and_then(|value| value.as_text());
            same("route_metadata", text(&one["value"]), seen.unwrap_or(""))?;
        }
        Ok(())
    }

    fn matches(
        &self,
        wanted: &Value,
        read: impl Fn(&Field) -> Option<Vec<u8>>,
    ) -> Result<Result<(), String>, String> {
        for one in wanted.as_array().into_iter().flatten() {
            let test = header_test(one)?;
            let value = read(test.field());
            if !test.matches_value(value.as_deref()) {
                let seen = value.as_deref().map(lossy);
                return Ok(Err(format!("expected {one}, seen {seen:?}")));
            }
        }
        Ok(Ok(()))
    }
}

fn header_test(matcher: &Value) -> Result<HeaderTest, String> {
    let message: proto::HeaderMatcher =
        json::from_deserializer("envoy.config.route.v3.HeaderMatcher", matcher.clone())
            .map_err(|error| error.to_string())?;
    let mut context = decode::Context::new("header matcher");
    let matcher = decode::header_matcher(&mut context, &message);
    matcher
        .as_ref()
        .and_then(HeaderTest::new)
        .ok_or_else(|| format!("{:?}", context.finish().rejections))
}

fn seconds(text: &str) -> Option<std::time::Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    std::time::Duration::try_from_secs_f64(seconds).ok()
}
