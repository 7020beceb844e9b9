use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use http::{Request, Response, Version};

use super::{AccessLog, FilterRules, ISTIO_TEXT, LogWriter};
use crate::{
    model::{self, Comparison, Format, FormatKind, JsonFormat, LogFilter, LogSink, Value},
    route::{
        Head, RouteEntry, RouteTable,
        format::{FormatContext as _, Formatter, Item, Operator},
    },
    snapshot::Clusters,
    telemetry::{
        context::RecordContext,
        flags::Flag,
        record::{Ending, Late, Record, Sink, Wants},
    },
    transport::ConnInfo,
};

/// A sink in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Logged(AccessLog, Wants);

impl Sink for Logged {
    fn wants(&self) -> &Wants {
        &self.1
    }

    fn finish(&self, record: &Record, late: &Late) {
        self.0.write(record, late);
    }
}

fn log(format: Option<FormatKind>, filter: Option<LogFilter>) -> model::AccessLog {
    model::AccessLog {
        sink: LogSink::Stdout,
        format,
        filter,
        omit_empty: false,
    }
}

/// A route of the table `t` and the virtual host `v`.
fn route(name: &str) -> Arc<RouteEntry> {
    let mut route = crate::snapshot::tests::forward("a");
    route.name = name.into();
    route.metadata = metadata("route");
    let mut table = crate::snapshot::tests::table("t", "a");
    let host = &mut table.virtual_hosts[0];
    host.metadata = metadata("host");
    host.virtual_clusters = vec![model::VirtualCluster {
        name: "vc".into(),
        headers: Vec::new(),
    }];
    host.routes = model::RouteRules::List(vec![route]);
    let table = RouteTable::compile(&table, &Clusters::default()).expect("valid");
    table.routes().next().expect("a route").clone()
}

/// `n: {k: TEXT}`.
fn metadata(text: &str) -> model::Metadata {
    let value = Value::Object(vec![("k".into(), Value::String(text.into()))]);
    model::Metadata {
        namespaces: vec![("n".into(), value)],
    }
}

/// The lines that `config` writes for one request that was answered with `status`.
fn lines(config: &model::AccessLog, status: u16) -> String {
    let memory = Memory::default();
    let writer = LogWriter::new(memory.clone());
    let log = AccessLog::with_writer(config, writer).expect("valid");
    let mut wants = Wants::default();
    log.add_wants(&mut wants);
    let sink = Logged(log, wants.clone());
    let address = |port| model::Address::Socket(([10, 0, 0, 1], port).into());
    let connection = Arc::new(ConnInfo::new(address(80), address(4000)));
    let record = Record::begin(Some(connection), Version::HTTP_11, false);
    let request = Request::get("/path?q")
        .header("host", "a.test")
        .header("user-agent", "tester");
    record.see_request(&request.body(()).expect("a request"), &Arc::new(wants));
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().expect("a status");
    record.see_response(&mut response, sink.wants());
    if status == 503 {
        record.flag(Flag::NoHealthyUpstream);
        record.late().details = Some("no_healthy_upstream".into());
    }
    record.late().route = Some(route("default"));
    record.finish(Ending::Complete, &sink);
    // The last writer waits for its thread, so all is written then.
    drop(sink);
    let bytes = memory.0.lock().expect("no panic").clone();
    String::from_utf8(bytes).expect("text")
}

#[test]
fn istios_text_format_is_written_as_istio_writes_it() {
    let text = FormatKind::Text(Format {
        text: ISTIO_TEXT.into(),
    });
    let line = lines(&log(Some(text), None), 503);
    let (time, rest) = line.split_once("] ").expect("a time in brackets");
    assert!(time.starts_with("[20") && time.ends_with('Z'), "{line}");
    let (before, after) = rest.split_once(" 0 0 ").expect("bytes");
    assert_eq!(
        before,
        "\"GET /path?q HTTP/1.1\" 503 UH no_healthy_upstream - \"-\""
    );
    let (_duration, after) = after.split_once(' ').expect("a duration");
    assert_eq!(
        after,
        "- \"-\" \"tester\" \"-\" \"a.test\" \"-\" - - 10.0.0.1:80 10.0.0.1:4000 - default\n"
    );
}

