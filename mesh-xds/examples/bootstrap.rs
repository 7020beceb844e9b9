//! Reads an Envoy bootstrap file and prints what it holds, what was refused, and what reading it cost.
//!
//! `cargo run -p mesh-xds --example bootstrap -- envoy.yaml`

use std::{process::ExitCode, time::Instant};

use mesh_core::config::Change;
use mesh_xds::file::FileSource;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: bootstrap FILE");
        return ExitCode::from(2);
    };
    let before = resident();
    let begin = Instant::now();
    let source = match FileSource::open(path) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let took = begin.elapsed();
    let Some(update) = source.first() else {
        return ExitCode::SUCCESS;
    };
    let count = |wanted: fn(&Change) -> bool| {
        update
            .changes
            .iter()
            .filter(|change| wanted(change))
            .count()
    };
    println!(
        "{} clusters, {} listeners, {} notes",
        count(|change| matches!(change, Change::Cluster(_))),
        count(|change| matches!(change, Change::Listener(_))),
        update.notes.len()
    );
    for note in &update.notes {
        println!("{}: {}: {}", note.resource, note.path, note.reason);
    }
    for rejection in &update.rejections {
        println!("{rejection}");
    }
    println!("{took:?}, {} KiB before, {} KiB after", before, resident());
    ExitCode::from(u8::from(!update.rejections.is_empty()))
}

/// Resident memory in KiB; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
