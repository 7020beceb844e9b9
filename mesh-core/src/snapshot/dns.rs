//! Endpoints of clusters that are found by DNS: looked up apart from the request path, last good answer kept.

use std::{
    collections::HashMap, convert::Infallible, future::Future, net::SocketAddr, sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{Mesh, Watch};
use crate::{
    cluster::Cluster,
    model::{
        Address, ClusterLoadAssignment, Discovery, Dns, DnsFamily, LbEndpoint, LocalityEndpoints,
        Name,
    },
};

/// Longest look-up; a resolver that says nothing costs no more than this.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups at one time.
const MAX_LOOKUPS: usize = 32;
/// Shortest time between two look-ups of one cluster, whatever is configured.
const MIN_REFRESH: Duration = Duration::from_millis(100);

/// Keeps the endpoints of DNS clusters up to date until dropped.
pub(super) async fn run(mesh: Mesh) -> Infallible {
    keep(mesh, |cluster| async move { lookup(&cluster).await }).await
}

/// [`run`], with the look-up of one cluster.
async fn keep<F>(mesh: Mesh, look_up: impl Fn(Arc<Cluster>) -> F) -> Infallible
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut watch: Watch = mesh.watch();
    let mut due: HashMap<Name, (Arc<Cluster>, Instant)> = HashMap::new();
    // The clusters whose look-up is under way, but for those that were replaced meanwhile.
    let mut asked: HashMap<Name, Arc<Cluster>> = HashMap::new();
    let mut running: JoinSet<(Arc<Cluster>, Answer)> = JoinSet::new();
    let mut failures = Failures::default();
    loop {
        let now = Instant::now();
        let mut ready: Vec<Name> = due
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        // In an order that a simulation repeats.
        ready.sort_unstable();
        for name in ready
            .into_iter()
            .take(MAX_LOOKUPS.saturating_sub(running.len()))
        {
            if let Some((cluster, _)) = due.remove(&name) {
                asked.insert(name, cluster.clone());
                let answer = look_up(cluster.clone());
                running.spawn(async move { (cluster, answer.await) });
            }
        }
        let next = due.values().map(|(_, at)| *at).min();
        tokio::select! {
            snapshot = watch.changed() => {
                let all = snapshot.clusters().all();
                let stays = |name: &Name, cluster: &Arc<Cluster>| all.get(name).is_some_and(|known| Arc::ptr_eq(known, cluster));
                due.retain(|name, (cluster, _)| stays(name, cluster));
                asked.retain(|name, cluster| stays(name, cluster));
                failures.0.retain(|name, _| all.contains_key(name));
                for (name, cluster) in all.iter() {
                    if dns(cluster).is_some() && !due.contains_key(name) && !asked.contains_key(name) {
                        due.insert(name.clone(), (cluster.clone(), Instant::now()));
                    }
                }
            }
            Some(Ok((cluster, found))) = running.join_next() => {
                let name = cluster.name();
                // What was asked for a cluster that was replaced or removed meanwhile tells nothing of the new one.
                if asked.get(name).is_some_and(|asked| Arc::ptr_eq(asked, &cluster)) {
                    asked.remove(name);
                    failures.tell(name, found.as_ref().err());
                    let at = Instant::now() + answered(&cluster, found);
                    due.insert(name.clone(), (cluster, at));
                }
            }
            () = sleep_until(next.unwrap_or(now + LOOKUP_TIMEOUT)), if next.is_some() && running.len() < MAX_LOOKUPS => {}
        }
    }
}

/// Takes the answer for a cluster; how long it holds.
fn answered(cluster: &Cluster, found: Answer) -> Duration {
    if let Some(assignment) = found.ok().filter(|found| changed(cluster, found)) {
        cluster.set_endpoints(&assignment);
    }
    let refresh = dns(cluster).map_or(LOOKUP_TIMEOUT, |dns| dns.refresh);
    refresh.max(MIN_REFRESH)
}

/// The endpoints that a look-up found.
type Answer = Result<ClusterLoadAssignment, Failure>;

/// Why a look-up failed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    host: Name,
    reason: String,
}

/// The clusters whose last look-up failed, and why. The log has a line when a host begins to fail, when the reason changes
/// and when all find it again: not one for each look-up, nor for each cluster of the host.
#[derive(Debug, Default)]
struct Failures(HashMap<Name, Failure>);

