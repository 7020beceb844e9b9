//! Envoy's own flags.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Ignored, LogLevel, Node, Options, Source, cores_if_zero, usage};

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
    /// A bootstrap, YAML or JSON; merged over the one of --config-path if both are given.
    #[arg(long, value_name = "YAML")]
    config_yaml: Option<String>,
    /// Worker threads; default: one a core.
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Worker threads by the processors that the process may use.
    #[arg(long)]
    cpuset_threads: bool,
    /// Serve, or only check the configuration.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Level of the log.
    #[arg(
        short = 'l',
        long,
        value_name = "LEVEL",
        value_enum,
        default_value = "info"
    )]
    log_level: LogLevel,
    /// Levels of single loggers, such as `config:error,pool:debug`; `/logging` lists them.
    #[arg(long, value_name = "NAME:LEVEL,…")]
    component_log_level: Option<String>,
    /// File that the log is written to; default: standard error.
    #[arg(long, value_name = "FILE")]
    log_path: Option<PathBuf>,
    /// File that the address of the admin server is written to.
    #[arg(long, value_name = "FILE")]
    admin_address_path: Option<PathBuf>,
    /// Longest wait for requests in flight on SIGTERM, and length of a gradual drain.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    drain_time_s: u64,
    /// How connections are told to go during a drain.
    #[arg(long, value_name = "HOW", value_parser = ["gradual", "immediate"], default_value = "gradual")]
    drain_strategy: String,
    /// `node.cluster` of the bootstrap.
    #[arg(long, value_name = "NAME")]
    service_cluster: Option<String>,
    /// `node.id` of the bootstrap.
    #[arg(long, value_name = "ID")]
    service_node: Option<String>,
    /// `node.locality.zone` of the bootstrap.
    #[arg(long, value_name = "ZONE")]
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
    #[arg(long, hide = true, value_parser = ["v4", "v6"])]
    local_address_ip_version: Option<String>,
    #[arg(long, hide = true)]
    file_flush_interval_msec: Option<u64>,
    #[arg(long, hide = true)]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true)]
    allow_unknown_static_fields: bool,
    #[arg(long, hide = true)]
    allow_unknown_fields: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_parent_stats: bool,
    #[arg(long, hide = true)]
    log_stacktrace_single_entry: bool,
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

impl EnvoyArgs {
    /// What the flags ask for.
    ///
    /// # Errors
    ///
    /// A flag that cannot be honoured, by name. What a flag asks to be printed is such an error too, as in clap.
    pub(super) fn options(self) -> Result<Options, clap::Error> {
        let args = self;
        if args.hot_restart_version {
            let kind = clap::error::ErrorKind::DisplayVersion;
            return Err(clap::Error::raw(kind, "disabled\n"));
        }
        if let Some((flag, reason)) = args.refused() {
            return Err(usage(format!("{flag} is not supported: {reason}")));
        }
        let source = match (&args.config_path, &args.config_yaml) {
            (Some(path), overlay) => Source::File(path.clone(), overlay.clone()),
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
            cpuset_threads: args.cpuset_threads,
            log_level: args.log_level,
            log_components: args.component_log_level,
            log_path: args.log_path,
            drain_time: Duration::from_secs(args.drain_time_s),
            termination_drain_time: Duration::from_secs(args.drain_time_s),
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

    /// A flag that cannot be honoured and would change what the user gets.
    fn refused(&self) -> Option<Ignored> {
        let rows: [(bool, Ignored); 4] = [
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
                self.disable_extensions.is_some(),
                (
                    "--disable-extensions",
                    "extensions cannot be disabled at run time",
                ),
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
        let rows = self
            .of_restarts()
            .into_iter()
            .chain(self.of_unknown_fields());
        rows.chain(self.of_logs())
            .chain(self.of_the_process())
            .filter_map(|(given, row)| given.then_some(row))
            .collect()
    }

    fn of_restarts(&self) -> [(bool, Ignored); 8] {
        [
            (self.base_id.is_some(), "--base-id"),
            (self.use_dynamic_base_id, "--use-dynamic-base-id"),
            (self.base_id_path.is_some(), "--base-id-path"),
            (
                self.parent_shutdown_time_s.is_some(),
                "--parent-shutdown-time-s",
            ),
            (
                self.skip_hot_restart_on_no_parent,
                "--skip-hot-restart-on-no-parent",
            ),
            (
                self.skip_hot_restart_parent_stats,
                "--skip-hot-restart-parent-stats",
            ),
            (self.socket_path.is_some(), "--socket-path"),
            (self.socket_mode.is_some(), "--socket-mode"),
        ]
        .map(|(given, flag)| (given, (flag, "there is no hot restart")))
    }

    fn of_unknown_fields(&self) -> [(bool, Ignored); 4] {
        [
            (
                self.allow_unknown_static_fields,
                "--allow-unknown-static-fields",
            ),
            (self.allow_unknown_fields, "--allow-unknown-fields"),
            (
                self.reject_unknown_dynamic_fields,
                "--reject-unknown-dynamic-fields",
            ),
            (
                self.ignore_unknown_dynamic_fields,
                "--ignore-unknown-dynamic-fields",
            ),
        ]
        .map(|(given, flag)| {
            (
                given,
                (flag, "an unknown field is an error here all the same"),
            )
        })
    }

    fn of_logs(&self) -> [(bool, Ignored); 7] {
        let flushed = "files are flushed as they are written";
        let interval = ("--file-flush-interval-msec", flushed);
        let size = ("--file-flush-min-size-kb", flushed);
        let format = ("--log-format", "the log has one format");
        let escaped = ("--log-format-escaped", "the log is always escaped");
        let traces = (
            "--log-stacktrace-single-entry",
            "no stack traces are logged",
        );
        let fine = ("--enable-fine-grain-logging", "use --component-log-level");
        let deprecated = (
            "--skip-deprecated-logs",
            "deprecated fields are listed, not logged",
        );
        [
            (self.log_format.is_some(), format),
            (self.log_format_escaped, escaped),
            (self.file_flush_interval_msec.is_some(), interval),
            (self.file_flush_min_size_kb.is_some(), size),
            (self.log_stacktrace_single_entry, traces),
            (self.enable_fine_grain_logging, fine),
            (self.skip_deprecated_logs, deprecated),
        ]
    }

    fn of_the_process(&self) -> [(bool, Ignored); 3] {
        let version = ("--local-address-ip-version", "both versions are used");
        let dump = ("--enable-core-dump", "the kernel's limit decides");
        let mutexes = ("--enable-mutex-tracing", "there is no mutex on the path");
        [
            (self.local_address_ip_version.is_some(), version),
            (self.enable_core_dump, dump),
            (self.enable_mutex_tracing, mutexes),
        ]
    }
}
