//! `tidy`: what this repository demands of itself and neither rustc nor clippy can check.
//!
//! * [`repo`] reads the files, [`source`] and [`manifest`] take Rust files and `Cargo.toml`s apart, [`finding`] is what
//!   a check reports.
//! * One module for each check: [`layers`], [`sizes`], [`functions`], [`pins`], [`headers`], [`links`], [`named_tests`],
//!   [`leftovers`], [`machine_paths`].
//!
//! Prints one line for each finding, `path:line: what; how to mend it`. Ends with 0 if none of them is a failure, with 1
//! if one is, with 2 if it could not look. It is *not* a parser: it relies on rustfmt's layout, which the gate has
//! checked before.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    finding::{Finding, Severity},
    repo::Repo,
};

mod finding;
mod functions;
mod headers;
mod layers;
mod leftovers;
mod links;
mod machine_paths;
mod manifest;
mod named_tests;
mod pins;
mod repo;
mod sizes;
mod source;

fn main() -> ExitCode {
    match run() {
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}");
            }
            let failed = findings.iter().any(|finding| finding.severity == Severity::Failure);
            ExitCode::from(u8::from(failed))
        }
        Err(error) => {
            eprintln!("tidy: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs every check on the repository around the working directory; the findings come ordered by path and line.
fn run() -> Result<Vec<Finding>> {
    let repo = Repo::open()?;
    let mut findings = layers::check(&repo, &layers::cargo_metadata(&repo)?)?;
    for check in CHECKS {
        findings.extend(check(&repo));
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings)
}

/// The checks that need nothing but the files.
const CHECKS: [fn(&Repo) -> Vec<Finding>; 8] = [
    sizes::check,
    functions::check,
    pins::check,
    headers::check,
    links::check,
    named_tests::check,
    leftovers::check,
    machine_paths::check,
];
