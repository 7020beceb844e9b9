//! How hyper's codecs are set up for a connection manager.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use crate::model::HttpConnectionManager;

/// Streams at one time unless configured; Envoy's default for listeners.
const MAX_STREAMS: u32 = 1024;
/// Envoy's default windows since 1.36.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Streams that a peer may open and reset before they are looked at (rapid reset, CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 100;
/// Response bytes that are buffered for one HTTP/2 stream.
const MAX_STREAM_BUFFER: usize = 256 * 1024;
/// What hyper allows without an allocation for each request.
const USUAL_HEADERS: u32 = 100;
/// Bytes that an HTTP/1 connection buffers at most, unless a head may be larger or the listener's limit is smaller.
const USUAL_BUFFER: usize = 256 * 1024;
/// The least that hyper takes as a limit of its buffer.
const MIN_BUFFER: usize = 8192;

/// HTTP/1. Heads over the limits are answered with 431.
pub(super) fn http1(manager: &HttpConnectionManager, buffer_limit: u32) -> http1::Builder {
    let head = manager.max_request_headers_bytes as usize;
    // A buffer must hold a whole head, and the bytes of a body that came with it.
    let buffer = USUAL_BUFFER.min(buffer_limit as usize).max(2 * head);
    let mut builder = http1::Builder::new();
    builder
        // The connection's own timer does it, without an allocation for each request.
        .header_read_timeout(None)
        .max_header_size(head)
        .max_buf_size(buffer.max(MIN_BUFFER))
        .title_case_headers(manager.http1.proper_case)
        .preserve_header_case(manager.http1.preserve_case);
    if manager.max_headers_count > USUAL_HEADERS {
        builder.max_headers(manager.max_headers_count as usize);
    }
    builder
}

/// HTTP/2.
pub(super) fn http2<X: Clone>(
    manager: &HttpConnectionManager,
    buffer_limit: u32,
    exec: X,
) -> http2::Builder<X> {
    let options = &manager.http2;
    let connection_window = options.initial_connection_window_size;
    let mut builder = http2::Builder::new(exec);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams.unwrap_or(MAX_STREAMS))
        .initial_stream_window_size(options.initial_stream_window_size.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(connection_window.unwrap_or(CONNECTION_WINDOW))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_send_buf_size(MAX_STREAM_BUFFER.min(buffer_limit as usize).max(MIN_BUFFER))
        .max_header_list_size(manager.max_request_headers_bytes);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    if let Some((interval, timeout)) = options.keepalive {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
    }
    builder
}
