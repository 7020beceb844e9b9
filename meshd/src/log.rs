//! The process's own log, with levels that `/logging` changes.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::cli::Options;

/// Components that `/logging` names: crates of the program.
const COMPONENTS: &[&str] = &["mesh_core", "mesh_xds", "meshd", "hyper", "h2"];

type Reload = Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Changes levels while the process runs. Cloning shares.
#[derive(Clone)]
pub(crate) struct LogControl {
    levels: Arc<Mutex<Levels>>,
    /// `None` where another program owns the log.
    reload: Option<Reload>,
}

#[derive(Clone, Debug)]
struct Levels {
    default: &'static str,
    components: BTreeMap<String, &'static str>,
}

impl LogControl {
    /// Begins to log as the options say. In a process that logs already, that log stays.
    pub(crate) fn install(options: &Options) -> io::Result<Self> {
        let mut levels = Levels {
            default: options.log_level.directive(),
            components: BTreeMap::new(),
        };
        for part in options
            .log_components
            .iter()
            .flat_map(|list| list.split(','))
        {
            let known = part
                .split_once(':')
                .and_then(|(name, level)| Some((name, directive(level)?)));
            let (name, level) = known.ok_or_else(|| {
                io::Error::other(format!("--component-log-level: {part:?} is not NAME:LEVEL"))
            })?;
            levels.components.insert(name.replace('-', "_"), level);
        }
        let (filter, handle) = reload::Layer::new(levels.filter());
        let format = tracing_subscriber::fmt::layer()
            .with_target(true)
            .with_ansi(false);
        let installed = match &options.log_path {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path)?;
                tracing_subscriber::registry()
                    .with(filter)
                    .with(format.with_writer(Mutex::new(file)))
                    .try_init()
            }
            None => tracing_subscriber::registry()
                .with(filter)
                .with(format.with_writer(io::stderr))
                .try_init(),
        };
        let reload: Reload =
            Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        Ok(Self {
            levels: Arc::new(Mutex::new(levels)),
            reload: installed.is_ok().then_some(reload),
        })
    }

    pub(crate) fn set_level(&self, level: &str) -> Result<(), String> {
        let level = directive(level).ok_or_else(|| format!("{level:?} is not a level"))?;
        self.change(|levels| {
            levels.default = level;
            levels.components.clear();
        })
    }

    pub(crate) fn set_component(&self, component: &str, level: &str) -> Result<(), String> {
        if !COMPONENTS.contains(&component) {
            return Err(format!(
                "unknown logger {component:?}; known: {}",
                COMPONENTS.join(", ")
            ));
        }
        let level = directive(level).ok_or_else(|| format!("{level:?} is not a level"))?;
        self.change(|levels| {
            levels.components.insert(component.to_owned(), level);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Levels)) -> Result<(), String> {
        let reload = self
            .reload
            .as_ref()
            .ok_or("the log belongs to another program")?;
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut levels);
        reload(levels.filter())
    }

    /// Envoy's list of loggers.
    pub(crate) fn describe(&self) -> String {
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = COMPONENTS.iter().map(|name| {
            let level = levels
                .components
                .get(*name)
                .copied()
                .unwrap_or(levels.default);
            format!(
                "  {name}: {}\n",
                if level == "warn" { "warning" } else { level }
            )
        });
        format!("active loggers:\n{}", lines.collect::<String>())
    }
}

impl Levels {
    fn filter(&self) -> EnvFilter {
        let components = self
            .components
            .iter()
            .map(|(name, level)| format!(",{name}={level}"));
        EnvFilter::new(format!(
            "{}{}",
            self.default,
            components.collect::<String>()
        ))
    }
}

fn directive(level: &str) -> Option<&'static str> {
    use clap::ValueEnum as _;
    crate::cli::LogLevel::from_str(level, true)
        .ok()
        .map(crate::cli::LogLevel::directive)
}