impl Failures {
    /// Takes the outcome of a cluster's look-up; whether it is news.
    fn tell(&mut self, cluster: &Name, failure: Option<&Failure>) -> bool {
        let Some(failure) = failure else {
            let Some(Failure { host, .. }) = self.0.remove(cluster) else {
                return false;
            };
            let over = self.0.values().all(|other| other.host != host);
            if over {
                tracing::info!(%host, "DNS look-up succeeds again");
            }
            return over;
        };
        if self.0.get(cluster) == Some(failure) {
            return false;
        }
        let news = self.0.values().all(|known| known != failure);
        if news {
            let Failure { host, reason } = failure;
            tracing::warn!(%host, %reason, "DNS look-up failed, the last answer stays");
        }
        self.0.insert(cluster.clone(), failure.clone());
        news
    }
}

fn dns(cluster: &Cluster) -> Option<&Dns> {
    match &cluster.config().discovery {
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => Some(dns),
        _ => None,
    }
}

/// Whether the answer differs from the endpoints in force.
fn changed(cluster: &Cluster, found: &ClusterLoadAssignment) -> bool {
    let mut new: Vec<&Address> = found
        .localities
        .iter()
        .flat_map(|group| &group.endpoints)
        .map(|endpoint| &endpoint.address)
        .collect();
    let set = cluster.endpoints();
    let mut old: Vec<&Address> = set
        .all()
        .iter()
        .map(|endpoint| endpoint.address())
        .collect();
    new.sort();
    old.sort();
    new != old
}

/// The load assignment with each host name replaced by its addresses; an error if a look-up failed, so that the last good
/// answer stays.
async fn lookup(cluster: &Cluster) -> Answer {
    let mut assignment = cluster.config().load_assignment.clone();
    let Some(dns) = dns(cluster) else {
        return Ok(assignment);
    };
    let one = matches!(cluster.config().discovery, Discovery::LogicalDns(_));
    for group in &mut assignment.localities {
        *group = resolve_group(dns, one, group).await?;
    }
    Ok(assignment)
}

async fn resolve_group(
    dns: &Dns,
    one: bool,
    group: &LocalityEndpoints,
) -> Result<LocalityEndpoints, Failure> {
    let mut resolved = LocalityEndpoints {
        endpoints: Vec::new(),
        ..group.clone()
    };
    for endpoint in &group.endpoints {
        let Address::Host(host, port) = &endpoint.address else {
            resolved.endpoints.push(endpoint.clone());
            continue;
        };
        let answer = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((&**host, *port))).await;
        let found: Vec<SocketAddr> = match answer {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                return Err(Failure {
                    host: host.clone(),
                    reason: error.to_string(),
                });
            }
            Err(_) => {
                return Err(Failure {
                    host: host.clone(),
                    reason: format!("no answer within {LOOKUP_TIMEOUT:?}"),
                });
            }
        };
        let taken = family(found, dns.family);
        let limit = if one { 1 } else { usize::MAX };
        resolved
            .endpoints
            .extend(taken.into_iter().take(limit).map(|addr| LbEndpoint {
                address: Address::Socket(addr),
                hostname: if endpoint.hostname.is_empty() {
                    host.clone()
                } else {
                    endpoint.hostname.clone()
                },
                ..endpoint.clone()
            }));
    }
    Ok(resolved)
}

