//! Compares our regular expressions with RE2's verdicts: `re2 TABLE`, a file that `interop/python/re2_table.py` wrote.

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use mesh_core::route::regex::{Program, Substitution};
use serde::Deserialize;

/// How many differences are printed.
const SHOWN: usize = 40;

/// Compare with RE2's verdicts; exit 1 if any differs.
#[derive(Debug, Parser)]
struct Args {
    /// The table
    table: std::path::PathBuf,
}

/// A pattern and what RE2 says of it.
#[derive(Debug, Deserialize)]
struct Row {
    pattern: String,
    valid: bool,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    /// Bytes in hexadecimal digits.
    input: String,
    /// Whether the whole input matches.
    full: bool,
    /// A global replacement by `<\1>`, in hexadecimal digits.
    replaced: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let rows: Result<Vec<Row>, String> = fs::read_to_string(&args.table)
        .map_err(|error| error.to_string())
        .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("error: {}: {error}", args.table.display());
            return ExitCode::from(2);
        }
    };
    let with = match Substitution::parse(r"<\1>") {
        Ok(with) => with,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let mut differences = Vec::new();
    for row in &rows {
        compare(row, &with, &mut differences);
    }
    for difference in differences.iter().take(SHOWN) {
        println!("{difference}");
    }
    let verdicts: usize = rows.iter().map(|row| 1 + row.cases.len()).sum();
    println!(
        "{} patterns, {verdicts} verdicts, {} differ from RE2",
        rows.len(),
        differences.len()
    );
    if differences.is_empty() && verdicts > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn compare(row: &Row, with: &Substitution, differences: &mut Vec<String>) {
    let pattern = &row.pattern;
    let program = match (Program::compile(pattern), row.valid) {
        (Ok(program), true) => program,
        (Err(_), false) => return,
        (Ok(_), false) => return differences.push(format!("{pattern:?}: taken, RE2 refuses it")),
        (Err(error), true) => {
            return differences.push(format!(
                "{pattern:?}: refused ({}), RE2 takes it",
                error.reason
            ));
        }
    };
    for case in &row.cases {
        let Some(input) = bytes(&case.input) else {
            differences.push(format!("{pattern:?}: {:?} is not hexadecimal", case.input));
            continue;
        };
        let shown = String::from_utf8_lossy(&input);
        let seen = program.is_match(&input);
        if seen != case.full {
            differences.push(format!(
                "{pattern:?} on {shown:?}: RE2 says {}, we say {seen}",
                case.full
            ));
        }
        let Some(wanted) = case.replaced.as_deref().and_then(bytes) else {
            continue;
        };
        let replaced = program.replace_all(&input, with);
        if *replaced != *wanted {
            let (wanted, replaced) = (
                String::from_utf8_lossy(&wanted),
                String::from_utf8_lossy(&replaced),
            );
            differences.push(format!(
                "{pattern:?} on {shown:?}: RE2 makes {wanted:?}, we make {replaced:?}"
            ));
        }
    }
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
