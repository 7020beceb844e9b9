//! The command line: Envoy's own, and `sidecar` and `gateway` on a folder of YAML.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A program option that is accepted for compatibility and has no effect.
pub(crate) type Ignored = (&'static str, &'static str);

#[derive(Debug, Parser)]
#[command(
    name = "meshd",
    version,
    about = "The data plane of the mesh: sidecar, gateway, or a proxy on an Envoy file"
)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) envoy: EnvoyArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Carries the inbound and outbound traffic of one workload, from a folder of Istio and Kubernetes YAML.
    Sidecar(FolderArgs),
    /// Serves the Gateways that select one workload, from a folder of Istio and Kubernetes YAML.
    Gateway(FolderArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FolderArgs {
    /// The watched folder.
    #[arg(long = "config", visible_alias = "mesh", value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// The Pod (or WorkloadEntry) this proxy stands for.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) workload: String,
    /// Address that outbound listeners (of a gateway: all) bind where the configuration names none.
    #[arg(long, value_name = "IP")]
    pub(crate) bind: Option<std::net::IpAddr>,
    /// Address at which the application listens; default: 127.0.0.1.
    #[arg(long, value_name = "IP")]
    pub(crate) application: Option<std::net::IpAddr>,
    /// Worker threads; 0: one a core.
    #[arg(long, default_value_t = 2)]
    pub(crate) concurrency: usize,
    /// Address of the admin server.
    #[arg(long, default_value = "127.0.0.1:15000")]
    pub(crate) admin: SocketAddr,
    /// Address of the readiness server (`/healthz/ready`); `none` for none.
    #[arg(long, default_value = "0.0.0.0:15021")]
    pub(crate) readiness: OptionalAddr,
    /// Address of the Prometheus server (`/stats/prometheus`); `none` for none.
    #[arg(long, default_value = "0.0.0.0:15090")]
    pub(crate) metrics: OptionalAddr,
    /// Refuse objects and fields that have no effect yet, instead of listing them.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Let traffic pass where this kind (for example PeerAuthentication) asks for protection that cannot act yet.
    #[arg(long, value_name = "KIND")]
    pub(crate) insecure_skip: Vec<String>,
    /// Longest wait for requests in flight on SIGTERM, seconds.
    #[arg(long, default_value_t = 5)]
    pub(crate) drain_time_s: u64,
    /// Level of the log: trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, default_value = "info")]
    pub(crate) log_level: LogLevel,
}

/// An address, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionalAddr(pub(crate) Option<SocketAddr>);

impl std::str::FromStr for OptionalAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|addr| Self(Some(addr)))
            .map_err(|_| format!("{text:?} is neither IP:PORT nor `none`"))
    }
}

/// Envoy's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    #[value(alias = "err")]
    Error,
    Critical,
    Off,
}

impl LogLevel {
    /// The filter of `tracing`; there is no `critical` there, so it is `error`.
    pub(crate) fn directive(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error | Self::Critical => "error",
            Self::Off => "off",
        }
    }

    /// Envoy's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Serves.
    #[default]
    Serve,
    /// Checks the configuration and ends.
    Validate,
    /// Envoy initialises and ends; refused here.
    #[value(name = "init_only")]
    InitOnly,
}

/// Envoy's command line. Each flag acts, or is listed as ignored, or is refused by name.
#[derive(Clone, Debug, Args)]
pub(crate) struct EnvoyArgs {
    /// Path of the bootstrap, YAML or JSON.
    #[arg(short = 'c', long, value_name = "FILE")]
    config_path: Option<PathBuf>,
    /// The bootstrap itself, YAML or JSON.
    #[arg(long, value_name = "YAML", conflicts_with = "config_path")]
    config_yaml: Option<String>,
    /// Worker threads; default: one a core.
    #[arg(long)]
    concurrency: Option<usize>,
    /// Worker threads by the processors that the process may use.
    #[arg(long)]
    cpuset_threads: bool,
    /// Serve, or only check the configuration.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Level of the log.
    #[arg(short = 'l', long, value_enum, default_value = "info")]
    log_level: LogLevel,
    /// Levels of components, `name:level,…`.
    #[arg(long, value_name = "LIST")]
    component_log_level: Option<String>,
    /// File that the log is written to; default: standard error.
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,
    /// File that the address of the admin server is written to.
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    /// Longest drain, seconds.
    #[arg(long, default_value_t = 600)]
    drain_time_s: u64,
    /// How connections are told to go during a drain.
    #[arg(long, value_parser = ["gradual", "immediate"], default_value = "gradual")]
    drain_strategy: String,
    /// `node.cluster` of the bootstrap.
    #[arg(long)]
    service_cluster: Option<String>,
    /// `node.id` of the bootstrap.
    #[arg(long)]
    service_node: Option<String>,
    /// `node.locality.zone` of the bootstrap.
    #[arg(long)]
    service_zone: Option<String>,
    /// There is no hot restart to disable.
    #[arg(long)]
    disable_hot_restart: bool,
    #[arg(long, hide = true)]
    restart_epoch: Option<u32>,
    #[arg(long, hide = true)]
    base_id: Option<u32>,
    #[arg(long, hide = true)]
    use_dynamic_base_id: bool,
    #[arg(long, hide = true)]
    base_id_path: Option<PathBuf>,
    #[arg(long, hide = true)]
    parent_shutdown_time_s: Option<u64>,
    #[arg(long, hide = true)]
    log_format: Option<String>,
    #[arg(long, hide = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true)]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    file_flush_interval_msec: Option<u64>,
    #[arg(long, hide = true)]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true)]
    allow_unknown_static_fields: bool,
    #[arg(long, hide = true)]
    reject_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    ignore_unknown_dynamic_fields: bool,
    #[arg(long, hide = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    socket_path: Option<String>,
    #[arg(long, hide = true)]
    socket_mode: Option<String>,
    #[arg(long, hide = true)]
    enable_core_dump: bool,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_on_no_parent: bool,
    #[arg(long, hide = true)]
    skip_deprecated_logs: bool,
    #[arg(long, hide = true)]
    stats_tag: Vec<String>,
    #[arg(long, hide = true)]
    hot_restart_version: bool,
}

