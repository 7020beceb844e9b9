//! Asks the admin interface of a sidecar or the gateway.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 << 20;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(900);

/// A client of one admin interface.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    address: SocketAddr,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Admin {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// The text at a path, if the answer is 200.
    pub(super) async fn text(&self, path: &str) -> Option<String> {
        let request = Request::get(format!("http://{}{path}", self.address))
            .body(Empty::new())
            .ok()?;
        let answer = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .ok()?
                .to_bytes();
            (head.status == StatusCode::OK).then(|| String::from_utf8_lossy(&body).into_owned())
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}
