//! `/`: the pages, for people.

use std::fmt::Write as _;

use super::help::PAGES;

/// A table of all pages: links to what only reads, buttons for what changes something.
pub(super) fn home() -> String {
    let mut rows = String::new();
    for page in PAGES {
        let path = page.path;
        let cell = match page.post {
            true => {
                format!("<form action=\"{path}\" method=\"post\"><button>{path}</button></form>")
            }
            false => format!("<a href=\"{path}\">{path}</a>"),
        };
        let _ = writeln!(rows, "<tr><td>{cell}</td><td>{}</td></tr>", page.what);
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>meshd</title></head>\n<body>\n<table>\n<thead><tr><th>Command</th><th>Description</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</body>\n</html>\n"
    )
}
