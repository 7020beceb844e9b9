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
    driver.apply(update(vec![Change::RemoveRoutes("t".into())]));
    assert!(mesh.snapshot().routes().contains_key("t"), "awaited");
    driver.apply(update(vec![Change::RemoveListener("in".into())]));
    assert!(mesh.snapshot().routes().is_empty(), "by nobody");
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

/// A listener with chains of these names, which lead to these clusters.
fn chains(chains: &[(&str, &str)]) -> model::Listener {
    let Change::Listener(listener) = http_listener("in", RouteSource::Named("".into())) else {
        unreachable!("a listener");
    };
    let mut listener = (*listener).clone();
    let chain = listener.filter_chains.remove(0);
    listener.filter_chains = chains
        .iter()
        .map(|(name, cluster)| {
            let mut chain = chain.clone();
            chain.name = (*name).into();
            chain.matches.server_names = vec![(*name).into()];
            chain.network = Network::Http(Box::new(HttpConnectionManager {
                routes: RouteSource::Inline(Arc::new(table("", cluster))),
                ..Default::default()
            }));
            chain
        })
        .collect();
    listener
}

/// The cluster that the routes of a manager lead to.
fn leads_to(http: &super::Http) -> String {
    let table = http.routes().load();
    let route = table.routes().next().expect("a route");
    match &route.config().action {
        Action::Forward(forward) => match &forward.cluster {
            ClusterChoice::Name(name) => name.to_string(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_of_a_refused_listener_acts() {
    let (source, handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let listener = |listener| update(vec![Change::Listener(Arc::new(listener))]);
    driver.apply(listener(chains(&[("x.test", "a")])));
    let old = mesh.snapshot().listeners()["in"].clone();
    let mut bad = chains(&[("x.test", "b")]);
    bad.access_log.push(model::AccessLog {
        sink: model::LogSink::Stdout,
        format: Some(model::FormatKind::Text(model::Format {
            text: "%NO".into(),
        })),
        filter: None,
        omit_empty: false,
    });
    driver.apply(listener(bad.clone()));
    assert_eq!(handle.outcome().map(|it| it.rejections.len()), Some(1));
    let new = mesh.snapshot().listeners()["in"].clone();
    assert!(Arc::ptr_eq(&old, &new));
    assert_eq!(leads_to(old.http(0).expect("HTTP")), "a");
    bad.access_log.clear();
    driver.apply(listener(bad));
    assert_eq!(leads_to(old.http(0).expect("HTTP")), "b");
}

#[test]
fn a_chain_keeps_its_routes_wherever_it_stands() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let mut listener = |all: &[(&str, &str)]| {
        driver.apply(update(vec![Change::Listener(Arc::new(chains(all)))]));
        mesh.snapshot().listeners()["in"].clone()
    };
    let old = listener(&[("x.test", "a"), ("y.test", "b")]);
    let new = listener(&[("y.test", "b"), ("z.test", "c")]);
    let clusters = |listener: &super::Listener| {
        let all = listener.chains().map(|(_, http)| http.expect("HTTP"));
        all.map(|http| leads_to(http)).collect::<Vec<_>>()
    };
    // Connections on the old chains finish on them.
    assert_eq!(clusters(&old), ["a", "b"]);
    assert_eq!(clusters(&new), ["b", "c"]);
    let (kept, moved) = (old.http(1).expect("HTTP"), new.http(0).expect("HTTP"));
    assert!(Arc::ptr_eq(kept, moved));
    let newest = listener(&[("z.test", "c"), ("y.test", "d")]);
    assert_eq!(clusters(&newest), ["c", "d"]);
    assert_eq!(clusters(&old), ["a", "d"], "the chain is still there");
}

#[test]
fn a_cluster_hears_of_its_own_service_only() {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    let cluster = |service: &str| {
        let discovery = Discovery::Eds(service.into());
        Change::Cluster(Arc::new(model::Cluster::new("c", discovery)))
    };
    let port = || {
        let set = mesh.clusters().get("c").expect("there").endpoints();
        let address = set.all()[0].address().socket();
        address.expect("an address").port()
    };
    driver.apply(update(vec![cluster("old"), endpoints("old", 1)]));
    assert_eq!(port(), 1);
    driver.apply(update(vec![cluster("new"), endpoints("new", 2)]));
    assert_eq!(port(), 2);
    driver.apply(update(vec![endpoints("old", 3)]));
    assert_eq!(port(), 2);
    driver.apply(update(vec![endpoints("new", 4)]));
    assert_eq!(port(), 4);
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
