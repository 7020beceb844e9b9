"""Random Envoy files, each with the requests that are likely to meet what it says."""

import copy

TYPE = "type.googleapis.com/envoy."
WORDS = ["a", "b", "foo", "Foo", "v1", "x.html", "users", "a-b", "~t", "redirected"]
HEADERS = ["x-one", "x-two", "X-Three", "x-num", "user-agent", "content-type", "accept", "cookie", "x-missing"]
VALUES = ["", "a", "A", "abc", "yes", "5", "-7", "12abc", "a,b", "text/html", "application/grpc", "val ue", "x" * 60]
QUERIES = ["q", "Q", "a", "debug", "id"]
HOSTS = ["one.test", "two.test", "api.two.test", "deep.api.two.test", "three.test:8080", "two.test:99", "one.other", "prefix.x", "nowhere.zz"]
CLUSTERS = ["h1", "h2", "none"]
HOW = ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]
FORMATS = [
    "plain",
    "%REQ(x-one)%",
    "%REQ(X-ONE?x-two)%",
    "%REQ(:path):5%",
    "%REQ(x-one):3%!",
    "%PROTOCOL%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_LOCAL_PORT%",
    "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_CLUSTER_RAW%",
    "%UPSTREAM_HOST%",
    "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%UPSTREAM_REMOTE_PORT%",
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%ROUTE_NAME%",
    "%VIRTUAL_CLUSTER_NAME%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_FLAGS_LONG%",
    "%RESP(x-many)%",
    "%RESP(content-length?x-many):2%",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%QUERY_PARAM(q)%",
    "%QUERY_PARAMS%",
    "%PATH(NQ)%",
    "%PATH(WQ:ORIG)%",
    "%PATH(NQ:PATH)%",
    "%ENVIRONMENT(NO_SUCH)%",
    "%ENVIRONMENT(PLAY)%",
    "%METADATA(ROUTE:com.test:key)%",
    "%METADATA(ROUTE:com.test)%",
    "%METADATA(VIRTUAL_HOST:com.test:key)%",
    "%METADATA(CLUSTER:com.test:key)%",
    "%METADATA(UPSTREAM_HOST:com.test:key)%",
    "%DYNAMIC_METADATA(com.test:key)%",
    "%FILTER_STATE(some.key)%",
    "%FILTER_STATE(some.key:PLAIN)%",
    "%REQUESTED_SERVER_NAME%",
    "%DOWNSTREAM_PEER_URI_SAN%",
    "%GRPC_STATUS%",
    "%GRPC_STATUS_NUMBER%",
    "%CONNECTION_TERMINATION_DETAILS%",
    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "%%",
    "100%% of %REQ(x-two)%",
    "[%REQ(x-one)%|%REQ(x-missing)%]",
    "%START_TIME(%Y)%",
    "%TRAILER(x-trailer)%",
]
REGEXES = ["/.*", "/a.*", "/(foo|b)/[^/]+", "/[a-z]+", ".*\\.html", "/users/\\d+", "(?i)/FOO.*", "/a\\?.*", "/x?"]
TEMPLATES = [
    ("/users/{id}", "/people/{id}", ["/users/7", "/users/", "/users/7/x"]),
    ("/a/*/v1", "/star", ["/a/foo/v1", "/a/foo/bar/v1"]),
    ("/b/{rest=**}", "/c/{rest}", ["/b/x/y/z", "/b/", "/b"]),
    ("/foo/{x}/{y=v1/*}", "/{y}/{x}", ["/foo/1/v1/2", "/foo/1/v2/2"]),
    ("/a/{name}.html", "/{name}", ["/a/x.html", "/a/.html"]),
    ("/**", "/all", ["/", "/a/b"]),
    ("/{x=*}/**/b", "/{x}", ["/a/foo/b", "/a/b"]),
]


