//! First-match route tables: host, path, headers and query as borrowed bytes.

pub mod regex;
/// A compiled route configuration.
#[derive(Debug, Default)]
pub struct RouteTable {
    _private: (),
}

impl RouteTable {
    /// A table without a route.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Compiles a route configuration; clusters are found in `clusters`, now or at run time.
    ///
    /// # Errors
    ///
    /// Every reason for which it is refused.
    pub fn compile(
        _config: &crate::model::RouteConfiguration,
        _clusters: &crate::snapshot::Clusters,
    ) -> Result<Self, Vec<crate::config::Rejection>> {
        Ok(Self::default())
    }
}
