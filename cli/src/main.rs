//! The program `sterna`. This file reads the command line, sets up logging and picks the command; each command is a
//! module of its own.
//!
//! Exit codes: 0 done, 1 failed, 2 usage. Logs go to stderr (`STERNA_LOG`, in the form of `RUST_LOG`); stdout carries
//! what a command was asked for, and with `--json` nothing but that.

mod args;
mod nbd_serve;
mod socket;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, NbdCommand};

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("STERNA_LOG").unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let result = match args.command {
        Command::Nbd { command: NbdCommand::Serve(serve) } => nbd_serve::run(serve, args.json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sterna: {error:#}");
            ExitCode::FAILURE
        }
    }
}
