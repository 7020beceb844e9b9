//! A proxy that keeps its own sockets, threads and codec, and asks the mesh only: decide, pick, finish. No runtime.
//!
//! `cargo run -p mesh-examples --bin foreign_proxy -- examples/envoy.yaml`

use std::{
    error::Error,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{TcpListener, TcpStream},
};

use bytes::Bytes;
use http::{Request, Response};
use mesh_core::{
    Kind,
    cluster::{Attempt, AttemptOutcome, PickKey},
    decide::Chain,
    model::Address,
    route::{Decision, Head, HeadContext},
    snapshot::{ConnFacts, Mesh, Reader},
};
use mesh_examples::wire; // The codec.
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
            std::thread::spawn(move || serve(&client, &mut reader));
        }
    });
    mesh_examples::wait_for_stdin();
    Ok(())
}

/// Serves the one request of a connection.
fn serve(mut client: &TcpStream, reader: &mut Reader) -> io::Result<()> {
    let Some(mut request) = wire::read(client) else {
        return wire::answer(client, &refusal(Kind::DownstreamProtocol));
    };
    let [local, peer] = [client.local_addr()?, client.peer_addr()?].map(Address::Socket);
    let chain = reader.chain("outbound", &ConnFacts::plain(&local, &peer));
    let routed = chain.map_err(refusal);
    let mut attempt = match routed.and_then(|chain| route(&chain, &mut request)) {
        Ok(attempt) => attempt,
        Err(response) => return wire::answer(client, &response),
    };
    let address = attempt.endpoint().address().to_string();
    println!("{} {} goes to {address}", request.method(), request.uri());
    let Ok((status, mut answer)) = wire::send(&address, request) else {
        attempt.finish(AttemptOutcome::Failed(Kind::ConnectFailure));
        return wire::answer(client, &refusal(Kind::ConnectFailure));
    };
    attempt.record(AttemptOutcome::Response(status));
    // The attempt holds its place in the limits until the body has passed.
    io::copy(&mut answer, &mut client).map(|_| drop(attempt))
}

/// Where the mesh sends a request to, with the head that it should have there; or what to answer.
fn route(chain: &Chain, request: &mut Request<()>) -> Result<Attempt, Box<Response<Bytes>>> {
    let received = request.clone();
    let random = RandomState::new().hash_one(()); // Decides between shares.
    let head = || Head {
        random,
        ..Head::of(&received)
    };
    let decision = chain.decide(&head()).map_err(refusal)?;
    let context = HeadContext(head()); // What `%REQ(…)%` and its like read.
    match &decision {
        Decision::Forward(to) => to.finalize_request(request, &context, true),
        Decision::Redirect(to) => return Err(to.response(&context).into()),
        Decision::DirectResponse(route) => return Err(route.direct_response(&context).into()),
        _ => {} // No route: picking says so.
    }
    let key = PickKey {
        random,
        ..PickKey::default()
    };
    decision.pick(&key).map_err(refusal)
}

/// The answer that Envoy gives, too.
fn refusal(kind: Kind) -> Box<Response<Bytes>> {
    let reply = kind.reply();
    let response = Response::builder().status(reply.http);
    let response = response.body(Bytes::from_static(reply.body.as_bytes()));
    Box::new(response.expect("the table has valid statuses"))
}
