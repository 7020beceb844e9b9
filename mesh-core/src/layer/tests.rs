//! Parts that the tests of several layers use.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tower_service::Service;
use tower_test::mock;

use crate::Error;

/// A mock whose errors are ours, and which is always ready like every service behind the router.
#[derive(Debug)]
pub(crate) struct Tame<T, U>(pub(crate) mock::Mock<T, U>);

impl<T, U> Clone for Tame<T, U> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static, U: Send + 'static> Service<T> for Tame<T, U> {
    type Response = U;
    type Error = Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<U, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: T) -> Self::Future {
        // The mock wants to be asked for readiness before each call; `allow` makes it ready.
        let waker = std::task::Waker::noop();
        let ready = self.0.poll_ready(&mut Context::from_waker(waker));
        assert!(ready.is_ready(), "the test allows too few calls");
        let answer = self.0.call(request);
        Box::pin(async move { answer.await.map_err(Error::adopt) })
    }
}

/// A service as strict as tower allows: a turn passes before it is ready, and a call without that is a panic; what a clone
/// was made of says nothing of the clone.
#[derive(Debug)]
pub(crate) struct Strict<S> {
    inner: S,
    readiness: Readiness,
}

#[derive(Debug, PartialEq)]
enum Readiness {
    Unasked,
    Asked,
    Ready,
}

impl<S> Strict<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            readiness: Readiness::Unasked,
        }
    }
}

impl<S: Clone> Clone for Strict<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<R, S: Service<R>> Service<R> for Strict<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.readiness == Readiness::Unasked {
            self.readiness = Readiness::Asked;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        std::task::ready!(self.inner.poll_ready(context))?;
        self.readiness = Readiness::Ready;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        let readiness = std::mem::replace(&mut self.readiness, Readiness::Unasked);
        assert_eq!(readiness, Readiness::Ready, "called unasked");
        self.inner.call(request)
    }
}

/// A body of one byte after each of some pauses.
#[derive(Debug)]
pub(crate) struct Paced {
    pauses: &'static [u64],
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    /// Pauses in seconds.
    pub(crate) fn new(pauses: &'static [u64]) -> Self {
        Self {
            pauses,
            sleep: None,
        }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((pause, rest)) = self.pauses.split_first() else {
            return Poll::Ready(None);
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep(Duration::from_secs(*pause))));
        std::task::ready!(sleep.as_mut().poll(context));
        (self.pauses, self.sleep) = (rest, None);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

/// `request` on its way along `route`, which must lead to `cluster`.
#[cfg(feature = "client")]
pub(crate) fn routed<B: 'static>(
    route: crate::model::Route,
    cluster: &std::sync::Arc<crate::cluster::Cluster>,
    request: http::Request<B>,
) -> super::Routed<B> {
    use crate::route::{Decision, Head};

    let clusters = [cluster.clone()].into_iter().collect();
    let table = table(vec![route], &clusters);
    let Decision::Forward(forwarding) = table.decide(&Head::of(&request)) else {
        panic!("the route forwards");
    };
    super::Routed {
        record: crate::telemetry::record::Record::begin(None, request.version(), false),
        request: request.into(),
        forwarding,
        cluster: cluster.clone(),
        random: crate::world::random(),
        attempt: 1,
        tried: Vec::new(),
        host_attempts: 0,
        scan: super::Scan::UNKNOWN,
        redirected: false,
        quiet: false,
        timed: false,
    }
}

/// A table of one virtual host for all hosts.
#[cfg(feature = "client")]
pub(crate) fn table(
    routes: Vec<crate::model::Route>,
    clusters: &crate::snapshot::Clusters,
) -> std::sync::Arc<crate::route::RouteTable> {
    use crate::model;

    let config = model::RouteConfiguration {
        name: "table".into(),
        virtual_hosts: vec![model::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: model::RouteRules::List(routes),
            ..Default::default()
        }],
        ..Default::default()
    };
    crate::route::RouteTable::compile(&config, clusters)
        .expect("a valid table")
        .into()
}