/// The addresses that the setting takes, each once, in the order of the answer.
fn family(found: Vec<SocketAddr>, family: DnsFamily) -> Vec<SocketAddr> {
    let mut seen = std::collections::HashSet::new();
    let (v4, v6): (Vec<_>, Vec<_>) = found
        .into_iter()
        .filter(|addr| seen.insert(*addr))
        .partition(SocketAddr::is_ipv4);
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::Auto => {
            if v6.is_empty() {
                v4
            } else {
                v6
            }
        }
        DnsFamily::V4Preferred => {
            if v4.is_empty() {
                v6
            } else {
                v4
            }
        }
        DnsFamily::All => v4.into_iter().chain(v6).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Change, MemorySource, Update},
        model,
    };

    #[test]
    fn the_family_decides_which_addresses_count() {
        let v4: SocketAddr = ([127, 0, 0, 1], 1).into();
        let v6: SocketAddr = (std::net::Ipv6Addr::LOCALHOST, 1).into();
        assert_eq!(family(vec![v4, v6, v4], DnsFamily::All), [v4, v6]);
        assert_eq!(family(vec![v4, v6], DnsFamily::Auto), [v6]);
        assert_eq!(family(vec![v4], DnsFamily::Auto), [v4]);
        assert_eq!(family(vec![v4, v6], DnsFamily::V4Preferred), [v4]);
    }

    #[test]
    fn a_failing_look_up_is_news_once() {
        let mut failures = Failures::default();
        let cluster: Name = "c".into();
        let failure = |reason: &str| Failure {
            host: "h".into(),
            reason: reason.to_owned(),
        };
        let (refused, silent) = (failure("refused"), failure("silent"));
        assert!(!failures.tell(&cluster, None), "nothing failed before");
        assert!(failures.tell(&cluster, Some(&refused)));
        assert!(!failures.tell(&cluster, Some(&refused)));
        assert!(failures.tell(&cluster, Some(&silent)), "the reason changed");
        assert!(failures.tell(&cluster, None), "found again");
        assert!(!failures.tell(&cluster, None));
        assert!(failures.tell(&cluster, Some(&silent)));
        // Another port of the same host.
        let other: Name = "d".into();
        assert!(!failures.tell(&other, Some(&silent)));
        assert!(!failures.tell(&cluster, None), "the other still fails");
        assert!(failures.tell(&other, None));
    }

    fn dns_cluster(host: &str) -> model::Cluster {
        let family = DnsFamily::V4Only;
        let dns = Dns {
            family,
            ..Dns::default()
        };
        let mut config = model::Cluster::new("dns", Discovery::StrictDns(dns));
        config.load_assignment.localities.push(LocalityEndpoints {
            endpoints: vec![LbEndpoint {
                address: Address::Host(host.into(), 81),
                hostname: "".into(),
                weight: 1,
                health: Default::default(),
                metadata: Default::default(),
            }],
            ..Default::default()
        });
        config
    }

    fn update(change: Change) -> Update {
        Update {
            changes: vec![change],
            ..Update::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_leaves_the_look_ups_of_unchanged_clusters_running() {
        let (source, _handle) = MemorySource::new();
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        driver.apply(update(Change::Cluster(Arc::new(dns_cluster("first")))));
        let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let slow = move |cluster: Arc<Cluster>| {
            let told = told.clone();
            async move {
                let assignment = cluster.config().load_assignment.clone();
                let Address::Host(host, _) = &assignment.localities[0].endpoints[0].address else {
                    unreachable!("the test gives names");
                };
                told.send(host.clone()).expect("the test listens");
                tokio::time::sleep(Duration::from_secs(4)).await;
                let address = match &**host {
                    "first" => ([127, 0, 0, 1], 81),
                    _ => ([127, 0, 0, 2], 81),
                };
                let mut found = assignment.clone();
                found.localities[0].endpoints[0].address = Address::Socket(address.into());
                Ok(found)
            }
        };
        let task = tokio::spawn(keep(mesh.clone(), slow));
        assert_eq!(asked.recv().await.as_deref(), Some("first"));
        let cluster = mesh.clusters().get("dns").expect("applied");
        for _ in 0..5 {
            driver.apply(Update::default());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(asked.try_recv().ok(), None, "asked once");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let addresses = || -> Vec<Address> {
            let set = cluster.endpoints();
            set.all().iter().map(|e| e.address().clone()).collect()
        };
        assert_eq!(addresses(), [Address::Socket(([127, 0, 0, 1], 81).into())]);

        // The name is another while the old one is looked up again: its answer comes too late.
        assert_eq!(asked.recv().await.as_deref(), Some("first"));
        driver.apply(update(Change::Cluster(Arc::new(dns_cluster("second")))));
        assert_eq!(asked.recv().await.as_deref(), Some("second"));
        tokio::time::sleep(Duration::from_millis(4500)).await;
        assert_eq!(addresses(), [Address::Socket(([127, 0, 0, 2], 81).into())]);
        task.abort();
    }

    #[tokio::test]
    async fn a_strict_dns_cluster_gets_the_addresses_of_its_name() {
        let (source, _handle) = MemorySource::new();
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        driver.apply(update(Change::Cluster(Arc::new(dns_cluster("localhost")))));
        let task = tokio::spawn(run(mesh.clone()));
        let cluster = mesh.clusters().get("dns").expect("applied");
        let found = timeout(Duration::from_secs(20), async {
            while cluster.endpoints().all().is_empty() {
                tokio::task::yield_now().await;
            }
        });
        found.await.expect("localhost resolves");
        assert_eq!(
            cluster.endpoints().all()[0].address(),
            &Address::Socket(([127, 0, 0, 1], 81).into())
        );
        task.abort();
    }
}
