//! The command line: Envoy's own, and `sidecar` and `gateway` on a folder of YAML.

mod envoy;

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_xds::istio::index::ProcessSettings;

pub(crate) use self::envoy::{EnvoyArgs, Mode};

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

/// Namespace and name.
fn workload(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("a namespace, a slash and a name are needed, as in default/reviews-v1"),
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FolderArgs {
    /// The watched folder.
    #[arg(long = "config", visible_alias = "mesh", value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// The Pod (or WorkloadEntry) this proxy stands for.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = workload)]
    pub(crate) workload: (String, String),
    /// Address that outbound listeners (of a gateway: all) bind where the configuration names none.
    #[arg(long, value_name = "IP")]
    pub(crate) bind: Option<std::net::IpAddr>,
    /// Address at which the application listens; default: 127.0.0.1.
    #[arg(long, value_name = "IP")]
    pub(crate) application: Option<std::net::IpAddr>,
    /// Worker threads; 0: one a core. Default: `concurrency` of ProxyConfig, else 2.
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    /// Address of the admin server. Default: 127.0.0.1, with `proxyAdminPort` of ProxyConfig, else 15000.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin: Option<SocketAddr>,
    /// Address of the readiness server (`/healthz/ready`); `none` for none.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:15021")]
    pub(crate) readiness: OptionalAddr,
    /// Address of the Prometheus server (`/stats/prometheus`); `none` for none.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:15090")]
    pub(crate) metrics: OptionalAddr,
    /// Refuse objects and fields that have no effect yet, instead of listing them.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Let traffic pass where this kind (for example PeerAuthentication) asks for protection that cannot act yet.
    #[arg(long, value_name = "KIND")]
    pub(crate) insecure_skip: Vec<String>,
    /// Longest wait for requests in flight on SIGTERM, and length of a gradual drain. Default: `terminationDrainDuration` of
    /// ProxyConfig, else 5, and its `drainDuration`, else 45.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_time_s: Option<u64>,
    /// Level of the log.
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// Levels of single loggers of Envoy's, such as `config:error,pool:debug`; `/logging` lists them.
    #[arg(long, value_name = "NAME:LEVEL,…")]
    pub(crate) component_log_level: Option<String>,
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

/// What the program shall do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) source: Source,
    /// Worker threads, at least 1.
    pub(crate) concurrency: usize,
    /// `None`: the bootstrap says it, or there is no admin server.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) admin_address_path: Option<PathBuf>,
    pub(crate) readiness: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether `--cpuset-threads` was given, which is how workers are counted anyhow.
    pub(crate) cpuset_threads: bool,
    pub(crate) log_level: LogLevel,
    pub(crate) log_components: Option<String>,
    pub(crate) log_path: Option<PathBuf>,
    /// Length of a gradual drain, while the process goes on.
    pub(crate) drain_time: Duration,
    /// Longest wait at the end of the process.
    pub(crate) termination_drain_time: Duration,
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
    /// Envoy's bootstrap in a file, and what is merged over it.
    File(PathBuf, Option<String>),
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
        None => cli.envoy.options(),
    }
}

impl Options {
    /// Whether the address of the admin server, if there shall be one, is known before the first configuration is there.
    pub(crate) fn is_admin_given(&self) -> bool {
        match &self.source {
            Source::Folder(args, _) => args.admin.is_some(),
            Source::File(..) | Source::Text(_) => true,
        }
    }

    /// Takes from the folder what the command line leaves open.
    pub(crate) fn settle(&mut self, settings: &ProcessSettings) {
        let Source::Folder(args, _) = &self.source else {
            return;
        };
        if let (None, Some(own)) = (args.concurrency, settings.concurrency) {
            self.concurrency = cores_if_zero(usize::try_from(own).unwrap_or(usize::MAX));
        }
        if let (None, Some(port)) = (args.admin, settings.admin_port) {
            self.admin = Some((ADMIN.0, port).into());
        }
        if args.drain_time_s.is_none() {
            let (drain, end) = (settings.drain_duration, settings.termination_drain_duration);
            self.drain_time = drain.unwrap_or(self.drain_time);
            self.termination_drain_time = end.unwrap_or(self.termination_drain_time);
        }
    }
}

