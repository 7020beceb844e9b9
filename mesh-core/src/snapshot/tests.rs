use std::sync::Arc;

use super::Mesh;
use crate::{
    config::{Change, MemorySource, Update},
    model::{
        self, Action, Address, ClusterChoice, ClusterLoadAssignment, Discovery, FilterChain,
        Forward, HttpConnectionManager, LbEndpoint, LocalityEndpoints, Network, PathMatch, Route,
        RouteConfiguration, RouteMatch, RouteRules, RouteSource, VirtualHost,
    },
};

pub(crate) fn forward(cluster: &str) -> Route {
    let all = RouteMatch::path(PathMatch::Prefix("/".into()));
    let forward = Forward::to(ClusterChoice::Name(cluster.into()));
    Route {
        name: "r".into(),
        ..Route::new(all, Action::Forward(Box::new(forward)))
    }
}

pub(crate) fn table(name: &str, cluster: &str) -> RouteConfiguration {
    RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: RouteRules::List(vec![forward(cluster)]),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn http_listener(name: &str, routes: RouteSource) -> Change {
    let mut listener = model::Listener::new(name, Address::Socket(([127, 0, 0, 1], 0).into()));
    listener.filter_chains.push(FilterChain {
        name: "".into(),
        matches: Default::default(),
        transport: Default::default(),
        transport_connect_timeout: None,
        network: Network::Http(Box::new(HttpConnectionManager {
            routes,
            ..Default::default()
        })),
        refuse: None,
    });
    Change::Listener(Arc::new(listener))
}

pub(crate) fn eds(name: &str) -> Change {
    Change::Cluster(Arc::new(model::Cluster::new(
        name,
        Discovery::Eds(name.into()),
    )))
}

pub(crate) fn endpoints(name: &str, port: u16) -> Change {
    let endpoint = LbEndpoint {
        address: Address::Socket(([127, 0, 0, 1], port).into()),
        hostname: "".into(),
        weight: 1,
        health: Default::default(),
        metadata: Default::default(),
    };
    Change::Endpoints(Arc::new(ClusterLoadAssignment {
        cluster: name.into(),
        localities: vec![LocalityEndpoints {
            endpoints: vec![endpoint],
            ..Default::default()
        }],
        ..Default::default()
    }))
}

fn update(changes: Vec<Change>) -> Update {
    Update {
        changes,
        ..Update::default()
    }
}

#[test]
fn unchanged_parts_are_shared_and_changed_clusters_reach_their_tables() {
    let (source, handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let inline = RouteSource::Inline(Arc::new(table("", "a")));
    driver.apply(update(vec![
        eds("a"),
        eds("b"),
        endpoints("a", 1),
        http_listener("in", inline.clone()),
    ]));
    let first = mesh.snapshot();
    let cell = first.listeners()["in"]
        .chains()
        .next()
        .and_then(|(_, cell)| cell.cloned())
        .expect("HTTP");
    let (listener, before) = (first.listeners()["in"].clone(), cell.routes().load());

    driver.apply(update(vec![
        http_listener("in", inline),
        endpoints("a", 2),
        eds("b"),
    ]));
    let second = mesh.snapshot();
    assert!(
        Arc::ptr_eq(&listener, &second.listeners()["in"]),
        "an equal listener stays"
    );
    assert!(
        Arc::ptr_eq(&before, &cell.routes().load()),
        "endpoints do not recompile routes"
    );
    assert_eq!(
        mesh.clusters().get("a").expect("a").endpoints().all()[0]
            .address()
            .to_string(),
        "127.0.0.1:2"
    );

    let mut changed = model::Cluster::new("a", Discovery::Eds("a".into()));
    changed.limits[0].max_requests = 7;
    driver.apply(update(vec![Change::Cluster(Arc::new(changed))]));
    assert!(
        !Arc::ptr_eq(&before, &cell.routes().load()),
        "a changed cluster recompiles the tables that name it"
    );
    assert_eq!(
        mesh.clusters().get("a").expect("a").endpoints().all().len(),
        1,
        "endpoints survive"
    );
    assert_eq!(
        handle.outcome().map(|outcome| outcome.rejections),
        Some(Vec::new())
    );
}

#[test]
fn a_named_table_is_awaited_replaced_and_emptied() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(update(vec![
        http_listener("in", RouteSource::Named("t".into())),
        eds("a"),
    ]));
    let cell = mesh.snapshot().routes()["t"].clone();
    let empty = cell.load();
    driver.apply(update(vec![Change::Routes(Arc::new(table("t", "a")))]));
    let full = cell.load();
    assert!(!Arc::ptr_eq(&empty, &full));
    driver.apply(update(vec![Change::RemoveRoutes("t".into())]));
    assert!(!Arc::ptr_eq(&full, &cell.load()));
    assert_eq!(cell.load().routes().count(), 0);
    driver.apply(update(vec![Change::Routes(Arc::new(table("t", "a")))]));
    assert_eq!(cell.load().routes().count(), 1, "the listener gets it back");
}

#[test]
fn what_was_refused_of_a_listener_goes_with_it() {
    let (source, handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let mut bad = table("", "a");
    bad.virtual_hosts[0].domains = vec!["*".into(), "*".into()];
    let Change::Listener(listener) = http_listener("in", RouteSource::Inline(Arc::new(bad))) else {
        unreachable!("a listener");
    };
    let mut listener = (*listener).clone();
    listener.access_log.push(model::AccessLog {
        sink: model::LogSink::Stdout,
        format: Some(model::FormatKind::Text(model::Format {
            text: "%NO".into(),
        })),
        filter: None,
        omit_empty: false,
    });
    driver.apply(update(vec![Change::Listener(Arc::new(listener.clone()))]));
    let refused = || {
        let rejections = handle.outcome().expect("an outcome").rejections;
        let places = rejections.iter().map(|one| one.resource.to_string());
        places.collect::<Vec<_>>()
    };
    assert_eq!(
        refused().len(),
        2,
        "the log and the routes: {:?}",
        refused()
    );
    driver.apply(update(vec![eds("a")]));
    assert_eq!(refused().len(), 2, "told for as long as it is so");
    driver.apply(update(vec![Change::RemoveListener("in".into())]));
    assert_eq!(refused(), Vec::<String>::new());
    assert_eq!(mesh.status().load().rejected_updates, 2);

    // The same where only the chain with the routes goes.
    listener.access_log.clear();
    driver.apply(update(vec![Change::Listener(Arc::new(listener.clone()))]));
    assert_eq!(refused().len(), 1);
    listener.filter_chains.clear();
    driver.apply(update(vec![Change::Listener(Arc::new(listener))]));
    assert_eq!(refused(), Vec::<String>::new());
}

#[test]
fn endpoints_that_come_before_their_cluster_are_kept_for_it() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(update(vec![endpoints("late", 9)]));
    driver.apply(update(vec![eds("late")]));
    assert_eq!(
        mesh.clusters()
            .get("late")
            .expect("there")
            .endpoints()
            .all()
            .len(),
        1
    );
    driver.apply(update(vec![Change::RemoveCluster("late".into())]));
    assert!(mesh.clusters().get("late").is_none());
}

#[tokio::test]
async fn the_driver_publishes_what_the_source_delivers() {
    let (source, handle) = MemorySource::new();
    let (mesh, driver) = Mesh::builder().source(source).build();
    let mut watch = mesh.watch();
    let task = tokio::spawn(driver.run());
    handle.push(update(vec![eds("a")]));
    assert_eq!(watch.changed().await.generation(), 1);
    handle.push(update(vec![eds("b")]));
    assert_eq!(watch.changed().await.generation(), 2);
    assert!(mesh.clusters().get("b").is_some() && mesh.status().is_ready());
    task.abort();
}