#[test]
fn json_keeps_types() {
    let members = vec![
        (
            "code".into(),
            JsonFormat::Leaf(Format {
                text: "%RESPONSE_CODE%".into(),
            }),
        ),
        (
            "agent".into(),
            JsonFormat::Leaf(Format {
                text: "%REQ(user-agent)%".into(),
            }),
        ),
        ("fixed".into(), JsonFormat::Constant(Value::Bool(true))),
    ];
    let line = lines(&log(Some(FormatKind::Json(members)), None), 200);
    for part in ["\"code\":200", "\"agent\":\"tester\"", "\"fixed\":true"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(line.ends_with("}\n"), "{line}");
}

#[test]
fn filters_leave_lines_out() {
    let errors = LogFilter::Status(Comparison::Ge, 500);
    let flagged = LogFilter::ResponseFlag(vec!["UH".into()]);
    let both = LogFilter::And(vec![errors.clone(), flagged.clone()]);
    for (filter, ok, bad) in [
        (errors, 0, 1),
        (flagged, 0, 1),
        (both, 0, 1),
        (LogFilter::Duration(Comparison::Ge, 60_000), 0, 0),
        (LogFilter::Or(vec![LogFilter::NotHealthCheck]), 1, 1),
        (LogFilter::GrpcStatus(vec![14], false), 0, 1),
        (LogFilter::Metadata(None, true), 1, 1),
        (LogFilter::Metadata(None, false), 0, 0),
    ] {
        let config = log(None, Some(filter.clone()));
        assert_eq!(
            lines(&config, 200).lines().count(),
            ok,
            "{filter:?} and 200"
        );
        assert_eq!(
            lines(&config, 503).lines().count(),
            bad,
            "{filter:?} and 503"
        );
    }
}

#[test]
fn what_a_stage_found_out_decides_and_its_absence_as_written() {
    let matcher = model::MetadataMatcher {
        namespace: "authz".into(),
        path: Vec::new(),
        value: model::ValueMatcher::Bool(true),
        invert: true,
    };
    let record = full_record();
    for (found, absent, passes) in [
        (None, true, true),
        (None, false, false),
        (Some(true), false, true),
        (Some(false), true, false),
    ] {
        let filter = LogFilter::Metadata(Some(Box::new(matcher.clone())), absent);
        let rules = FilterRules::new(&filter).expect("a filter");
        let mut late = record.late();
        late.dynamic = found.map(|found| {
            Box::new(model::Metadata {
                namespaces: vec![("authz".into(), Value::Bool(found))],
            })
        });
        let context = RecordContext::new(&record, &late);
        assert_eq!(rules.passes(&context, &late), passes, "{found:?} {absent}");
    }
}

/// A record of which everything is known that can be known.
fn full_record() -> Arc<Record> {
    let address = |port| model::Address::Socket(([10, 0, 0, 1], port).into());
    let mut connection = ConnInfo::new(address(80), address(4000));
    connection.security.server_name = Some("sni".into());
    connection.filter_chain = "chain".into();
    connection.listener = "in".into();
    connection.security.peer_identity = Some("spiffe://a".into());
    let record = Record::begin(Some(Arc::new(connection)), Version::HTTP_11, true);
    let request = Request::get("/path?q").header("host", "a.test");
    let request = request.body(()).expect("a request");
    let wants = Wants {
        head: true,
        ..Wants::default()
    };
    record.see_request(&request, &Arc::new(wants));
    let clusters = clusters();
    let cluster = clusters.get("a").expect("a");
    let attempt = cluster.attempt(Default::default(), &Default::default());
    let mut late = record.late();
    let route = route("default");
    late.counted = crate::route::Counted::new(&route, &Head::of(&request));
    late.route = Some(route);
    late.endpoint = Some(attempt.expect("an endpoint").endpoint().clone());
    late.cluster = Some(cluster);
    late.upstream = Some(Arc::new(crate::transport::UpstreamConn {
        local: Some(([10, 0, 0, 1], 5000).into()),
        protocol: Some("HTTP/1.1"),
        id: 7,
    }));
    late.grpc_status = Some(14);
    late.status = 200;
    late.failure = Some("refused".into());
    late.flags.insert(Flag::NoHealthyUpstream);
    drop(late);
    record
}

/// One cluster, `a`, with one endpoint.
fn clusters() -> Clusters {
    let (source, _handle) = crate::config::MemorySource::new();
    let (mesh, mut driver) = crate::snapshot::Mesh::builder().source(source).build();
    driver.apply(crate::config::Update {
        changes: vec![
            crate::snapshot::tests::eds("a"),
            crate::snapshot::tests::endpoints("a", 1),
        ],
        ..Default::default()
    });
    mesh.clusters().clone()
}

#[test]
fn each_item_has_a_value_or_is_told_to_have_none() {
    let record = full_record();
    let late = record.late();
    let context = RecordContext::new(&record, &late).with_body(b"body");
    for item in Item::ALL {
        let mut out = Vec::new();
        let found = context.item(*item, &mut out);
        assert_eq!(found, item.is_known(), "{}", item.as_str());
        assert_eq!(found, !out.is_empty(), "{}", item.as_str());
        let told = Operator::Item(*item).without_value();
        assert_eq!(told, (!item.is_known()).then_some(item.as_str()));
    }
    for (text, wanted) in [
        ("%VIRTUAL_HOST_NAME% %VIRTUAL_CLUSTER_NAME%", "all vc"),
        (
            "%METADATA(ROUTE:n:k)% %METADATA(VIRTUAL_HOST:n:k)%",
            "route host",
        ),
        ("%QUERY_PARAMS% %ROUTE_NAME%", "q default"),
        ("%DYNAMIC_METADATA(n:k)% %FILTER_STATE(k)%", "- -"),
        (
            "%UPSTREAM_HOST_NAME% %FILTER_CHAIN_NAME% %LISTENER_NAME%",
            "127.0.0.1:1 chain in",
        ),
    ] {
        let mut out = Vec::new();
        let format = Formatter::parse(text).expect("valid");
        format.write(&context, b"-", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), wanted, "{text}");
        let silent = format.operators().filter_map(Operator::without_value);
        assert_eq!(silent.count() > 0, wanted.contains('-'), "{text}");
    }
}

