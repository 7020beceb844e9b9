//! The process's own log, with levels that `/logging` changes.

mod loggers;

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use mesh_core::telemetry::access_log::LogWriter;
use tracing_subscriber::{
    EnvFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::cli::{LogLevel, Options};

type Reload = Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Changes levels while the process runs. Cloning shares.
#[derive(Clone)]
pub(crate) struct LogControl {
    levels: Arc<Mutex<Levels>>,
    /// `None` where another program owns the log.
    reload: Option<Reload>,
    /// Where `--log-path` says.
    file: Option<LogFile>,
}

/// The file of the log, and its name. Cloning shares.
#[derive(Clone, Debug)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let named = |error| io::Error::other(format!("--log-path {}: {error}", path.display()));
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(append(path).map_err(named)?)),
        })
    }

    fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

impl io::Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[derive(Clone, Debug)]
struct Levels {
    default: LogLevel,
    /// By logger.
    own: BTreeMap<&'static str, LogLevel>,
}

impl LogControl {
    /// Begins to log as the options say. In a process that logs already, that log stays.
    pub(crate) fn install(options: &Options) -> io::Result<Self> {
        let mut levels = Levels {
            default: options.log_level,
            own: BTreeMap::new(),
        };
        let components = options.log_components.as_deref().unwrap_or_default();
        let mut silent = Vec::new();
        for part in components.split(',').filter(|part| !part.is_empty()) {
            let refuse = |reason: String| {
                io::Error::other(format!("--component-log-level: {part:?}: {reason}"))
            };
            let (name, level) = part
                .split_once(':')
                .ok_or_else(|| refuse("not NAME:LEVEL".to_owned()))?;
            levels.set(Some(name), level).map_err(refuse)?;
            if let Some((name, [])) = loggers::find(name) {
                silent.push(name);
            }
        }
        let (filter, handle) = reload::Layer::new(levels.filter());
        let format = tracing_subscriber::fmt::layer()
            .with_target(true)
            .with_ansi(false);
        let file = options.log_path.as_deref().map(LogFile::open).transpose()?;
        let installed = match file.clone() {
            Some(file) => tracing_subscriber::registry()
                .with(filter)
                .with(format.with_writer(move || file.clone()))
                .try_init(),
            None => tracing_subscriber::registry()
                .with(filter)
                .with(format.with_writer(io::stderr))
                .try_init(),
        };
        for logger in silent {
            tracing::info!(
                logger,
                "Nothing is logged under this name of --component-log-level"
            );
        }
        let reload: Reload =
            Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        Ok(Self {
            levels: Arc::new(Mutex::new(levels)),
            reload: installed.is_ok().then_some(reload),
            file,
        })
    }

    /// Opens the files of the log and of access logs again, for whoever has moved them away.
    pub(crate) fn reopen_all(&self) {
        LogWriter::reopen_all();
        let reopened = self.file.as_ref().map_or(Ok(()), LogFile::reopen);
        if let Err(error) = reopened {
            tracing::error!(%error, "The log cannot be opened again; it goes on where it was");
        }
    }

    /// Sets levels by logger; without a logger, of all. One that is wrong changes nothing.
    ///
    /// # Errors
    ///
    /// Envoy's words for an unknown logger or level.
    pub(crate) fn set(&self, changes: &[(Option<String>, String)]) -> Result<(), String> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = levels.clone();
        for (logger, level) in changes {
            new.set(logger.as_deref(), level)?;
        }
        if !changes.is_empty() {
            let reload = self.reload.as_ref();
            reload.ok_or("the log belongs to another program")?(new.filter())?;
            *levels = new;
        }
        Ok(())
    }

    /// Envoy's list of loggers.
    pub(crate) fn describe(&self) -> String {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = loggers::all().into_iter().map(|(name, _)| {
            let level = levels.own.get(name).unwrap_or(&levels.default);
            format!("  {name}: {}\n", level.name())
        });
        format!("active loggers:\n{}\n", lines.collect::<String>())
    }
}

impl Levels {
    fn set(&mut self, logger: Option<&str>, level: &str) -> Result<(), String> {
        use clap::ValueEnum as _;
        let level = LogLevel::from_str(level, false);
        let level = level.map_err(|_| "unknown logger level".to_owned())?;
        match logger {
            None => {
                self.default = level;
                self.own.clear();
            }
            Some(name) => {
                let (name, _) = loggers::find(name).ok_or("unknown logger name")?;
                self.own.insert(name, level);
            }
        }
        Ok(())
    }

    fn filter(&self) -> EnvFilter {
        let own = self.own.iter().flat_map(|(name, level)| {
            let parts = loggers::find(name).map_or(&[] as &[_], |(_, parts)| parts);
            let directive = |part| format!(",{part}={}", level.directive());
            parts.iter().map(directive)
        });
        EnvFilter::new(format!(
            "{}{}",
            self.default.directive(),
            own.collect::<String>()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels() -> Levels {
        Levels {
            default: LogLevel::Info,
            own: BTreeMap::new(),
        }
    }

    #[test]
    fn envoys_loggers_are_parts_of_the_program() {
        let mut levels = levels();
        levels.set(Some("admin"), "trace").expect("a logger");
        levels.set(Some("misc"), "error").expect("a silent logger");
        assert_eq!(levels.filter().to_string(), "meshd::admin=trace,info");
        assert_eq!(
            levels.set(Some("nope"), "info"),
            Err("unknown logger name".to_owned())
        );
        assert_eq!(
            levels.set(Some("admin"), "loud"),
            Err("unknown logger level".to_owned())
        );
        levels.set(None, "info").expect("all");
        levels.set(Some("config"), "error").expect("a logger");
        let filter = levels.filter().to_string();
        for part in ["mesh_xds=error", "mesh_core::snapshot::driver=error"] {
            assert!(filter.contains(part), "{part} is missing in {filter}");
        }
        levels.set(None, "warn").expect("all");
        assert_eq!(levels.filter().to_string(), "warn");
    }

    #[test]
    fn a_wrong_change_among_several_changes_nothing() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = applied.clone();
        let control = LogControl {
            levels: Arc::new(Mutex::new(levels())),
            reload: Some(Arc::new(move |filter: EnvFilter| {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push(filter.to_string());
                Ok(())
            })),
            file: None,
        };
        let change = |name: &str, level: &str| (Some(name.to_owned()), level.to_owned());
        let wrong = control.set(&[change("admin", "debug"), change("nope", "debug")]);
        assert!(wrong.is_err());
        assert!(control.describe().contains("  admin: info\n"));
        control.set(&[change("pool", "warning")]).expect("a change");
        assert!(control.describe().contains("  pool: warning\n"));
        let applied = applied.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*applied, ["mesh_core::pool=warn,info"]);
    }
}
