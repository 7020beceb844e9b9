//! The suites that the runner knows, one module for each family of cases.
//!
//! A new suite is a module here and one entry of [`SUITES`], whose name is the name of its folder.

use crate::conformance::Suite;

pub mod envoy_route_config;
pub mod envoy_router_check;
pub mod istio_files;
pub mod istio_translate;
pub mod recorded_xds;

/// Every suite, in the order in which the runner plays them.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "envoy-router-check",
        run: envoy_router_check::run,
    },
    Suite {
        name: "envoy-route-config",
        run: envoy_route_config::run,
    },
    Suite {
        name: "istio-samples",
        run: istio_files::samples,
    },
    Suite {
        name: "istio-validation-dataset",
        run: istio_files::validation_dataset,
    },
    Suite {
        name: "istio-validation-cases",
        run: istio_files::validation_cases,
    },
    Suite {
        name: "istio-virtualservice-routes",
        run: istio_translate::virtualservice_routes,
    },
    Suite {
        name: "istio-sidecar-route-configs",
        run: istio_translate::sidecar_route_configs,
    },
];

/// Suites on recorded responses of a control plane, played where the run names their folder.
pub const RECORDED: &[Suite] = &[
    Suite {
        name: "istiod-responses",
        run: recorded_xds::decoding,
    },
    Suite {
        name: "istiod-routing",
        run: recorded_xds::routing,
    },
];

/// The suite called `name`.
pub fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}
