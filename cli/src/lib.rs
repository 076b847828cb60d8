//! What the program `sterna` is made of. [`run`] reads the command line, sets up logging and picks the command; each
//! command is a module of its own:
//!
//! * `args`: the command line. `generate`: completions and the manual, from the same description.
//! * [`node`]: the node of a data directory, its making, and the migrator beside it. `admin`: the commands that a running node carries out.
//!   `vm`: those that a running migrator does. `call`: the connection to either, and what its errors mean.
//! * `console`: what every command prints, and how it is interrupted.
//! * `salvage`: volumes out of a data directory whose node cannot run.
//! * `image_file`: an image that has its name once it is complete.
//! * `nbd_serve`: files and disks in memory over NBD, without a node. `nbd_uri`, `socket`: what both servers need.
//!
//! It is *not* for other programs to build on. It is a library so that what reads a stranger's bytes can be fuzzed: that is
//! what is public.
//!
//! Exit codes: 0 done, 1 failed, 2 usage. Logs go to stderr (`STERNA_LOG`, in the form of `RUST_LOG`); stdout carries
//! what a command was asked for, and with `--json` nothing but that.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "no simulation runs a test"))]

mod admin;
mod args;
mod call;
mod console;
mod generate;
mod image_file;
mod nbd_serve;
mod nbd_uri;
pub mod node;
mod salvage;
mod socket;
mod vm;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;

use admin::Work;
use args::target::{NoTarget, Target};
use args::{Args, Command, NbdCommand};

/// Carries out the command line of this process. Returns how it is to end.
pub fn run() -> ExitCode {
    let Args { json, target, signer, command, .. } = Args::read();
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("STERNA_LOG").unwrap_or_else(|_| "info,openraft=warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let chosen = || chosen_node(target.clone());
    let ask = |work| admin::run(work, &chosen(), json);
    let result = match command {
        Command::Nbd { command: NbdCommand::Serve(serve) } => nbd_serve::run(serve, json),
        Command::Node { command } => node::command(command, json),
        Command::Cluster { command } => ask(Work::Cluster(command)),
        Command::Volume { command } => ask(Work::Volume(command)),
        Command::Vm { command } => vm::run(command, &chosen(), signer.as_deref(), json),
        Command::Migrator { command } => node::migrator::command(command, json),
        Command::Bucket { command } => ask(Work::Bucket(command)),
        Command::Gc => ask(Work::CollectGarbage),
        Command::Salvage(salvage) => salvage::run(&salvage, json),
        Command::Scrub(scrub) => ask(Work::Scrub(scrub.rate)),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { directory } => generate::manual(&directory, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sterna: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The node that was chosen. Which one is part of the command line: without it, that is what is wrong.
fn chosen_node(target: Option<Result<Target, NoTarget>>) -> Target {
    target.unwrap_or(Err(NoTarget::Nothing)).unwrap_or_else(|error| {
        let kind = match error {
            NoTarget::Nothing | NoTarget::NoIdentity => ErrorKind::MissingRequiredArgument,
            NoTarget::Both => ErrorKind::ArgumentConflict,
        };
        Args::wrong(kind, error)
    })
}
