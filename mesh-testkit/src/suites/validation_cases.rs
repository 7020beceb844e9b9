//! The recorded answers of Istio's validators, on objects read as a user's folder is.

use std::collections::BTreeMap;

use mesh_xds::istio::read::Level;
use serde_json::{Value, json};

use super::envoy_route_config::only;
use super::istio_files::{files, parse, texts};
use super::read_json;
use crate::conformance::{Ctx, SuiteResult};

/// `istio-validation-cases`: whole objects as recorded; parts of objects are put into the smallest object that holds them.
pub fn run(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istio-validation-cases");
    let mut by_validator: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for path in files(&ctx.dir("istio-validation-cases"), &["json"]) {
        let cases: Vec<Value> = match read_json(&path) {
            Ok(cases) => cases,
            Err(error) => {
                result.fail(path.display(), error);
                continue;
            }
        };
        for case in cases {
            let id = case["id"].as_str().unwrap_or("without id").to_owned();
            let outcome = validation_case(&case);
            let count = by_validator
                .entry(case["validator"].as_str().unwrap_or_default().to_owned())
                .or_default();
            if outcome.is_ok() {
                count.0 += 1
            } else {
                count.1 += 1
            }
            result.case(id, outcome);
        }
    }
    for (validator, (passed, failed)) in by_validator.iter().filter(|(_, (_, failed))| *failed > 0)
    {
        result.note(format!("{validator}: {passed} passed, {failed} failed"));
    }
    result
}

fn validation_case(case: &Value) -> Result<(), String> {
    let known = [
        "id",
        "source",
        "validator",
        "message",
        "metadata",
        "spec",
        "args",
        "valid",
        "error",
        "warning",
    ];
    only(case, &known)?;
    let valid = case["valid"].as_bool().ok_or("no expectation")?;
    let object = expand(&whole_object(case)?);
    let parsed = parse(&object.to_string());
    let accepted = parsed.findings.iter().all(|f| f.level != Level::Refused);
    if accepted == valid {
        return Ok(());
    }
    let wanted = if valid { "acceptance" } else { "a refusal" };
    Err(format!(
        "expected {wanted} ({}), seen {:?}",
        case["error"].as_str().unwrap_or_default(),
        texts(&parsed)
    ))
}

/// The object to judge.
fn whole_object(case: &Value) -> Result<Value, String> {
    let Some(message) = case["message"].as_str() else {
        return part(
            case["validator"].as_str().unwrap_or_default(),
            &case["args"],
        );
    };
    let (group, kind) = message.rsplit_once('.').ok_or("no message type")?;
    let group = group
        .strip_prefix("istio.")
        .and_then(|g| g.split('.').next())
        .ok_or("no group")?;
    if kind == "MeshConfig" {
        return Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": case["spec"].to_string()},
        }));
    }
    let version = match (group, kind) {
        ("networking", "ProxyConfig") => "v1beta1",
        ("networking", "EnvoyFilter") => "v1alpha3",
        ("extensions", _) => "v1alpha1",
        _ => "v1",
    };
    let mut metadata = case.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if metadata.get("name").is_none() {
        metadata["name"] = json!("case");
    }
    Ok(json!({
        "apiVersion": format!("{group}.istio.io/{version}"), "kind": kind, "metadata": metadata, "spec": case["spec"],
    }))
}

fn networking(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "case", "namespace": "ns1"}, "spec": spec})
}

/// An HTTP route in a VirtualService that is otherwise right.
fn in_route(change: impl FnOnce(&mut Value)) -> Value {
    let mut route = json!({"route": [{"destination": {"host": "foo.baz"}}]});
    change(&mut route);
    networking(
        "VirtualService",
        json!({"hosts": ["foo.bar"], "http": [route]}),
    )
}

fn answer(field: &str, value: &Value, matches: &Value) -> Value {
    let mut route = json!({field: value, "match": matches});
    if value.is_null() {
        route["route"] = json!([{"destination": {"host": "foo.baz"}}]);
    }
    networking(
        "VirtualService",
        json!({"hosts": ["foo.bar"], "http": [route]}),
    )
}

fn in_policy(policy: Value) -> Value {
    networking(
        "DestinationRule",
        json!({"host": "reviews", "trafficPolicy": policy}),
    )
}

fn in_server(server: Value) -> Value {
    networking("Gateway", json!({"servers": [server]}))
}

