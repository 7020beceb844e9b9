//! Runs a source: update, compile, publish, report.

use std::{collections::HashSet, fmt, hash::Hash, sync::Arc, time::Duration};

use super::{
    Clusters, Compiler, Health, Own, Reader, Snapshot, SnapshotCell, Stage, Status, Watch,
};
use crate::{
    cluster::Monitor,
    config::{ConfigSource, Rejection, SourceError, Update},
    model::Note,
    telemetry::{
        metrics::{Metrics, Workload},
        record::Sink,
    },
};

/// A mesh: the handle that everything else is made from. Cloning shares.
#[derive(Clone)]
pub struct Mesh {
    cell: SnapshotCell,
    status: Status,
    clusters: Clusters,
    metrics: Metrics,
}

/// Builds a [`Mesh`] and the [`Driver`] that keeps it up to date.
#[derive(Debug)]
pub struct MeshBuilder<S> {
    source: S,
    metrics: Metrics,
    own: Own,
    sinks: Vec<Arc<dyn Sink>>,
}

/// Keeps a [`Mesh`] up to date. Spawn [`Driver::run`] wherever you like; dropping it freezes the configuration.
pub struct Driver<S> {
    source: S,
    compiler: Compiler,
    mesh: Mesh,
    /// What was said of the last update: each is logged once, and again when it comes back.
    said: Said,
}

/// No configuration arrived in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no configuration within {} ms", waited.as_millis())]
pub struct NotReady {
    /// How long it was waited for.
    pub waited: Duration,
}

impl Mesh {
    /// A builder without a source.
    pub fn builder() -> MeshBuilder<()> {
        MeshBuilder {
            source: (),
            metrics: Metrics::default(),
            own: Own::default(),
            sinks: Vec::new(),
        }
    }

    /// A reader for the request path.
    pub fn reader(&self) -> Reader {
        self.cell.reader()
    }

    /// Waits for the first configuration. A [`Watch`] waits for those after it.
    ///
    /// # Errors
    ///
    /// [`NotReady`] after `limit`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[cfg(feature = "net")]
    pub async fn ready(&self, limit: Duration) -> Result<Arc<Snapshot>, NotReady> {
        let first = tokio::time::timeout(limit, self.watch().changed()).await;
        first.map_err(|_| NotReady { waited: limit })
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.cell.load()
    }

    /// Waits for new snapshots.
    pub fn watch(&self) -> Watch {
        self.cell.watch()
    }

    /// The state of the configuration.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Metrics of all requests.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What health checks are answered.
    pub fn health(&self) -> &Health {
        self.metrics.health()
    }

    /// The directory of clusters.
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }
}

impl MeshBuilder<()> {
    /// Takes the source of configuration.
    #[must_use]
    pub fn source<S: ConfigSource>(self, source: S) -> MeshBuilder<S> {
        MeshBuilder {
            source,
            metrics: self.metrics,
            own: self.own,
            sinks: self.sinks,
        }
    }
}

impl<S> MeshBuilder<S> {
    /// Says which workload this process belongs to, for the labels of its metrics; without it, the source says it.
    #[must_use]
    pub fn workload(mut self, workload: Workload) -> Self {
        self.metrics = Metrics::new(workload);
        self
    }

    /// Tells `monitor` how each attempt at an endpoint went, in every stack, pool and level; without it nobody is told.
    #[must_use]
    pub fn monitor(mut self, monitor: Arc<dyn Monitor>) -> Self {
        self.own.monitor = Some(monitor);
        self
    }

    /// Has `stage`, after those before it, compile HTTP filters that mesh-core does not understand: authorization, tokens, limits.
    #[must_use]
    pub fn stage(mut self, stage: Arc<dyn Stage>) -> Self {
        self.own.stages.push(stage);
        self
    }

    /// Tells `sink`, after those before it, of each request that the mesh carries, in clients, listeners and in front of
    /// applications, and of each TCP connection: an access log of the program's own, spans.
    #[must_use]
    pub fn sink(mut self, sink: Arc<dyn Sink>) -> Self {
        self.sinks.push(sink);
        self
    }
}

