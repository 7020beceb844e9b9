//! Configuration sources for [`mesh_core`]: Envoy's files, folders of Istio and Kubernetes YAML.
//!
//! | you have | take | feature, both by default |
//! |---|---|---|
//! | Envoy's bootstrap, YAML or JSON, and the files that it names | [`file::FileSource`] | `file` |
//! | a folder of Istio and Kubernetes YAML | [`istio::IstioSource`](istio::source::IstioSource) | `istio` |
//!
//! Both go through one decoder ([`decode`]) and one graph of resources ([`graph`]); Istio's YAML is translated into the Envoy
//! resources that istiod would send first ([`istio::translate`]). Each field acts, is listed as without effect, or refuses
//! its resource, with file, line, column and path:
//!
//! ```
//! use mesh_core::snapshot::Mesh;
//! use mesh_xds::file::FileSource;
//!
//! let text = "static_resources: {clusters: [{name: reviews, type: STATIC}]}";
//! let source = FileSource::parse("envoy.yaml", text)?;
//! let first = source.first().cloned().unwrap_or_default();
//!
//! // With a runtime, `tokio::spawn(driver.run())`; without, the first update acts like this.
//! let (mesh, mut driver) = Mesh::builder().source(source).build();
//! driver.apply(first);
//! assert!(mesh.clusters().get("reviews").is_some());
//!
//! let refused = FileSource::parse("envoy.yaml", &text.replace("type", "tipe")).err().expect("no such field");
//! let reason = "envoy.yaml:1:47: static_resources.clusters[0].tipe: unknown field `tipe` in envoy.config.cluster.v3.Cluster, \
//!     did you mean `type`?";
//! assert_eq!(refused.to_string(), reason);
//! # Ok::<(), mesh_xds::file::FileError>(())
//! ```

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod decode;
#[cfg(feature = "file")]
pub mod file;
pub mod graph;
#[cfg(feature = "istio")]
pub mod istio;
pub mod json;
pub mod yaml;
