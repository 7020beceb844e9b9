//! Which route table a request goes by.

use std::{ops::Deref, sync::Arc};

use arc_swap::{ArcSwap, Cache};
use http::Request;

use crate::{Kind, route::RouteTable, snapshot::RouteCell};

/// Finds the route table of a request.
pub trait TableOf {
    /// The newest table for it.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn table<B>(&mut self, request: &Request<B>) -> Result<&Arc<RouteTable>, Kind>;
}

/// The tables of one cell, for all requests: one atomic load as long as nothing changed.
#[derive(Clone, Debug)]
pub struct CellTable(Cache<CellRef, Arc<RouteTable>>);

#[derive(Clone, Debug)]
struct CellRef(Arc<RouteCell>);

impl Deref for CellRef {
    type Target = ArcSwap<RouteTable>;

    fn deref(&self) -> &Self::Target {
        self.0.swap()
    }
}

impl CellTable {
    /// The tables of `cell`.
    pub fn new(cell: Arc<RouteCell>) -> Self {
        Self(Cache::new(CellRef(cell)))
    }

    /// The newest table.
    pub fn load(&mut self) -> &Arc<RouteTable> {
        self.0.load()
    }
}

impl TableOf for CellTable {
    fn table<B>(&mut self, _request: &Request<B>) -> Result<&Arc<RouteTable>, Kind> {
        Ok(self.0.load())
    }
}