/// What the program shall do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) source: Source,
    /// Worker threads, at least 1.
    pub(crate) concurrency: usize,
    /// `None`: the bootstrap says it.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) admin_address_path: Option<PathBuf>,
    pub(crate) readiness: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log_level: LogLevel,
    pub(crate) log_components: Option<String>,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) drain_time: Duration,
    pub(crate) drain_gradual: bool,
    pub(crate) mode: Mode,
    /// The flags as given, for `/server_info`.
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) config_yaml: Option<String>,
    pub(crate) node: Node,
    pub(crate) ignored: Vec<Ignored>,
}

/// `node` of the bootstrap as flags give it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) id: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) zone: Option<String>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Envoy's bootstrap in a file.
    File(PathBuf),
    /// Envoy's bootstrap on the command line.
    Text(String),
    /// A folder, as a sidecar or as a gateway (`true`).
    Folder(Box<FolderArgs>, bool),
}

/// Reads the command line.
///
/// # Errors
///
/// clap's error, which prints itself; help and version are such errors too.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, clap::Error> {
    let cli = Cli::try_parse_from(args)?;
    match cli.command {
        Some(Command::Sidecar(args)) => Ok(folder(args, false)),
        Some(Command::Gateway(args)) => Ok(folder(args, true)),
        None => envoy(cli.envoy),
    }
}

fn folder(args: FolderArgs, gateway: bool) -> Options {
    Options {
        concurrency: cores_if_zero(args.concurrency),
        admin: Some(args.admin),
        admin_address_path: None,
        readiness: args.readiness.0,
        metrics: args.metrics.0,
        log_level: args.log_level,
        log_components: None,
        log_path: None,
        drain_time: Duration::from_secs(args.drain_time_s),
        drain_gradual: false,
        mode: Mode::Serve,
        config_path: Some(args.config.clone()),
        config_yaml: None,
        node: Node::default(),
        ignored: Vec::new(),
        source: Source::Folder(Box::new(args), gateway),
    }
}

fn envoy(args: EnvoyArgs) -> Result<Options, clap::Error> {
    if let Some((flag, reason)) = args.refused() {
        return Err(usage(format!("{flag} is not supported: {reason}")));
    }
    let source = match (&args.config_path, &args.config_yaml) {
        (Some(path), _) => Source::File(path.clone()),
        (None, Some(text)) => Source::Text(text.clone()),
        (None, None) => {
            return Err(usage(
                "one of --config-path, --config-yaml, `sidecar` or `gateway` is needed".into(),
            ));
        }
    };
    let ignored = args.ignored();
    Ok(Options {
        source,
        concurrency: cores_if_zero(args.concurrency.unwrap_or(0)),
        admin: None,
        admin_address_path: args.admin_address_path,
        readiness: None,
        metrics: None,
        log_level: args.log_level,
        log_components: args.component_log_level,
        log_path: args.log_path,
        drain_time: Duration::from_secs(args.drain_time_s),
        drain_gradual: args.drain_strategy == "gradual",
        mode: args.mode,
        config_path: args.config_path,
        config_yaml: args.config_yaml,
        node: Node {
            id: args.service_node,
            cluster: args.service_cluster,
            zone: args.service_zone,
        },
        ignored,
    })
}

