//! `/help`.

/// A page of the admin server.
pub(super) struct Page {
    pub(super) path: &'static str,
    /// Whether it changes something, and so takes POST only.
    pub(super) post: bool,
    pub(super) what: &'static str,
    /// Parameters, and what each is for.
    parameters: &'static [(&'static str, &'static str)],
}

const fn page(path: &'static str, what: &'static str) -> Page {
    Page {
        path,
        post: false,
        what,
        parameters: &[],
    }
}

const fn with(page: Page, post: bool, parameters: &'static [(&'static str, &'static str)]) -> Page {
    Page {
        post,
        parameters,
        ..page
    }
}

const FILTER: (&str, &str) = ("filter", "Regular expression (RE2) for filtering by name");
const INVERT: (&str, &str) = ("invert_filter", "Invert the filter regex");
const USED: (&str, &str) = (
    "usedonly",
    "Only include stats that have been written by system since restart",
);

const BUCKETS: (&str, &str) = (
    "histogram_buckets",
    "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)",
);

/// A page that Envoy has and nothing stands behind here, and the reason.
pub(super) struct Absent {
    pub(super) path: &'static str,
    pub(super) post: bool,
    pub(super) reason: &'static str,
}

const fn absent(path: &'static str, post: bool, reason: &'static str) -> Absent {
    Absent { path, post, reason }
}

const NO_DUMP: &str = "Heap dump is not supported in current build";
const NO_LOOKUPS: &str = "Statistics are not looked up by name";

/// What Envoy has beside them.
pub(super) const ABSENT: &[Absent] = &[
    absent(
        "/allocprofiler",
        true,
        "The current build does not support allocation profiler",
    ),
    absent(
        "/cpuprofiler",
        true,
        "The current build does not support CPU profiler",
    ),
    absent("/heap_dump", false, NO_DUMP),
    absent(
        "/heapprofiler",
        true,
        "The current build does not support heap profiler",
    ),
    absent("/memory/tcmalloc", false, "The allocator is not tcmalloc"),
    absent("/peak_heap_dump", false, NO_DUMP),
    absent("/stats/recentlookups", false, NO_LOOKUPS),
    absent("/stats/recentlookups/clear", true, NO_LOOKUPS),
    absent("/stats/recentlookups/disable", true, NO_LOOKUPS),
    absent("/stats/recentlookups/enable", true, NO_LOOKUPS),
];

/// All pages, by path.
pub(super) const PAGES: &[Page] = &[
    page("/", "Admin home page"),
    page("/certs", "print certs on machine"),
    with(
        page("/clusters", "upstream cluster status"),
        false,
        &[
            FILTER,
            ("format", "File format to use; One of (text, json)"),
        ],
    ),
    with(
        page("/config_dump", "dump current configuration"),
        false,
        &[
            ("resource", "The resource to dump"),
            (
                "mask",
                "The mask to apply, to every element if resource is specified too",
            ),
            (
                "name_regex",
                "Dump only what has a name that matches the specified regex",
            ),
            ("include_eds", "Dump endpoints too"),
        ],
    ),
    page(
        "/config_status",
        "what is refused and what has no effect, with file, line and field",
    ),
    page(
        "/contention",
        "dump current mutex contention stats (if enabled)",
    ),
    with(
        page("/drain_listeners", "drain listeners"),
        true,
        &[
            (
                "graceful",
                "Enter a graceful drain period prior to closing listeners",
            ),
            (
                "skip_exit",
                "Drain the connections but never stop the listeners",
            ),
            ("inboundonly", "Drain only listeners of inbound traffic"),
        ],
    ),
    with(
        page(
            "/healthcheck/fail",
            "cause the server to fail health checks",
        ),
        true,
        &[],
    ),
    with(
        page("/healthcheck/ok", "cause the server to pass health checks"),
        true,
        &[],
    ),
    page("/help", "print out list of admin commands"),
    page(
        "/hot_restart_version",
        "print the hot restart compatibility version",
    ),
    with(
        page("/init_dump", "dump what is not initialised yet"),
        false,
        &[("mask", "The component whose targets to dump: listener")],
    ),
    with(
        page("/listeners", "print listener info"),
        false,
        &[("format", "File format to use; One of (text, json)")],
    ),
    with(
        page("/logging", "query/change logging levels"),
        true,
        &[
            (
                "paths",
                "Change multiple levels, NAME:LEVEL,NAME:LEVEL; NAME=LEVEL changes one",
            ),
            ("group", "The same as paths"),
            (
                "level",
                "Change all levels; One of (trace, debug, info, warning, error, critical, off)",
            ),
        ],
    ),
    page("/memory", "print what memory the process uses"),
    with(page("/quitquitquit", "exit the server"), true, &[]),
    page(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
    ),
    with(page("/reopen_logs", "reopen access logs"), true, &[]),
    with(
        page("/reset_counters", "reset all counters to zero"),
        true,
        &[],
    ),
    page("/runtime", "print runtime values"),
    with(
        page(
            "/runtime_modify",
            "modify runtime values, if there were an admin layer; there is none",
        ),
        true,
        &[],
    ),
    page("/server_info", "print server version/status information"),
    with(
        page("/stats", "print server stats"),
        false,
        &[
            USED,
            FILTER,
            INVERT,
            ("format", "Format to use; One of (text, json, prometheus)"),
            (
                "type",
                "Stat types to include; One of (All, Counters, Gauges, Histograms, TextReadouts)",
            ),
            BUCKETS,
        ],
    ),
    with(
        page(
            "/stats/prometheus",
            "print server stats in prometheus format",
        ),
        false,
        &[USED, FILTER, INVERT, BUCKETS],
    ),
];

/// Envoy's list of commands.
pub(super) fn help() -> String {
    let mut out = String::from("admin commands are:\n");
    for page in PAGES {
        let post = if page.post { " (POST)" } else { "" };
        out.push_str(&format!("  {}{post}: {}\n", page.path, page.what));
        for (name, what) in page.parameters {
            out.push_str(&format!("      {name}: {what}\n"));
        }
    }
    out
}
