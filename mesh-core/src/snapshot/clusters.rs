//! All clusters by name, for routes that name theirs at run time and for recompiling those that name it beforehand.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use crate::{cluster::Cluster, model::Name};

/// A shared directory of clusters. Cloning shares; readers take no lock.
#[derive(Clone, Debug, Default)]
pub struct Clusters {
    map: Arc<ArcSwap<HashMap<Name, Arc<Cluster>>>>,
}

impl Clusters {
    /// The cluster of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.map.load().get(name).cloned()
    }

    /// All clusters now.
    pub fn all(&self) -> Arc<HashMap<Name, Arc<Cluster>>> {
        self.map.load_full()
    }

    /// Replaces the directory.
    pub(super) fn store(&self, map: HashMap<Name, Arc<Cluster>>) {
        self.map.store(Arc::new(map));
    }
}

impl FromIterator<Arc<Cluster>> for Clusters {
    fn from_iter<I: IntoIterator<Item = Arc<Cluster>>>(clusters: I) -> Self {
        let this = Self::default();
        this.store(
            clusters
                .into_iter()
                .map(|cluster| (cluster.name().clone(), cluster))
                .collect(),
        );
        this
    }
}
