//! A proxy that keeps its own sockets, threads and codec, and asks the mesh only: decide, pick, finish. No runtime.
//!
//! `cargo run -p mesh-examples --bin foreign_proxy -- examples/envoy.yaml`

use std::{
    error::Error,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use mesh_core::{
    Kind,
    cluster::{Attempt, AttemptOutcome, PickKey},
    decide::Chain,
    model::Address,
    route::{Decision, Head},
    snapshot::{ConnFacts, Mesh, Reader},
};
use mesh_xds::file::FileSource;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: foreign_proxy FILE")?;
    let source = FileSource::open(path)?;
    let first = source.first().cloned().unwrap_or_default();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(first); // At once, without a runtime.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("foreign listens on {}", listener.local_addr()?);
    let reader = mesh.reader();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut reader = reader.clone();
            std::thread::spawn(move || println!("{:?}", serve(&client, &mut reader)));
        }
    });
    mesh_examples::wait_for_stdin();
    Ok(())
}

/// Where the mesh sends a request to, or the status to answer.
fn route(chain: &Chain, head: &Head<'_, Vec<(String, String)>>) -> Result<Attempt, Kind> {
    match chain.decide(head)? {
        // Heads are sent on as they are, so there is no way where a route changes them.
        Decision::Forward(to) if !to.is_plain() => Err(Kind::NoRoute),
        decision => decision.pick(&PickKey::default()),
    }
}

/// Serves one request of a connection; what happened.
fn serve(mut client: &TcpStream, reader: &mut Reader) -> io::Result<String> {
    let [local, peer] = [client.local_addr()?, client.peer_addr()?].map(Address::Socket);
    let chain = reader.chain("outbound", &ConnFacts::plain(&local, &peer));
    let lines = BufReader::new(client.take(65_536)).lines();
    let lines = lines.take_while(|line| line.as_ref().map_or(true, |line| !line.is_empty()));
    let lines = lines.collect::<io::Result<Vec<_>>>()?;
    let (first, mut headers) = (lines.first().map_or("", String::as_str), Vec::new());
    for (name, value) in lines.iter().skip(1).filter_map(|line| line.split_once(':')) {
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    headers.retain(|(name, _)| name != "connection");
    let find = |wanted| headers.iter().find(|(name, _)| name == wanted);
    let body = find("content-length").or(find("transfer-encoding")); // Left out here.
    let &[method, path, "HTTP/1.1"] = &first.split(' ').collect::<Vec<_>>()[..] else {
        return refuse(client, 400);
    };
    let host = find("host").map_or("", |(_, value)| value).as_bytes();
    let head = Head::new(method.as_bytes(), b"http", host, path.as_bytes(), &headers);
    let routed = || chain.and_then(|chain| route(&chain, &head));
    let attempt = match body.map_or_else(routed, |_| Err(Kind::PayloadTooLarge)) {
        Ok(attempt) => attempt,
        Err(kind) => return refuse(client, kind.reply().http),
    };
    let address = attempt.endpoint().address().to_string();
    let mut sent = format!("{first}\r\nconnection: close\r\n");
    for (name, value) in &headers {
        sent += &format!("{name}: {value}\r\n");
    }
    let Ok((mut answer, line)) = send(&address, &(sent + "\r\n")) else {
        attempt.finish(AttemptOutcome::Failed(Kind::ConnectFailure));
        return refuse(client, 503);
    };
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    client.write_all(line.as_bytes())?;
    io::copy(&mut answer, &mut client)?;
    attempt.finish(AttemptOutcome::Response(status.unwrap_or(502)));
    Ok(format!("{method} {path} went to {address}: {line}"))
}

fn send(address: &str, head: &str) -> io::Result<(BufReader<TcpStream>, String)> {
    let mut upstream = TcpStream::connect(address)?;
    upstream.write_all(head.as_bytes())?;
    let (mut answer, mut line) = (BufReader::new(upstream), String::new());
    answer.read_line(&mut line)?;
    Ok((answer, line))
}

fn refuse(mut client: &TcpStream, status: u16) -> io::Result<String> {
    write!(client, "HTTP/1.1 {status} \r\nconnection: close\r\n\r\n")?;
    Ok(format!("answered {status}"))
}
