//! The mesh's data plane program as a library: `meshd` is a thin `main` over [`main_with_args`], and a program that
//! wants to start proxies of its own (the bookinfo demo) runs itself again with the same arguments.

mod admin;
mod cli;
mod lifecycle;
mod listeners;
mod log;
mod run;
mod source;
mod stats;
mod traffic;
mod worker;

use std::{ffi::OsString, io, process::ExitCode};

use mesh_core::config::Rejection;

/// Runs `meshd` with a command line (the program's name first) until it is told to end.
///
/// Exit codes: 0 after a drain on SIGTERM or SIGINT, and on `/quitquitquit`, which waits for nobody; 1 if it could not start
/// or a part of it failed; 2 for a wrong command line.
pub fn main_with_args(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match cli::parse(args) {
        Ok(options) => options,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            if error.use_stderr() {
                let _ = error.print();
                return ExitCode::from(2);
            }
            let text = error.render().to_string();
            match text.strip_prefix("error: ") {
                // clap takes a text of ours for an error.
                Some(text) => print!("{text}"),
                None => drop(error.print()),
            }
            return ExitCode::SUCCESS;
        }
    };
    match run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("meshd: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Why the program ended with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A socket could not be opened.
    #[error("{what} cannot listen on {address}: {source}")]
    Bind {
        /// Which listener.
        what: String,
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The first configuration was refused.
    #[error("the configuration is refused:{}", list(.0))]
    Refused(Vec<Rejection>),
    /// The configuration could not be read.
    #[error("{0}")]
    Source(String),
    /// A thread or a file could not be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A part ended that must not.
    #[error("{0} ended unexpectedly")]
    Ended(String),
}

fn list(rejections: &[Rejection]) -> String {
    rejections
        .iter()
        .map(|rejection| format!("\n  {rejection}"))
        .collect()
}
