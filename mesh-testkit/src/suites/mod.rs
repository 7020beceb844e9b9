//! The suites that the runner knows, one module for each family of cases.
//!
//! A new suite is a module here and one entry of [`SUITES`], whose name is the name of its folder.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::conformance::{Suite, SuiteResult};

mod compare;
pub mod envoy_route_config;
pub mod envoy_router_check;
pub mod istio_clusters;
pub mod istio_files;
pub mod istio_simulation;
pub mod istio_translate;
pub mod recorded_input;
pub mod recorded_xds;
pub mod validation_cases;

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
        run: validation_cases::run,
    },
    Suite {
        name: "istio-virtualservice-routes",
        run: istio_translate::virtualservice_routes,
    },
    Suite {
        name: "istio-sidecar-route-configs",
        run: istio_translate::sidecar_route_configs,
    },
    Suite {
        name: "istio-clusters",
        run: istio_clusters::run,
    },
    Suite {
        name: "istio-traffic-simulation",
        run: istio_simulation::run,
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
    Suite {
        name: "istiod-matching",
        run: recorded_xds::matching,
    },
    Suite {
        name: "istiod-translation",
        run: recorded_input::run,
    },
];

/// The suite called `name`.
pub fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

/// The JSON files of a folder with their texts, by name.
pub(crate) fn case_files(dir: &Path, result: &mut SuiteResult) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            result.fail("suite", error);
            return found;
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match read_text(&path) {
            Ok(text) => found.push((name, text)),
            Err(error) => result.fail(name, error),
        }
    }
    found.sort();
    found
}

/// The text of a file.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// What a JSON file holds.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    serde_json::from_str(&read_text(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// How many entries a folder has; none if it is not there.
pub(crate) fn file_count(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}
