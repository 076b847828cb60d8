//! `wan`: an emulated wide-area network on one machine, by hand. `docs/wan.md` has a worked example.
//!
//! * [`args`]: the command line. * [`up`]: runs a wan in the foreground; [`server`] does meanwhile what it is told.
//! * [`ctl`]: tells it. [`control`]: what is said between the two. * [`sites`]: commands at a site, and what was left over.
//!
//! It is *not* where the network is: that is `sterna_tests::wan`, which tests use without this program.

mod args;
mod control;
mod ctl;
mod server;
mod sites;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Up(up) => up::run(&up),
        Command::Ctl { socket, command } => ctl::run(&socket, &command),
        Command::Exec { prefix, site, command } => sites::exec(&prefix, &site, &command),
        Command::Clean { prefix } => sites::clean(&prefix),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wan: {error:#}");
            ExitCode::FAILURE
        }
    }
}