/// Where the admin server of a sidecar or gateway listens when nothing else is said.
const ADMIN: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
/// Threads of a sidecar or gateway when nobody says.
const CONCURRENCY: usize = 2;
/// Istio's drain times: while the process goes on, and at its end.
const DRAIN_TIME: Duration = Duration::from_secs(45);
const TERMINATION_DRAIN_TIME: Duration = Duration::from_secs(5);

fn folder(args: FolderArgs, gateway: bool) -> Options {
    let drain_time = args.drain_time_s.map(Duration::from_secs);
    Options {
        concurrency: cores_if_zero(args.concurrency.unwrap_or(CONCURRENCY)),
        admin: Some(args.admin.unwrap_or(ADMIN.into())),
        admin_address_path: None,
        readiness: args.readiness.0,
        metrics: args.metrics.0,
        cpuset_threads: false,
        log_level: args.log_level,
        log_components: args.component_log_level.clone(),
        log_path: None,
        drain_time: drain_time.unwrap_or(DRAIN_TIME),
        termination_drain_time: drain_time.unwrap_or(TERMINATION_DRAIN_TIME),
        drain_gradual: false,
        mode: Mode::Serve,
        config_path: Some(args.config.clone()),
        config_yaml: None,
        node: Node::default(),
        ignored: Vec::new(),
        source: Source::Folder(Box::new(args), gateway),
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
            matches!(options.source, Source::File(path, None) if path == std::path::Path::new("envoy.yaml"))
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

    /// What becomes of a flag.
    #[derive(Debug, PartialEq)]
    enum Fate {
        Acts,
        /// Accepted, and listed at start as without effect.
        Listed,
        /// Refused by name.
        Refused,
        /// Printed, and the program ends.
        Prints,
    }

    /// Every flag of `envoy --help`, version 1.40, with a value where it takes one.
    const ENVOY: &[(&str, Fate)] = &[
        ("--stats-tag a:b", Fate::Refused),
        ("--enable-core-dump", Fate::Listed),
        ("--socket-mode 600", Fate::Listed),
        ("--socket-path @s", Fate::Listed),
        ("--disable-extensions x", Fate::Refused),
        ("--cpuset-threads", Fate::Acts),
        ("--enable-mutex-tracing", Fate::Listed),
        ("--disable-hot-restart", Fate::Acts),
        ("--mode serve", Fate::Acts),
        ("--mode validate", Fate::Acts),
        ("--mode init_only", Fate::Refused),
        ("--parent-shutdown-time-s 900", Fate::Listed),
        ("--drain-strategy immediate", Fate::Acts),
        ("--drain-strategy gradual", Fate::Acts),
        ("--drain-time-s 45", Fate::Acts),
        ("--file-flush-min-size-kb 1", Fate::Listed),
        ("--file-flush-interval-msec 1000", Fate::Listed),
        ("--service-zone z", Fate::Acts),
        ("--service-node n", Fate::Acts),
        ("--service-cluster c", Fate::Acts),
        ("--hot-restart-version", Fate::Prints),
        ("--restart-epoch 0", Fate::Acts),
        ("--restart-epoch 1", Fate::Refused),
        ("--log-path log", Fate::Acts),
        ("--enable-fine-grain-logging", Fate::Listed),
        ("--log-format-escaped", Fate::Listed),
        ("--log-format %v", Fate::Listed),
        (
            "--component-log-level upstream:debug,config:trace",
            Fate::Acts,
        ),
        ("-l warn", Fate::Acts),
        ("--log-level warning", Fate::Acts),
        ("--local-address-ip-version v4", Fate::Listed),
        ("--admin-address-path a", Fate::Acts),
        ("--log-stacktrace-single-entry", Fate::Listed),
        ("--skip-deprecated-logs", Fate::Listed),
        ("--ignore-unknown-dynamic-fields", Fate::Listed),
        ("--reject-unknown-dynamic-fields", Fate::Listed),
        ("--allow-unknown-static-fields", Fate::Listed),
        ("--allow-unknown-fields", Fate::Listed),
        ("--config-yaml {}", Fate::Acts),
        ("--config-path e.yaml", Fate::Acts),
        ("--concurrency 2", Fate::Acts),
        ("--base-id-path b", Fate::Listed),
        ("--skip-hot-restart-parent-stats", Fate::Listed),
        ("--skip-hot-restart-on-no-parent", Fate::Listed),
        ("--use-dynamic-base-id", Fate::Listed),
        ("--base-id 1", Fate::Listed),
        ("--version", Fate::Prints),
        ("-h", Fate::Prints),
        ("--help", Fate::Prints),
    ];

    #[test]
    fn every_flag_of_envoy_acts_or_is_listed_or_refused_by_name() {
        for (flag, expected) in ENVOY {
            let name = flag.split(' ').next().expect("a name");
            let file = match name {
                "--config-path" => "",
                _ => "-c e.yaml ",
            };
            let fate = match run(&format!("meshd {file}{flag}")) {
                Ok(options) => match options.ignored.as_slice() {
                    [] => Fate::Acts,
                    [(listed, _)] if *listed == name => Fate::Listed,
                    other => panic!("{flag}: {other:?}"),
                },
                Err(error) if !error.use_stderr() => Fate::Prints,
                Err(error) => {
                    assert!(error.to_string().contains(name), "{flag}: {error}");
                    Fate::Refused
                }
            };
            assert_eq!(fate, *expected, "{flag}");
        }
    }

    #[test]
    fn flags_reach_what_they_are_for() {
        let options = run("meshd -c e.yaml --config-yaml {} --service-node n --service-cluster c --service-zone z --drain-time-s 7 --drain-strategy immediate --mode validate --concurrency 3").expect("flags");
        assert!(matches!(options.source, Source::File(_, Some(over)) if over == "{}"));
        let node = [options.node.id, options.node.cluster, options.node.zone];
        assert_eq!(node.map(Option::unwrap_or_default), ["n", "c", "z"]);
        assert_eq!(options.drain_time, Duration::from_secs(7));
        assert!(!options.drain_gradual);
        assert_eq!(options.mode, Mode::Validate);
        assert_eq!(options.concurrency, 3);
        let text = run("meshd --config-yaml {}").expect("a bootstrap");
        assert!(matches!(text.source, Source::Text(text) if text == "{}"));
        assert!(run("meshd -c e --local-address-ip-version v5").is_err());
        assert!(run("meshd -c e -l loud").is_err());
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
        for workload in ["reviews-v1", "default/", "/reviews-v1", "a/b/c"] {
            let refused = run(&format!("meshd sidecar --config m --workload {workload}"));
            assert!(refused.is_err(), "{workload}");
        }
    }

    #[test]
    fn the_folder_settles_what_flags_leave_open() {
        let settings = ProcessSettings {
            concurrency: Some(7),
            admin_port: Some(15099),
            drain_duration: Some(Duration::from_secs(8)),
            termination_drain_duration: Some(Duration::from_secs(9)),
        };
        let settled = |flags: &str, settings: &ProcessSettings| {
            let line = format!("meshd sidecar --config m --workload n/w {flags}");
            let mut options = run(&line).expect("a sidecar");
            options.settle(settings);
            let admin = options.admin.map(|addr| addr.port());
            let times = (options.drain_time, options.termination_drain_time);
            (
                options.concurrency,
                admin,
                times.0.as_secs(),
                times.1.as_secs(),
            )
        };
        let none = ProcessSettings::default();
        assert_eq!(settled("", &none), (2, Some(15000), 45, 5));
        assert_eq!(settled("", &settings), (7, Some(15099), 8, 9));
        let flags = "--concurrency 3 --admin 127.0.0.1:1 --drain-time-s 4";
        assert_eq!(settled(flags, &settings), (3, Some(1), 4, 4));
        let all = ProcessSettings {
            concurrency: Some(0),
            ..none
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(settled("", &all).0, cores);
    }
}
