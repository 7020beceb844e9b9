//! Dependency budgets of mesh-core, read from `cargo tree`.

use std::collections::BTreeSet;

use crate::Fallible;
use crate::process;
use crate::workspace;

/// Crates in the normal tree without any feature, mesh-core itself not counted.
pub(crate) const BARE: usize = 32;
/// Crates in the normal tree with the default features.
pub(crate) const DEFAULT: usize = 70;
/// What must never be under mesh-core, whatever the features: config protobuf, TLS, Kubernetes.
const FOREIGN: [&str; 4] = ["prost", "tonic", "rustls", "kube"];

/// How many crates are under mesh-core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) bare: usize,
    pub(crate) default: usize,
}

/// Counts the crates.
pub(crate) fn count() -> Fallible<Count> {
    Ok(Count {
        bare: crates(&["--no-default-features", "-e", "normal"])?.len(),
        default: crates(&["-e", "normal"])?.len(),
    })
}

/// Checks all budgets; the text names the figures.
pub(crate) fn check() -> Fallible<String> {
    let Count { bare, default } = count()?;
    let all = crates(&["--all-features", "-e", "normal,build"])?;
    let foreign: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|name| is_foreign(name))
        .collect();
    let figures = format!(
        "mesh-core has {bare} crates bare (bar {BARE}), {default} by default (bar {DEFAULT})"
    );
    if !foreign.is_empty() {
        return Err(format!("mesh-core must not depend on {}", foreign.join(", ")).into());
    }
    if bare > BARE || default > DEFAULT {
        return Err(figures.into());
    }
    Ok(figures)
}

fn is_foreign(package: &str) -> bool {
    let name = package.split(' ').next().unwrap_or(package);
    FOREIGN
        .iter()
        .any(|foreign| name == *foreign || name.starts_with(&format!("{foreign}-")))
}

/// The names and versions of the crates under mesh-core, without mesh-core.
fn crates(arguments: &[&str]) -> Fallible<BTreeSet<String>> {
    let mut tree = workspace::cargo([
        "tree",
        "--locked",
        "-p",
        "mesh-core",
        "--prefix",
        "none",
        "-f",
        "{p}",
    ]);
    let text = process::output(tree.args(arguments))?;
    Ok(names(&text))
}

fn names(tree: &str) -> BTreeSet<String> {
    tree.lines()
        .map(|line| line.split(" (").next().unwrap_or(line).trim())
        .filter(|line| {
            !line.is_empty() && !line.starts_with('[') && !line.starts_with("mesh-core ")
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_crates_count_once_and_the_root_not_at_all() {
        let tree = "mesh-core v0.1.0 (somewhere)\nbytes v1.0.0\nhttp v1.5.0\nbytes v1.0.0 (*)\nserde_derive v1.0.0 (proc-macro)\n";
        assert_eq!(names(tree).len(), 3);
    }

    #[test]
    fn families_of_a_foreign_crate_are_foreign() {
        assert!(is_foreign("prost v0.14.0"));
        assert!(is_foreign("rustls-pki-types"));
        assert!(!is_foreign("prosthetic"));
    }
}
