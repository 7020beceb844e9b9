//! A folder of Istio and Kubernetes YAML: read, checked, watched.
//!
//! Each file is read by events ([`crate::yaml`]); each object is typed, checked and named. What is wrong becomes a
//! [`Finding`] with file, line, column, resource, field path and what is allowed; the last good version of the object
//! stays in force. A file that is no YAML at all (half written, not UTF-8) keeps everything it held before. Of a refused object
//! without a good version [`crate::istio::api::Lost`] keeps what it would have protected, so that this stays closed.

mod finding;
mod folder;
mod heads;
mod kinds;
mod listing;
mod lost;
mod object;
mod operator;
mod place;
#[cfg(test)]
mod tests;
mod text;
mod watch;

pub use finding::{Finding, Level, ObjectId};
pub use folder::{Folder, FolderOptions, Scan};
pub(super) use lost::of_object as protected_by;
pub use place::Places;
pub use text::{Parsed, TextOptions, parse};
pub use watch::Watch;