class Maker:
    """Draws the parts of one file."""

    def __init__(self, random):
        self.random = random
        self.count = 0
        self.hints = []
        self.mirrors = False

    def maybe(self, share):
        return self.random.random() < share

    def pick(self, values):
        return self.random.choice(values)

    def some(self, values, most):
        return [self.pick(values) for _ in range(self.random.randint(0, most))]

    def path(self):
        end = self.pick(["", "", "/"])
        return "/" + "/".join(self.some(WORDS, 3)) + end

    def string(self, value=None):
        value = self.pick(VALUES[1:]) if value is None else value
        kind = self.pick(["exact", "prefix", "suffix", "contains", "safe_regex"])
        if kind == "safe_regex":
            # xDS' own matcher asks for the engine, Envoy's does not.
            return {"safe_regex": {"google_re2": {}, "regex": self.pick(["a.*", ".*", "[0-9]+", "(?i)ABC", "yes|no", "^a", "a$"])}}
        text = {"prefix": value[:2], "suffix": value[-2:], "contains": value[1:3] or value}.get(kind, value)
        found = {kind: text or "a"}
        if self.maybe(0.2):
            found["ignore_case"] = True
        return found

    def header_matcher(self):
        name = self.pick(HEADERS + [":method", ":path", ":authority", ":scheme", "host"])
        if name == ":method":
            return {"name": name, "string_match": {"exact": self.pick(["GET", "POST", "HEAD", "get"])}}
        if name in (":path", ":authority", ":scheme", "host"):
            value = {":path": "/a", ":authority": "one.test", "host": "two.test", ":scheme": "http"}[name]
            return {"name": name, "string_match": {self.pick(["exact", "prefix", "contains"]): value}, "invert_match": self.maybe(0.3)}
        value = self.pick(VALUES[1:])
        found = {"name": name}
        kind = self.pick(["string", "string", "range", "present", "absent", "none", "exact_match", "prefix_match", "suffix_match", "contains_match", "safe_regex_match"])
        if kind == "string":
            found["string_match"] = self.string(value)
        elif kind == "range":
            found["range_match"] = {"start": self.pick([-10, 0, 5]), "end": self.pick([6, 100])}
        elif kind in ("present", "absent"):
            found["present_match"] = kind == "present"
        elif kind == "safe_regex_match":
            found[kind] = {"regex": self.pick(["a.*", "[0-9]+", ".*"])}
        elif kind != "none":
            found[kind] = value
        if self.maybe(0.25):
            found["invert_match"] = True
        if self.maybe(0.2):
            found["treat_missing_header_as_empty"] = True
        self.hints.append((name, value))
        return found

    def query_matcher(self):
        found = {"name": self.pick(QUERIES)}
        if self.maybe(0.5):
            found["string_match"] = self.string()
        elif self.maybe(0.6):
            found["present_match"] = self.maybe(0.7)
        return found

    def fraction(self):
        return {"default_value": {"numerator": self.pick([0, 100, 100, 100]), "denominator": self.pick(["HUNDRED", "HUNDRED"])}}

    def route_match(self):
        """A match, and paths that may meet it."""
        kind = self.pick(["prefix", "prefix", "path", "safe_regex", "path_separated_prefix", "template", "connect"])
        path = self.path()
        found, template = {}, None
        paths = [path, path + "x", path + "/b", path.upper(), path.rstrip("/") or "/"]
        if kind == "safe_regex":
            found["safe_regex"] = {"regex": self.pick(REGEXES)}
            paths = ["/a", "/foo/x", "/b/c.html", "/users/12", "/Foo"]
        elif kind == "template":
            text, template, paths = self.pick(TEMPLATES)
            found["path_match_policy"] = {
                "name": "t",
                "typed_config": {"@type": TYPE + "extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": text},
            }
        elif kind == "connect":
            found["connect_matcher"] = {}
        elif kind == "path_separated_prefix":
            found[kind] = path.rstrip("/") or "/a"
            paths = [found[kind], found[kind] + "/b", found[kind] + "b", found[kind] + "?q=1"]
        else:
            found[kind] = path
        if self.maybe(0.15) and kind in ("prefix", "path", "path_separated_prefix"):
            found["case_sensitive"] = False
        if self.maybe(0.3):
            found["headers"] = [self.header_matcher() for _ in range(self.random.randint(1, 2))]
        if self.maybe(0.15):
            found["query_parameters"] = [self.query_matcher()]
        if self.maybe(0.1):
            found["runtime_fraction"] = self.fraction()
        if self.maybe(0.04):
            found["grpc"] = {}
        return found, paths, kind, template

    def options(self, response):
        """Headers to add."""
        found = []
        for _ in range(self.random.randint(0, 3)):
            name = self.pick(["x-add", "x-one", "X-Two", "x-many", "x-fmt", "user-agent", "content-type", "x-fmt-2"] + (["server", "x-empty", "vary"] if response else ["cookie"]))
            option = {"header": {"key": name, "value": self.pick(FORMATS)}}
            if self.maybe(0.6):
                option["append_action"] = self.pick(HOW)
            if self.maybe(0.15):
                option["keep_empty_value"] = True
            found.append(option)
        return found

    def mutations(self, into, share=0.35):
        if self.maybe(share):
            into["request_headers_to_add"] = self.options(False)
        if self.maybe(share):
            into["response_headers_to_add"] = self.options(True)
        if self.maybe(share / 2):
            into["request_headers_to_remove"] = self.some(["x-one", "X-Two", "user-agent", "x-add", "accept", "cookie"], 2)
        if self.maybe(share / 2):
            into["response_headers_to_remove"] = self.some(["x-many", "server", "x-add", "date", "content-type", "set-cookie"], 2)

    def redirect(self):
        found = {}
        if self.maybe(0.4):
            found["host_redirect"] = self.pick(["new.test", "new.test:444", "[::1]:80"])
        if self.maybe(0.3):
            found["port_redirect"] = self.pick([80, 443, 8443])
        scheme = self.pick(["", "", "https", "scheme"])
        if scheme == "https":
            found["https_redirect"] = True
        elif scheme:
            found["scheme_redirect"] = self.pick(["https", "http", "HTTPS", "ws"])
        path = self.pick(["", "path_redirect", "prefix_rewrite", "regex_rewrite"])
        if path == "path_redirect":
            found[path] = self.pick(["/new", "/new?x=1", "new", "/new#frag"])
        elif path == "prefix_rewrite":
            found[path] = self.pick(["/", "/pre", "/pre/"])
        elif path:
            found[path] = self.substitution()
        if self.maybe(0.4):
            found["response_code"] = self.pick(["FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT", "MOVED_PERMANENTLY"])
        if self.maybe(0.25):
            found["strip_query"] = True
        return found

    def substitution(self):
        regex, text = self.pick([("^/a", "/z"), ("/([^/]+)/([^/]+)", "/\\2/\\1"), ("o+", "0"), ("^(.*)$", "\\1/end"), ("[A-Z]", "\\0\\0")])
        return {"pattern": {"regex": regex}, "substitution": text}

    def direct(self):
        found = {"status": self.pick([200, 204, 404, 503, 418, 301])}
        if self.maybe(0.7):
            found["body"] = {"inline_string": self.pick(["direct\n", "", "x" * 300])}
        return found

    def retry(self):
        found = {"retry_on": self.pick(["5xx", "gateway-error", "retriable-status-codes", "retriable-4xx", "retriable-headers", "5xx,retriable-4xx", "connect-failure,refused-stream", "unavailable,not-found", "reset", "envoy-ratelimited"])}
        if self.maybe(0.6):
            found["num_retries"] = self.pick([0, 1, 2, 4])
        found["retry_back_off"] = {"base_interval": "0.001s", "max_interval": "0.002s"}
        if self.maybe(0.2):
            found["per_try_timeout"] = self.pick(["1.5s", "4s", "20s"])
        if self.maybe(0.5):
            found["retriable_status_codes"] = [self.pick([409, 503, 404, 200])]
        if self.maybe(0.3):
            found["retriable_headers"] = [{"name": "x-retry", "string_match": {"exact": "yes"}}]
        if self.maybe(0.2):
            found["retriable_request_headers"] = [{"name": ":method", "string_match": {"exact": "GET"}}]
        return found

    def arm(self, weight):
        arm = {"weight": weight}
        if self.maybe(0.2):
            arm["cluster_header"] = "x-cluster"
        else:
            arm["name"] = self.pick(CLUSTERS[:2])
        if self.maybe(0.2):
            arm["host_rewrite_literal"] = "arm.test"
        self.mutations(arm)
        self.override(arm)
        return arm

    def forward(self, kind, template):
        found = {}
        how = self.pick(["cluster"] * 6 + ["header", "weighted", "weighted", "unknown"])
        if how == "cluster":
            found["cluster"] = self.pick(["h1"] * 6 + ["h2"] * 4 + ["none", "none", "full", "empty"])
        elif how == "header":
            found["cluster_header"] = self.pick(["x-cluster", "X-Cluster", ":authority"])
        elif how == "unknown":
            found["cluster"] = "no-such"
        else:
            arms = [self.arm(0), self.arm(100), self.arm(0)]
            found["weighted_clusters"] = {"clusters": arms[: self.random.randint(2, 3)]}
        if self.maybe(0.2):
            found["cluster_not_found_response_code"] = self.pick(["NOT_FOUND", "SERVICE_UNAVAILABLE", "INTERNAL_SERVER_ERROR"])
        rewrite = self.pick(["", "", "", "prefix_rewrite", "regex_rewrite", "path_rewrite", "template"])
        if rewrite == "prefix_rewrite" and kind != "connect" and kind != "template":
            found[rewrite] = self.pick(["/", "/new", "/new/", "/q?x=1"])
        elif rewrite == "regex_rewrite":
            found[rewrite] = self.substitution()
        elif rewrite == "path_rewrite" and self.maybe(0.5):
            found[rewrite] = self.pick(["/fixed", "/%REQ(x-one)%/z"])
        elif rewrite == "template" and template:
            found["path_rewrite_policy"] = {
                "name": "t",
                "typed_config": {"@type": TYPE + "extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": template},
            }
        self.host_rewrite(found)
        if self.maybe(0.15):
            found["timeout"] = self.pick(["5s", "0s"])
        if self.maybe(0.1):
            found["idle_timeout"] = "5s"
        if self.maybe(0.1):
            found["max_stream_duration"] = {"grpc_timeout_header_max": "0s", "max_stream_duration": "6s"}
        if self.maybe(0.35):
            found["retry_policy"] = self.retry()
        if self.maybe(0.15):
            found["priority"] = "HIGH"
        if self.maybe(0.15):
            found["internal_redirect_policy"] = self.internal_redirect()
        if self.maybe(0.1):
            found.update(self.grpc_timeout())
        if self.maybe(0.1) and found.get("cluster") in ("h1", "h2"):
            found["request_mirror_policies"] = self.mirror()
        if kind == "connect":
            found["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
        return found

    def grpc_timeout(self):
        found = {"max_grpc_timeout": self.pick(["0s", "0.5s", "30s"])}
        if self.maybe(0.5):
            found["grpc_timeout_offset"] = self.pick(["0.1s", "2s"])
        return found

    def mirror(self):
        self.mirrors = True
        found = []
        for cluster in self.pick([["shadow"], ["none"], ["shadow", "none"]]):
            one = {"cluster": cluster}
            if self.maybe(0.3):
                one["runtime_fraction"] = self.fraction()
            if self.maybe(0.3):
                one["disable_shadow_host_suffix_append"] = True
            found.append(one)
        return found

    def host_rewrite(self, found):
        kind = self.pick(["", "", "", "host_rewrite_literal", "host_rewrite_header", "host_rewrite_path_regex", "auto_host_rewrite", "host_rewrite"])
        if kind == "host_rewrite_literal":
            found[kind] = self.pick(["rewritten.test", "rewritten.test:99"])
        elif kind == "host_rewrite_header":
            found[kind] = self.pick(["x-num", "x-missing"])
        elif kind == "host_rewrite_path_regex":
            found[kind] = {"pattern": {"regex": "^/([^/?]*).*$"}, "substitution": "\\1.test"}
        elif kind == "auto_host_rewrite":
            if found.get("cluster") not in ("h1", "h2"):
                return
            found[kind] = True
        elif kind == "host_rewrite" and self.maybe(0.5):
            found[kind] = "%REQ(x-one)%.test"
        if kind and self.maybe(0.4):
            found["append_x_forwarded_host"] = True

    def internal_redirect(self):
        found = {}
        if self.maybe(0.5):
            found["max_internal_redirects"] = self.pick([0, 1, 3])
        if self.maybe(0.5):
            found["redirect_response_codes"] = self.pick([[301], [302, 303], [307, 308, 302]])
        if self.maybe(0.3):
            found["allow_cross_scheme_redirect"] = True
        if self.maybe(0.3):
            found["response_headers_to_copy"] = ["x-many", "X-Reason"]
        return found

    def metadata(self):
        return {"filter_metadata": {"com.test": {"key": self.pick(["val", 7, True, {"in": "ner"}, ["l", 1], 1.5])}}}

    def route(self):
        self.count += 1
        match, paths, kind, template = self.route_match()
        found = {"match": match}
        if self.maybe(0.8):
            found["name"] = f"route-{self.count}"
        does = self.pick(["route"] * 6 + ["redirect", "redirect", "direct_response"])
        if kind == "connect":
            does = "route"
        if does == "route":
            found["route"] = self.forward(kind, template)
        elif does == "redirect":
            found["redirect"] = self.redirect()
            if kind == "template" or kind == "safe_regex":
                found["redirect"].pop("prefix_rewrite", None)
        else:
            found["direct_response"] = self.direct()
        self.mutations(found)
        if self.maybe(0.3):
            found["metadata"] = self.metadata()
        if self.maybe(0.1):
            found["decorator"] = {"operation": self.pick(["op", "op two"])}
        self.override(found)
        return found, paths

    def override(self, into):
        found = {}
        if self.maybe(0.12):
            found["envoy.filters.http.cors"] = self.cors()
        if self.maybe(0.08):
            found["envoy.filters.http.fault"] = self.fault()
        if found:
            into["typed_per_filter_config"] = found

    def cors(self):
        found = {"@type": TYPE + "extensions.filters.http.cors.v3.CorsPolicy", "allow_origin_string_match": [self.pick([{"exact": "http://a.test"}, {"prefix": "http"}, {"safe_regex": {"regex": ".*\\.test"}}, {"exact": "*"}])]}
        if self.maybe(0.2):
            found["allow_origin_string_match"] = []
        for name, value in [("allow_methods", self.pick(["GET,PUT", "*"])), ("allow_headers", self.pick(["x-one", "*"])), ("expose_headers", "x-many"), ("max_age", "60"), ("allow_credentials", True), ("allow_private_network_access", True), ("forward_not_matching_preflights", False)]:
            if self.maybe(0.4):
                found[name] = value
        if self.maybe(0.15):
            found["filter_enabled"] = self.fraction()
        return found

    def fault(self):
        found = {"@type": TYPE + "extensions.filters.http.fault.v3.HTTPFault"}
        percentage = {"numerator": self.pick([0, 100]), "denominator": "HUNDRED"}
        if self.maybe(0.7):
            found["abort"] = {**self.pick([{"http_status": 555}, {"grpc_status": 14}, {"header_abort": {}}]), "percentage": percentage}
        if self.maybe(0.4):
            found["delay"] = {**self.pick([{"fixed_delay": "0.01s"}, {"header_delay": {}}]), "percentage": percentage}
        if self.maybe(0.3):
            found["headers"] = [self.header_matcher()]
        return found

    def domains(self, index):
        return [
            ["one.test", "ONE.other"],
            ["*.two.test", "two.test"],
            ["*.api.two.test", "three.test:8080", "two.test:*"],
            ["prefix.*"],
            ["*"],
        ][index]

    def virtual_host(self, index):
        routes, paths = [], []
        for _ in range(self.random.randint(2, 5)):
            route, some = self.route()
            routes.append(route)
            paths += some
        if self.maybe(0.5):
            routes.append({"match": {"prefix": "/"}, "name": f"rest-{index}", "route": {"cluster": self.pick(["h1", "h2"])}})
        found = {"name": f"host-{index}", "domains": self.domains(index)}
        if self.maybe(0.15):
            found["matcher"] = self.tree(routes)
        else:
            found["routes"] = routes
        if self.maybe(0.06):
            found["require_tls"] = self.pick(["ALL", "EXTERNAL_ONLY"])
        if self.maybe(0.3):
            found["virtual_clusters"] = [
                {"name": f"vc-{index}", "headers": [{"name": ":path", "string_match": {"prefix": "/a"}}]},
                {"name": "rest", "headers": [{"name": ":method", "string_match": {"exact": "POST"}}]},
            ]
        self.mutations(found)
        for flag in ("include_request_attempt_count", "include_attempt_count_in_response"):
            if self.maybe(0.3):
                found[flag] = True
        if self.maybe(0.1):
            found["retry_policy"] = self.retry()
        if self.maybe(0.2):
            found["metadata"] = self.metadata()
        self.override(found)
        return found, paths

    def tree(self, routes):
        """The routes as an xDS matcher."""

        def action(route):
            return {"action": {"name": "route", "typed_config": {"@type": TYPE + "config.route.v3.Route", **copy.deepcopy(route)}}}

        def header_input(name):
            return {"name": "h", "typed_config": {"@type": TYPE + "type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name}}

        if self.maybe(0.5):
            keys = ["a", "abc", "5", "yes", ""]
            kind = self.pick(["exact_match_map", "prefix_match_map"])
            table = {key: action(route) for key, route in zip(keys, routes) if key or kind == "prefix_match_map"}
            found = {"matcher_tree": {"input": header_input("x-one"), kind: {"map": table}}}
        else:
            found = {"matcher_list": {"matchers": [self.field_matcher(header_input, action(route)) for route in routes]}}
        if self.maybe(0.6):
            found["on_no_match"] = action(routes[-1])
        return found

    def field_matcher(self, header_input, on_match):
        def single():
            return {"single_predicate": {"input": header_input(self.pick(["x-one", "x-two", ":path", ":method"])), "value_match": self.string()}}

        kind = self.pick(["single", "single", "or_matcher", "and_matcher", "not_matcher"])
        if kind == "single":
            predicate = single()
        elif kind == "not_matcher":
            predicate = {kind: single()}
        else:
            predicate = {kind: {"predicate": [single(), single()]}}
        return {"predicate": predicate, "on_match": on_match}

    def route_config(self, name):
        hosts, paths = [], []
        for index in sorted(self.random.sample(range(5), self.random.randint(2, 4))):
            host, some = self.virtual_host(index)
            hosts.append(host)
            paths += some
        found = {"name": name, "virtual_hosts": hosts, "validate_clusters": False}
        self.mutations(found, 0.2)
        if self.maybe(0.3):
            found["most_specific_header_mutations_wins"] = True
        if self.maybe(0.15):
            found["ignore_port_in_host_matching"] = True
        if self.maybe(0.15):
            found["ignore_path_parameters_in_path_matching"] = True
        if self.maybe(0.1):
            found["internal_only_headers"] = ["x-one"]
        return found, paths

    def manager(self):
        """Fields of the connection manager beside the routes."""
        found = {}
        for share, name, values in [
            (0.5, "normalize_path", [True, False]),
            (0.3, "merge_slashes", [True]),
            (0.4, "path_with_escaped_slashes_action", ["REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD", "KEEP_UNCHANGED"]),
            (0.5, "use_remote_address", [True, False]),
            (0.3, "xff_num_trusted_hops", [1, 2]),
            (0.2, "skip_xff_append", [True]),
            (0.2, "via", ["1.1 mesh"]),
            (0.3, "server_header_transformation", ["APPEND_IF_ABSENT", "PASS_THROUGH", "OVERWRITE"]),
            (0.2, "server_name", ["play"]),
            (0.2, "generate_request_id", [False]),
            (0.3, "preserve_external_request_id", [True]),
            (0.3, "always_set_request_id_in_response", [True]),
            (0.3, "strip_matching_host_port", [True]),
            (0.15, "strip_trailing_host_dot", [True]),
            (0.2, "append_x_forwarded_port", [True]),
            (0.2, "stream_error_on_invalid_http_message", [True, False]),
            (0.2, "forward_client_cert_details", ["SANITIZE", "ALWAYS_FORWARD_ONLY", "FORWARD_ONLY", "APPEND_FORWARD"]),
            (0.2, "scheme_header_transformation", [{"scheme_to_overwrite": "https"}, {"scheme_to_overwrite": "http"}]),
            (0.2, "max_request_headers_kb", [1, 8]),
        ]:
            if self.maybe(share):
                found[name] = self.pick(values)
        if "strip_matching_host_port" not in found and self.maybe(0.2):
            found["strip_any_host_port"] = True
        if self.maybe(0.35):
            found["common_http_protocol_options"] = self.pick([{"headers_with_underscores_action": "REJECT_REQUEST"}, {"headers_with_underscores_action": "DROP_HEADER"}, {"max_headers_count": 40}, {"max_requests_per_connection": 1}])
        if self.maybe(0.35):
            found["http_protocol_options"] = self.pick(
                [
                    {"header_key_format": {"proper_case_words": {}}},
                    {"header_key_format": {"stateful_formatter": {"name": "p", "typed_config": {"@type": TYPE + "extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"}}}},
                    {"accept_http_10": True},
                    {"accept_http_10": True, "default_host_for_http_10": "one.test"},
                    {"allow_absolute_url": False},
                    {"enable_trailers": True},
                    {"allow_chunked_length": True},
                ]
            )
        if self.maybe(0.25):
            found["local_reply_config"] = self.local_reply()
        if self.maybe(0.2):
            found["internal_address_config"] = {"cidr_ranges": [{"address_prefix": self.pick(["127.0.0.0", "10.0.0.0"]), "prefix_len": 8}]}
        if self.maybe(0.1):
            found["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        return found

    def local_reply(self):
        found = {}
        if self.maybe(0.6):
            found["body_format"] = self.body_format()
        if self.maybe(0.8):
            mapper = {"filter": self.log_filter()}
            if self.maybe(0.5):
                mapper["status_code"] = self.pick([200, 418, 404])
            if self.maybe(0.4):
                mapper["body"] = {"inline_string": "mapped body"}
            if self.maybe(0.4):
                mapper["body_format_override"] = self.body_format()
            if self.maybe(0.4):
                mapper["headers_to_add"] = self.options(True)
            found["mappers"] = [mapper]
        return found

    def body_format(self):
        text = "%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%REQ(:path)%|%RESPONSE_FLAGS%|%RESPONSE_CODE_DETAILS%\n"
        found = self.pick([{"text_format_source": {"inline_string": text}}, {"json_format": {"code": "%RESPONSE_CODE%", "body": "%LOCAL_REPLY_BODY%", "n": {"path": "%REQ(:PATH)%", "none": "%REQ(x-missing)%"}, "l": ["%PROTOCOL%", "a %RESPONSE_CODE%"]}}])
        if self.maybe(0.3):
            found = {**found, "content_type": "text/html; charset=UTF-8"}
        return found

    def log_filter(self):
        code = {"comparison": {"op": self.pick(["EQ", "GE", "LE", "NE"]), "value": {"default_value": self.pick([404, 500, 503]), "runtime_key": "k"}}}
        return self.pick(
            [
                {"status_code_filter": code},
                {"header_filter": {"header": self.header_matcher()}},
                {"response_flag_filter": {"flags": ["NR", "UF"]}},
                {"not_health_check_filter": {}},
                {"and_filter": {"filters": [{"status_code_filter": code}, {"header_filter": {"header": self.header_matcher()}}]}},
                {"or_filter": {"filters": [{"status_code_filter": code}, {"response_flag_filter": {}}]}},
            ]
        )
