//! First-match route tables: host, path, headers and query as borrowed bytes.
//!
//! [`RouteTable::compile`] turns a route configuration into a table, [`RouteTable::decide`] a request head into a
//! [`Decision`]. What must change in the head and in the response is compiled into the decision's route.

mod compile;
mod cookie;
mod counted;
mod decision;
mod entry;
mod facts;
pub mod format;
mod hash;
mod head;
pub mod host;
mod index;
mod mutate;
pub mod path;
pub mod regex;
mod rewrite;
mod table;
mod template;
mod text;
mod tree;

pub(crate) use self::{
    counted::Counted, hash::ByteMap, mutate::stands_in_one_line, text::MetadataTest,
};
pub use self::{
    decision::{Decision, Forwarding, Redirection},
    entry::{
        Arm, CorsPolicy, FaultRules, FilterPolicy, FilterSetting, ForwardEntry, HostEntry,
        MirrorEntry, RetryRules, RouteEntry,
    },
    facts::write as write_connection_fact,
    head::{ConnectionFacts, Field, Head, Headers, Runtime},
    mutate::{HeadBuf, HeadMut, HeadersMut, Mutations},
    rewrite::HeadContext,
    table::RouteTable,
    text::{HeaderTest, TextMatcher, header_tests},
};

#[cfg(test)]
mod tests;
