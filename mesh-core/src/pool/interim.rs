//! Interim responses (1xx) of upstreams, as Envoy treats them.

use std::sync::Arc;

use http::{Request, StatusCode};

use crate::{cluster::Cluster, telemetry::record::Record, transport::Expectation};

/// Those that Envoy knows and passes on: Continue, Processing, Early Hints, Upload Resumption Supported.
const KNOWN: [u16; 4] = [100, 102, 103, 104];

/// Lets the client of `request` hear what comes ahead of the response, if its connection can, and counts it. The codec of HTTP/2
/// keeps it to itself, so there the client is told to send its body at once.
pub(super) fn listen<B>(
    request: &mut Request<B>,
    record: &Arc<Record>,
    cluster: &Arc<Cluster>,
    expectation: Option<Arc<Expectation>>,
    http2: bool,
) {
    if http2 {
        if let Some(expectation) = expectation {
            expectation.waive();
        }
        return;
    }
    let interims = record.connection().and_then(|conn| conn.interims());
    let exchange = interims.map_or(0, |interims| interims.exchange());
    let (record, cluster) = (record.clone(), cluster.clone());
    hyper::ext::on_informational(request, move |head| {
        let status = head.status();
        if !KNOWN.contains(&status.as_u16()) {
            return;
        }
        // As in Envoy only the first one counts for anything.
        if record.late().interims[0] > 0 {
            return;
        }
        cluster.stats().response(status.as_u16());
        let interims = record.connection().and_then(|conn| conn.interims());
        let passed = match (&expectation, interims) {
            // Asking for the body is what makes the codec say it.
            (Some(expectation), _) if status == StatusCode::CONTINUE => {
                expectation.meet();
                true
            }
            (_, Some(interims)) => interims.pass(exchange, status, head.headers()),
            (_, None) => false,
        };
        let mut late = record.late();
        late.interims[0] += 1;
        late.interims[1] += u32::from(passed);
    });
}
