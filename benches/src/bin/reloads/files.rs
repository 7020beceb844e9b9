//! The configuration of each turn, as files.

use std::fs;
use std::path::{Path, PathBuf};

use mesh_benches::loopback::Failure;

/// Ports that the files name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// The two endpoints of the service.
    pub(crate) apps: [u16; 2],
    /// The service's, which is the proxy's listener too.
    pub(crate) service: u16,
    /// Of a listener that comes and goes.
    pub(crate) other: u16,
    /// Of the admin server.
    pub(crate) admin: u16,
}

/// Which kind of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Istio and Kubernetes YAML.
    Istio,
    /// Files of Envoy's resources that a bootstrap names.
    Envoy,
}

/// A folder of its own, removed at the end.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    shape: Shape,
    ports: Ports,
}

impl Files {
    /// The files of turn 0.
    pub(crate) fn create(shape: Shape, ports: Ports) -> Result<Self, Failure> {
        let name = format!("mesh-reloads-{}-{}", std::process::id(), ports.service);
        let files = Self {
            folder: std::env::temp_dir().join(name),
            shape,
            ports,
        };
        fs::create_dir_all(&files.folder)?;
        match shape {
            Shape::Istio => files.save("service.yaml", include_str!("service.yaml"), 0)?,
            Shape::Envoy => files.save("bootstrap.yaml", include_str!("bootstrap.yaml"), 0)?,
        }
        for turn in [1, 2, 3, 0] {
            files.write(turn)?;
        }
        Ok(files)
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes what changes in this turn: endpoints, settings of the cluster, a listener that comes and goes, or nothing but the
    /// route, in turn. The route always changes: the number of the turn comes back in the header `x-turn` of responses.
    pub(crate) fn write(&self, turn: u32) -> Result<(), Failure> {
        match self.shape {
            Shape::Istio => {
                match turn % 4 {
                    1 => self.save("endpoints.yaml", include_str!("endpoints.yaml"), turn)?,
                    2 => self.save("rule.yaml", include_str!("rule.yaml"), turn)?,
                    3 if turn % 8 == 3 => {
                        self.save("other.yaml", include_str!("other.yaml"), turn)?;
                    }
                    3 => fs::remove_file(self.folder.join("other.yaml"))?,
                    _ => {}
                }
                self.save("route.yaml", include_str!("route.yaml"), turn)
            }
            Shape::Envoy => {
                match turn % 4 {
                    1 | 2 => self.save("cds.yaml", include_str!("cds.yaml"), turn)?,
                    3 => self.save("lds.yaml", include_str!("lds.yaml"), turn)?,
                    _ => {}
                }
                self.save("rds.yaml", include_str!("rds.yaml"), turn)
            }
        }
    }

    /// Saves a file: in place, as an editor that truncates, or by a rename, in turn. Files of Envoy's are always renamed, since
    /// Envoy takes note of nothing else.
    fn save(&self, name: &str, template: &str, turn: u32) -> Result<(), Failure> {
        let text = self.fill(template, turn);
        let path = self.folder.join(name);
        if self.shape == Shape::Istio && turn.is_multiple_of(2) {
            return Ok(fs::write(path, text)?);
        }
        let new = self.folder.join(format!(".{name}.new"));
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    }

    fn fill(&self, template: &str, turn: u32) -> String {
        // Both endpoints, then the first alone, then the second alone.
        let ready = [(turn / 4) % 3 != 2, (turn / 4) % 3 != 1];
        let health = ready.map(|ready| if ready { "HEALTHY" } else { "UNHEALTHY" });
        let balancers = ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"];
        let ports = &self.ports;
        [
            ("@TURN@", turn.to_string()),
            ("@SERVICE@", ports.service.to_string()),
            ("@ADMIN@", ports.admin.to_string()),
            ("@APP1@", ports.apps[0].to_string()),
            ("@APP2@", ports.apps[1].to_string()),
            ("@READY1@", ready[0].to_string()),
            ("@READY2@", ready[1].to_string()),
            ("@HEALTH1@", health[0].to_owned()),
            ("@HEALTH2@", health[1].to_owned()),
            ("@BALANCER@", balancers[(turn / 4) as usize % 3].to_owned()),
            ("@LIMIT@", (1000 + turn).to_string()),
            ("@OTHER@", ports.other.to_string()),
            ("@FOLDER@", self.folder.display().to_string()),
        ]
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left behind is small and in the folder of temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
