//! First-match route tables: host, path, headers and query as borrowed bytes.

pub mod regex;