#[test]
fn a_file_that_was_moved_away_is_opened_again_and_loses_no_line() {
    let folder = std::env::temp_dir().join(format!("mesh-access-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable folder");
    let (file, moved) = (folder.join("log"), folder.join("log.1"));
    let writer = LogWriter::shared(&LogSink::File(file.clone()));
    writer.write(b"one\n");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let until = |path: &std::path::Path, text: &str| {
        let begin = std::time::Instant::now();
        while read(path) != text {
            assert!(begin.elapsed().as_secs() < 60, "{path:?}: {}", read(path));
            std::thread::yield_now();
        }
    };
    until(&file, "one\n");
    std::fs::rename(&file, &moved).expect("a move");
    writer.write(b"two\n");
    LogWriter::reopen_all();
    until(&moved, "one\ntwo\n");
    let begin = std::time::Instant::now();
    while !file.exists() {
        assert!(begin.elapsed().as_secs() < 60, "it is not opened again");
        std::thread::yield_now();
    }
    writer.write(b"three\n");
    drop(writer);
    assert_eq!(
        (read(&moved).as_str(), read(&file).as_str()),
        ("one\ntwo\n", "three\n")
    );
    std::fs::remove_dir_all(&folder).expect("our own folder");
}

#[test]
fn the_lines_of_a_sink_can_go_elsewhere() {
    let memory = Memory::default();
    let sink = LogSink::File("/nowhere/at all".into());
    let other = LogWriter::redirect(sink.clone(), memory.clone());
    let writer = LogWriter::shared(&sink);
    LogWriter::reopen_all();
    writer.write(b"one\n");
    drop((writer, other));
    assert_eq!(*memory.0.lock().expect("no panic"), b"one\n");
}

/// Takes nothing until the other end of the channel is gone.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl std::io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_takes_nothing_holds_up_nobody_who_drops_it() {
    let (open, stuck) = std::sync::mpsc::channel();
    let writer = LogWriter::new(Stuck(stuck));
    writer.write(b"a line\n");
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(writer);
        let _ = ended.send(());
    });
    let dropped = end.recv_timeout(std::time::Duration::from_secs(30));
    assert_eq!(dropped, Ok(()), "dropping waits for the sink");
    drop(open);
}