impl EnvoyArgs {
    /// A flag that cannot be honoured and would change what the user gets.
    fn refused(&self) -> Option<Ignored> {
        let rows: [(bool, Ignored); 6] = [
            (
                self.mode == Mode::InitOnly,
                ("--mode init_only", "use --mode validate"),
            ),
            (
                self.restart_epoch.unwrap_or(0) > 0,
                (
                    "--restart-epoch",
                    "there is no hot restart; sockets are shared by SO_REUSEPORT",
                ),
            ),
            (
                self.allow_unknown_static_fields,
                (
                    "--allow-unknown-static-fields",
                    "an unknown field is always an error here",
                ),
            ),
            (
                self.disable_extensions.is_some(),
                (
                    "--disable-extensions",
                    "extensions cannot be disabled at run time",
                ),
            ),
            (
                self.hot_restart_version,
                ("--hot-restart-version", "there is no hot restart"),
            ),
            (
                !self.stats_tag.is_empty(),
                ("--stats-tag", "tags of statistics cannot be set"),
            ),
        ];
        rows.into_iter()
            .find_map(|(given, row)| given.then_some(row))
    }

    /// Flags that are accepted and have no effect; printed at start.
    fn ignored(&self) -> Vec<Ignored> {
        let no_restart = "there is no hot restart";
        let rows = [
            (self.base_id.is_some(), ("--base-id", no_restart)),
            (
                self.use_dynamic_base_id,
                ("--use-dynamic-base-id", no_restart),
            ),
            (self.base_id_path.is_some(), ("--base-id-path", no_restart)),
            (
                self.parent_shutdown_time_s.is_some(),
                ("--parent-shutdown-time-s", no_restart),
            ),
            (
                self.skip_hot_restart_on_no_parent,
                ("--skip-hot-restart-on-no-parent", no_restart),
            ),
            (self.socket_path.is_some(), ("--socket-path", no_restart)),
            (self.socket_mode.is_some(), ("--socket-mode", no_restart)),
            (
                self.log_format.is_some(),
                ("--log-format", "the log has one format"),
            ),
            (
                self.log_format_escaped,
                ("--log-format-escaped", "the log is always escaped"),
            ),
            (
                self.local_address_ip_version.is_some(),
                ("--local-address-ip-version", "both versions are used"),
            ),
            (
                self.file_flush_interval_msec.is_some(),
                (
                    "--file-flush-interval-msec",
                    "files are flushed as they are written",
                ),
            ),
            (
                self.file_flush_min_size_kb.is_some(),
                (
                    "--file-flush-min-size-kb",
                    "files are flushed as they are written",
                ),
            ),
            (
                self.reject_unknown_dynamic_fields,
                (
                    "--reject-unknown-dynamic-fields",
                    "an unknown field is always an error here",
                ),
            ),
            (
                self.ignore_unknown_dynamic_fields,
                (
                    "--ignore-unknown-dynamic-fields",
                    "an unknown field is always an error here",
                ),
            ),
            (
                self.enable_core_dump,
                ("--enable-core-dump", "the kernel's limit decides"),
            ),
            (
                self.enable_mutex_tracing,
                ("--enable-mutex-tracing", "there is no mutex on the path"),
            ),
            (
                self.enable_fine_grain_logging,
                ("--enable-fine-grain-logging", "use --component-log-level"),
            ),
            (
                self.skip_deprecated_logs,
                (
                    "--skip-deprecated-logs",
                    "deprecated fields are listed, not logged",
                ),
            ),
        ];
        rows.into_iter()
            .filter_map(|(given, row)| given.then_some(row))
            .collect()
    }
}

fn usage(message: String) -> clap::Error {
    clap::Error::raw(
        clap::error::ErrorKind::ValueValidation,
        format!("{message}\n"),
    )
}

fn cores_if_zero(concurrency: usize) -> usize {
    match concurrency {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Options, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn envoys_own_command_line_is_understood() {
        let options = run("meshd -c envoy.yaml --concurrency 1 --disable-hot-restart -l critical")
            .expect("Envoy's flags");
        assert_eq!(options.concurrency, 1);
        assert!(
            matches!(options.source, Source::File(path) if path == std::path::Path::new("envoy.yaml"))
        );
        assert!(options.ignored.is_empty());
        assert_eq!(options.log_level, LogLevel::Critical);
    }

    #[test]
    fn flags_without_effect_are_listed_and_others_refused_by_name() {
        let options = run("meshd -c e.yaml --base-id 3").expect("accepted");
        assert_eq!(options.ignored[0].0, "--base-id");
        let error = run("meshd -c e.yaml --restart-epoch 1").expect_err("refused");
        assert!(error.to_string().contains("--restart-epoch"), "{error}");
        assert!(run("meshd").is_err());
        assert!(run("meshd -c e.yaml --no-such-flag").is_err());
    }

    #[test]
    fn a_sidecar_has_istios_ports() {
        let options =
            run("meshd sidecar --config mesh --workload default/reviews-v1").expect("a sidecar");
        assert_eq!(options.admin, Some(([127, 0, 0, 1], 15000).into()));
        assert_eq!(options.readiness.map(|addr| addr.port()), Some(15021));
        assert_eq!(options.metrics.map(|addr| addr.port()), Some(15090));
        let options =
            run("meshd gateway --config m --workload n/g --metrics none").expect("a gateway");
        assert_eq!(options.metrics, None);
    }
}
