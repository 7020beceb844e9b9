//! `/server_info` and `/memory`.

use serde_json::{Value, json};

use super::Admin;
use crate::cli::{Mode, Options};

impl Admin {
    /// Envoy's `ServerInfo`, with every field.
    pub(super) fn server_info(&self) -> Value {
        let uptime = format!("{}s", self.lifecycle.uptime_s());
        let mut node = self.dump.node();
        if !node.is_object() {
            node = json!({});
        }
        for field in ["id", "cluster"] {
            if node.get(field).is_none() {
                node[field] = "".into();
            }
        }
        for field in ["region", "zone", "sub_zone"] {
            if node["locality"].get(field).is_none() {
                node["locality"][field] = "".into();
            }
        }
        let mut parts = env!("CARGO_PKG_VERSION").split('.').map(str::parse::<u32>);
        let mut part = || parts.next().and_then(Result::ok).unwrap_or_default();
        node["user_agent_name"] = "meshd".into();
        node["user_agent_build_version"] = json!({
            "version": {"major_number": part(), "minor_number": part(), "patch": part()},
        });
        json!({
            "version": format!("meshd/{}", env!("CARGO_PKG_VERSION")),
            "state": self.lifecycle.state().name(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": "disabled",
            "hot_restart_initializing": false,
            "command_line_options": command_line(&self.options()),
            "node": node,
        })
    }
}

/// Envoy's `CommandLineOptions`: flags that act as given, flags without effect as if they had not been given.
fn command_line(options: &Options) -> Value {
    let path = |path: Option<&std::path::Path>| {
        path.map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    json!({
        "admin_address_path": path(options.admin_address_path.as_deref()),
        "allow_unknown_static_fields": false,
        "base_id": "0",
        "base_id_path": "",
        "component_log_level": text(&options.log_components),
        "concurrency": options.concurrency,
        "config_path": path(options.config_path.as_deref()),
        "config_yaml": text(&options.config_yaml),
        "cpuset_threads": options.cpuset_threads,
        "disable_hot_restart": true,
        "disabled_extensions": [],
        "drain_strategy": if options.drain_gradual { "Gradual" } else { "Immediate" },
        "drain_time": format!("{}s", options.drain_time.as_secs()),
        "enable_core_dump": false,
        "enable_fine_grain_logging": false,
        "enable_mutex_tracing": false,
        "ignore_unknown_dynamic_fields": false,
        "log_level": options.log_level.name(),
        "log_path": path(options.log_path.as_deref()),
        "mode": match options.mode {
            Mode::Serve => "Serve",
            Mode::Validate => "Validate",
            Mode::InitOnly => "InitOnly",
        },
        "reject_unknown_dynamic_fields": true,
        "restart_epoch": 0,
        "service_cluster": text(&options.node.cluster),
        "service_node": text(&options.node.id),
        "service_zone": text(&options.node.zone),
        "skip_hot_restart_on_no_parent": false,
        "skip_hot_restart_parent_stats": false,
        "socket_mode": 0,
        "socket_path": "",
        "stats_tag": [],
        "use_dynamic_base_id": false,
    })
}

/// Envoy's `Memory`, as far as the system knows it: what the process has in physical memory.
pub(super) fn memory() -> Value {
    json!({ "total_physical_bytes": resident_memory().to_string() })
}

/// Bytes of this process in physical memory; 0: the system does not say.
pub(super) fn resident_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}
