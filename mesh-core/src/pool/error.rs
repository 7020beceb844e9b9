//! From hyper's errors to [`Kind`]. Only errors come here, so chains may be walked.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::{BoxError, Error, Kind};

/// How far a request got that lost its connection: the source of the errors that the pool makes for it.
///
/// A retry policy asks through [`lost`]: what was never sent may be sent again whatever it is.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lost {
    /// A part of the request may have reached the upstream.
    pub sent: bool,
    /// The connection had served a request before, so the upstream may have closed it for idleness.
    pub reused: bool,
    source: BoxError,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.sent, self.reused) {
            (false, _) => "the connection was lost before the request was sent",
            (true, true) => "a kept connection was lost before a response came",
            (true, false) => "the connection was lost before a response came",
        })
    }
}

impl StdError for Lost {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source: &(dyn StdError + Send + Sync) = &*self.source;
        Some(source)
    }
}

/// How far the request got, if `error` is about a lost connection.
pub fn lost(error: &Error) -> Option<&Lost> {
    StdError::source(error)?.downcast_ref()
}

/// Why a connection could not be made, for one of those who waited for it.
#[derive(Debug)]
struct Unmade(Arc<Error>);

impl fmt::Display for Unmade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Unmade {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// The error of one of those who waited for a connection that failed.
pub(super) fn of_connect(error: &Arc<Error>) -> Error {
    match error.detail() {
        Some(detail) => Error::detailed(error.kind(), detail),
        None => Error::caused_by(error.kind(), Unmade(error.clone())),
    }
}

/// How a request on a connection stood when it failed.
pub(super) struct Standing {
    /// A part of it may have been sent.
    pub(super) sent: bool,
    /// The connection had served another one before.
    pub(super) reused: bool,
    /// A part of the head of its response came.
    pub(super) answered: bool,
}

/// The error of a request on a connection. As in Envoy a head that breaks off breaks the protocol, however it was cut.
pub(super) fn of_request(error: hyper::Error, standing: Standing) -> Error {
    let Standing { sent, reused, .. } = standing;
    match kind(&error) {
        Kind::ConnectionTermination if standing.answered => {
            Error::caused_by(Kind::UpstreamProtocol, error)
        }
        kind @ (Kind::ConnectionTermination | Kind::RefusedStream | Kind::RemoteReset) => {
            Error::caused_by(
                kind,
                Lost {
                    sent: sent && kind != Kind::RefusedStream,
                    reused,
                    source: error.into(),
                },
            )
        }
        kind => Error::caused_by(kind, error),
    }
}

/// The error of a response body. As in Envoy a body of HTTP/1 that is not whole breaks the protocol, however it was cut.
pub(super) fn of_body(error: hyper::Error) -> Error {
    let kind = find_h2(&error).map_or(Kind::UpstreamProtocol, of_h2);
    Error::caused_by(kind, error)
}

fn kind(error: &hyper::Error) -> Kind {
    if error.is_user() {
        return of_request_body(error);
    }
    if let Some(h2) = find_h2(error) {
        return of_h2(h2);
    }
    if error.is_parse() {
        Kind::UpstreamProtocol
    } else if error.is_timeout()
        || error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || find_io(error)
    {
        Kind::ConnectionTermination
    } else {
        Kind::UpstreamProtocol
    }
}

/// The request's own body failed: its sender broke the protocol, or went away.
fn of_request_body(error: &hyper::Error) -> Kind {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    let malformed = match find_h2(error) {
        Some(h2) => {
            let local = h2.is_library() && !h2.is_io();
            local
                && !matches!(
                    h2.reason(),
                    None | Some(h2::Reason::NO_ERROR | h2::Reason::CANCEL)
                )
        }
        // What the codec calls a malformed chunk.
        None => sources(error).any(|source| {
            let io = source.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput))
        }),
    };
    if malformed {
        Kind::DownstreamProtocol
    } else {
        Kind::DownstreamTermination
    }
}

fn of_h2(error: &h2::Error) -> Kind {
    if error.is_io() {
        return Kind::ConnectionTermination;
    }
    match error.reason() {
        // Streams that a GOAWAY reaches are those that it did not count as begun.
        Some(_) if error.is_go_away() && error.is_remote() => Kind::RefusedStream,
        Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => Kind::RefusedStream,
        Some(_) if error.is_remote() => Kind::RemoteReset,
        Some(h2::Reason::CANCEL | h2::Reason::NO_ERROR) => Kind::LocalReset,
        Some(_) => Kind::UpstreamProtocol,
        None => Kind::ConnectionTermination,
    }
}

fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    sources(error).find_map(|source| source.downcast_ref())
}

fn find_io(error: &hyper::Error) -> bool {
    sources(error).any(|source| source.is::<std::io::Error>())
}

fn sources(error: &hyper::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: Option<&(dyn StdError + 'static)> = error.source();
    std::iter::successors(first, |source| (*source).source())
}