/// The value of an argument that is a message, without its type.
fn plain(argument: &Value) -> Value {
    match argument {
        Value::Object(map) if map.contains_key("message") => {
            map.get("value").cloned().unwrap_or_else(|| json!({}))
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn part(validator: &str, args: &Value) -> Result<Value, String> {
    if args["gatewaySemantics"] == true {
        return Err("objects converted from the Gateway API are not read from files".to_owned());
    }
    let found = of_http(validator, args).or_else(|| of_others(validator, args));
    found.ok_or_else(|| format!("{validator} judges no configuration of a file"))
}

/// Parts of a VirtualService's HTTP rules.
fn of_http(validator: &str, args: &Value) -> Option<Value> {
    let arg = |name: &str| plain(&args[name]);
    Some(match validator {
        "part-ValidateHTTPHeaderNameOrJwtClaimRoute" => {
            let name = args["name"].as_str().unwrap_or_default();
            let spec = json!({"hosts": ["foo.bar"], "gateways": ["ns1/gw"], "http": [{
                "match": [{"headers": {name: {"exact": "x"}}}], "route": [{"destination": {"host": "foo.baz"}}]}]});
            networking("VirtualService", spec)
        }
        "part-ValidateHTTPHeaderValue" => {
            in_route(|r| r["headers"] = json!({"request": {"set": {"x": args["value"]}}}))
        }
        "part-validateCORSPolicy" => in_route(|r| r["corsPolicy"] = arg("policy")),
        "part-validateDestination" => in_route(|r| r["mirror"] = arg("destination")),
        "part-validateHTTPDirectResponse" => {
            answer("directResponse", &arg("directResponse"), &json!([]))
        }
        "part-validateHTTPFaultInjectionAbort" => in_route(|r| {
            r["fault"] = json!({"abort": arg("abort"), "delay": {"fixedDelay": "1s", "percentage": {"value": 1}}});
        }),
        "part-validateHTTPFaultInjectionDelay" => in_route(|r| {
            r["fault"] = json!({"delay": arg("delay"), "abort": {"httpStatus": 500, "percentage": {"value": 1}}});
        }),
        "part-validateHTTPRedirect" => answer("redirect", &arg("redirect"), &arg("matches")),
        "part-validateHTTPRewrite" => in_route(|r| r["rewrite"] = arg("rewrite")),
        "part-validateURIRegexRewrite" => in_route(|r| {
            r["rewrite"] = json!({"uriRegexRewrite": arg("regexRewrite"), "authority": "a"});
        }),
        "part-validateHTTPRoute" => {
            let hosts = if args["delegate"] == true {
                json!([])
            } else {
                json!(["foo.bar"])
            };
            networking(
                "VirtualService",
                json!({"hosts": hosts, "http": [arg("http")]}),
            )
        }
        "part-validateHTTPStatus" => {
            in_route(|r| r["fault"] = json!({"abort": {"httpStatus": args["status"]}}))
        }
        _ => return None,
    })
}

fn of_others(validator: &str, args: &Value) -> Option<Value> {
    let arg = |name: &str| plain(&args[name]);
    Some(match validator {
        "part-ValidatePortName" => networking(
            "ServiceEntry",
            json!({"hosts": ["foo.bar"], "resolution": "DNS", "ports": [{"number": 80, "protocol": "HTTP", "name": args["name"]}]}),
        ),
        "part-ValidateStrictHTTPHeaderName" => json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "case"},
            "spec": {"jwtRules": [{"issuer": "i", "outputClaimToHeaders": [{"header": args["name"], "claim": "c"}]}]},
        }),
        "part-validateConnectionPool" => in_policy(json!({"connectionPool": arg("settings")})),
        "part-validateExportTo" => export_to(args),
        "part-validateLoadBalancer" => {
            in_policy(json!({"loadBalancer": arg("settings"), "outlierDetection": arg("outlier")}))
        }
        "part-validateOutlierDetection" => in_policy(json!({"outlierDetection": arg("outlier")})),
        "part-validateRouteDestinations" => networking(
            "VirtualService",
            json!({"hosts": ["foo.bar"], "tcp": [{"route": arg("weights")}]}),
        ),
        "part-validateServer" => in_server(arg("server")),
        "part-validateServerPort" => {
            in_server(json!({"port": arg("port"), "bind": args["bind"], "hosts": ["*"]}))
        }
        "part-validateTLSOptions" => in_server(json!({
            "port": {"number": 443, "protocol": "HTTPS", "name": "https"}, "hosts": ["*"], "tls": arg("tls"),
        })),
        "part-validateTrafficPolicy" => in_policy(arg("policy")),
        _ => return None,
    })
}

fn export_to(args: &Value) -> Value {
    let spec = if args["isServiceEntry"] == json!(true) {
        json!({"hosts": ["foo.bar"], "resolution": "DNS", "ports": [{"number": 80, "protocol": "HTTP", "name": "http"}]})
    } else if args["isDestinationRuleWithSelector"] == json!(true) {
        json!({"host": "reviews", "workloadSelector": {"matchLabels": {"app": "x"}}})
    } else {
        json!({"host": "reviews"})
    };
    let kind = if spec.get("hosts").is_some() {
        "ServiceEntry"
    } else {
        "DestinationRule"
    };
    let mut object = networking(kind, spec);
    object["spec"]["exportTo"] = args["exportTo"].clone();
    object["metadata"]["namespace"] = match args["namespace"].as_str() {
        Some("") | None => json!("ns1"),
        Some(namespace) => json!(namespace),
    };
    object
}

/// Replaces the short form of repeated text.
fn expand(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("$repeat") => {
            let times = usize::try_from(map.get("$times").and_then(Value::as_u64).unwrap_or(0))
                .unwrap_or(0);
            let text = |key: &str| {
                map.get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            Value::String(text("$repeat").repeat(times) + &text("$then"))
        }
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.clone(), expand(v))).collect())
        }
        Value::Array(items) => items.iter().map(expand).collect(),
        other => other.clone(),
    }
}
