//! What is made of the description of the command line: completions, and the manual.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;

/// Prints a script that completes commands in `shell`.
///
/// # Errors
/// Standard output takes no more.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), PROGRAM, &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// Writes the manual to a directory, a page for each command, and says where.
///
/// # Errors
/// The directory cannot be made or written.
pub(crate) fn manual(directory: &Path, json: bool) -> Result<()> {
    let shown = directory.display();
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {shown}"))?;
    let command = Args::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).with_context(|| format!("cannot write the manual to {shown}"))?;
    if json {
        println!("{}", serde_json::json!({ "directory": directory }));
    } else {
        println!("the manual is in {shown}: man -l {shown}/{PROGRAM}.1");
    }
    Ok(())
}

const PROGRAM: &str = "sterna";