impl<S: ConfigSource> MeshBuilder<S> {
    /// The mesh, and the driver that must run for it to receive anything.
    pub fn build(self) -> (Mesh, Driver<S>) {
        self.metrics.tell(self.sinks);
        let compiler = Compiler::new(self.metrics.clone(), self.own);
        let mesh = Mesh {
            cell: SnapshotCell::default(),
            status: Status::default(),
            clusters: compiler.directory().clone(),
            metrics: self.metrics,
        };
        (
            mesh.clone(),
            Driver {
                source: self.source,
                compiler,
                mesh,
                said: Said::default(),
            },
        )
    }
}

impl<S: ConfigSource> Driver<S> {
    /// Runs until the source ends.
    ///
    /// # Errors
    ///
    /// [`SourceError`] of the source; the configuration in force stays.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future freezes the configuration that is in force.
    pub async fn run(mut self) -> Result<(), SourceError> {
        #[cfg(feature = "net")]
        let mut names = std::pin::pin!(super::dns::run(self.mesh.clone()));
        loop {
            #[cfg(feature = "net")]
            let update = tokio::select! {
                update = self.source.next() => update?,
                never = &mut names => match never {},
            };
            #[cfg(not(feature = "net"))]
            let update = self.source.next().await?;
            self.apply(update);
        }
    }

    /// Applies an update and reports to the source; [`Driver::run`] does this for each.
    pub fn apply(&mut self, update: Update) {
        let notes = update.notes.clone();
        self.mesh.metrics.belong_to(|| self.source.workload());
        let (snapshot, mut outcome) = self.compiler.apply(update);
        self.source.locate(&mut outcome.rejections);
        self.said.log(&outcome.rejections, &notes);
        self.mesh.cell.store(snapshot);
        self.compiler.report(&self.mesh.status, &outcome, notes);
        self.source.report(&outcome);
    }

    /// The source.
    pub fn source(&self) -> &S {
        &self.source
    }
}

/// What is refused or has no effect: the status has all of it, the log what is new or gone.
#[derive(Debug, Default)]
struct Said {
    refused: HashSet<Rejection>,
    notes: HashSet<Note>,
}

impl Said {
    fn log(&mut self, refused: &[Rejection], notes: &[Note]) {
        let (new, gone) = news(&mut self.refused, refused);
        for rejection in new {
            tracing::warn!(%rejection, "Configuration refused, the last good version stays in force");
        }
        for rejection in gone {
            tracing::info!(%rejection, "Configuration no longer refused");
        }
        let (new, gone) = news(&mut self.notes, notes);
        for note in new {
            let Note {
                resource,
                path,
                reason,
            } = note;
            if note.is_warning() {
                tracing::warn!(%resource, %path, "{reason}");
            } else {
                tracing::info!(%resource, %path, "{reason}");
            }
        }
        for Note {
            resource,
            path,
            reason,
        } in gone.iter().filter(|note| note.is_warning())
        {
            tracing::info!(%resource, %path, "No longer so: {reason}");
        }
    }
}

/// What `now` has that was not `said` before, each once, and what was said and is no longer there. Then `now` is said.
fn news<'n, T: Clone + Eq + Hash>(said: &mut HashSet<T>, now: &'n [T]) -> (Vec<&'n T>, Vec<T>) {
    let mut before = std::mem::take(said);
    let mut new = Vec::new();
    for one in now {
        let known = before.remove(one);
        if said.insert(one.clone()) && !known {
            new.push(one);
        }
    }
    (new, before.into_iter().collect())
}

/// Without the configuration, which is long.
impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("generation", &self.snapshot().generation())
            .field("workload", self.metrics.workload())
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("source", &self.source)
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesh at generation {}", self.snapshot().generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_or_gone_is_news() {
        let mut said = HashSet::new();
        assert_eq!(
            news(&mut said, &["a", "b", "a"]),
            (vec![&"a", &"b"], vec![])
        );
        assert_eq!(news(&mut said, &["b", "a"]), (vec![], vec![]));
        assert_eq!(news(&mut said, &["b", "c"]), (vec![&"c"], vec!["a"]));
        assert_eq!(news(&mut said, &[]).1.len(), 2);
        assert_eq!(
            news(&mut said, &["a"]),
            (vec![&"a"], vec![]),
            "it came back"
        );
    }
}
