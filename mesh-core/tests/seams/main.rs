//! What programs bring of their own, from outside of the crate.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::disallowed_methods, reason = "tests run in the real world")]

mod balance;
mod policy;
mod telemetry;
mod transport;
mod world;

use mesh_core::model::{
    Action, ClusterChoice, Forward, PathMatch, Route, RouteConfiguration, RouteMatch, RouteRules,
    VirtualHost,
};

/// A table named `table` whose only route sends everything to `cluster`.
fn everything_to(table: &str, cluster: &str) -> RouteConfiguration {
    let to = Forward::to(ClusterChoice::Name(cluster.into()));
    let all = RouteMatch::path(PathMatch::Prefix("/".into()));
    RouteConfiguration {
        name: table.into(),
        virtual_hosts: vec![VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: RouteRules::List(vec![Route::new(all, Action::Forward(Box::new(to)))]),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}
