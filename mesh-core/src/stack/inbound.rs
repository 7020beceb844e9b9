//! In front of an application: identity, policy and telemetry of what it serves.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    BoxError, Error, Kind,
    body::{MeshBody, RequestBody, ResponseBody},
    layer::{
        Exchange,
        observe::{Observe, ObserveLayer},
        respond::{Replies, Respond, RespondLayer},
    },
    model::Name,
    snapshot::Reader,
    telemetry::{observer::Observer, peer::Peers},
};

/// The stack around an application `A`.
pub type Inbound<A> = Observe<Respond<Serve<A>>>;

/// Wraps applications. Cloning shares.
#[derive(Clone, Debug)]
pub struct InboundLayer {
    observer: Arc<Observer>,
    replies: Arc<Replies>,
    config: Option<Reader>,
    peers: Option<Arc<Peers>>,
}

impl InboundLayer {
    /// Tells `observer` of what is served. Nothing passes until `config` has its first configuration, nor as long as an inbound
    /// listener in it says so.
    pub fn new(observer: Arc<Observer>, config: Option<Reader>) -> Self {
        Self {
            observer,
            replies: Arc::default(),
            config,
            peers: None,
        }
    }

    /// Asks requests who sent them, by Istio's exchange of metadata.
    pub(crate) fn ask(mut self, peers: Arc<Peers>) -> Self {
        self.peers = Some(peers);
        self
    }
}

impl<A> Layer<A> for InboundLayer {
    type Service = Inbound<A>;

    fn layer(&self, app: A) -> Inbound<A> {
        let serve = Serve {
            app,
            observer: self.observer.clone(),
            config: self.config.clone(),
            peers: self.peers.clone(),
            seen: 0,
            refuse: None,
        };
        let respond = RespondLayer::new(self.replies.clone()).layer(serve);
        ObserveLayer::new(self.observer.clone(), None).layer(respond)
    }
}

/// The innermost layer: hands requests to the application.
#[derive(Clone, Debug)]
pub struct Serve<A> {
    app: A,
    observer: Arc<Observer>,
    config: Option<Reader>,
    peers: Option<Arc<Peers>>,
    /// Generation of the snapshot that `refuse` is from.
    seen: u64,
    refuse: Option<Name>,
}

impl<A> Serve<A> {
    /// Why nothing may pass, if that is so. What a configuration protects is not known before it is there.
    fn refusal(&mut self) -> Option<Error> {
        let snapshot = self.config.as_mut()?.load();
        if snapshot.generation() == 0 {
            return Some(Kind::NotReady.into());
        }
        if snapshot.generation() != self.seen {
            self.seen = snapshot.generation();
            self.refuse = crate::client::refusal(snapshot);
        }
        let reason = self.refuse.clone()?;
        Some(Error::detailed(Kind::FailClosedInbound, reason))
    }
}

impl<A, B, U> Service<Exchange<RequestBody<B>>> for Serve<A>
where
    A: Service<Request<RequestBody<B>>, Response = Response<U>>,
    A::Error: Into<BoxError>,
    U: MeshBody,
{
    type Response = Response<ResponseBody<U>>;
    type Error = Error;
    type Future = ServeFuture<A::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.app.poll_ready(context).map_err(broken)
    }

    fn call(&mut self, exchange: Exchange<RequestBody<B>>) -> Self::Future {
        let Exchange {
            mut request,
            record,
            ..
        } = exchange;
        if let Some(peers) = &self.peers {
            record.late().peer = peers.take(request.headers_mut());
        }
        record.see_request(&request, &self.observer.shared_wants());
        let state = match self.refusal() {
            error @ Some(_) => State::Refused { error },
            None => State::Serving {
                inner: self.app.call(request.into_inner()),
            },
        };
        ServeFuture { state }
    }
}

pin_project! {
    /// The future of [`Serve`].
    #[derive(Debug)]
    pub struct ServeFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProject]
    #[derive(Debug)]
    enum State<F> {
        Refused {
            error: Option<Error>,
        },
        Serving {
            #[pin]
            inner: F,
        },
    }
}

impl<F, U, E> Future for ServeFuture<F>
where
    F: Future<Output = Result<Response<U>, E>>,
    E: Into<BoxError>,
    U: MeshBody,
{
    type Output = Result<Response<ResponseBody<U>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProject::Refused { error } => Err(error.take().unwrap_or(Kind::Internal.into())),
            StateProject::Serving { inner } => match ready!(inner.poll(context)) {
                Ok(response) => Ok(response.map(ResponseBody::upstream)),
                Err(error) => Err(broken(error)),
            },
        })
    }
}

/// An application that fails is our own fault, not that of a connection.
fn broken(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(own) => *own,
        Err(foreign) => Error::caused_by(Kind::Internal, foreign),
    }
}
