//! `mutations`: puts each deliberate fault of `tests/mutations.toml` into a copy of the tree, and sees that it is found.
//! `scripts/mutations` makes the copy, builds this and runs it.
//!
//! It is *not* where the faults are tried: that is `sterna_tests::mutations`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use sterna_tests::mutations::{self, Caught};

/// Puts each deliberate fault into a copy of the tree, by itself, and has it looked for there. Prints a row of a table for each.
#[derive(Debug, Parser)]
#[command(name = "mutations")]
struct Args {
    /// A copy of the tree, which nobody else uses.
    copy: PathBuf,
    /// Only the faults whose names contain one of these.
    names: Vec<String>,
    /// Show how each comes to light, step by step.
    #[arg(long)]
    steps: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutations: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all were found.
fn run(Args { copy, names, steps }: &Args) -> Result<bool> {
    let mut all = mutations::listed(copy)?;
    all.retain(|mutation| names.is_empty() || names.iter().any(|name| mutation.name.contains(name)));
    ensure!(!all.is_empty(), "no fault has such a name: {names:?}");
    println!("| fault | what does not hold with it | steps | found in |\n|---|---|--:|---|");
    let mut survivors = Vec::new();
    for mutation in &all {
        let name = &mutation.name;
        let Some(Caught { found_in, violated, steps: how }) = mutation.try_in(copy)? else {
            println!("| {name} | **nothing was found** | | |");
            survivors.push(name);
            continue;
        };
        println!("| {name} | {violated} | {} | {found_in} |", how.len());
        if *steps {
            (1..).zip(how).for_each(|(number, step)| println!("    {number:2} {step}"));
        }
    }
    println!("\n{} faults, {} not found", all.len(), survivors.len());
    Ok(survivors.is_empty())
}
