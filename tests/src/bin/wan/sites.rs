//! `wan exec` and `wan clean`: what is done with namespaces by their names, whether or not a wan is running.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;
use sterna_tests::wan::{Leftovers, Prefix, command_inside, namespace_name};

/// Becomes a command at a site; its exit code is ours.
///
/// # Errors
/// There is no such site, or the command cannot be run.
pub(crate) fn exec(prefix: &Prefix, site: &str, command: &[OsString]) -> Result<()> {
    ensure_root()?;
    let name = namespace_name(prefix, site);
    let Leftovers { in_use, .. } = Leftovers::of(prefix)?;
    let there_are = if in_use.is_empty() { "none".to_owned() } else { in_use.join(", ") };
    ensure!(in_use.contains(&name), "no wan has a namespace '{name}'; with this prefix there are: {there_are}");
    let (program, args) = command.split_first().context("there is no command")?;
    let error = command_inside(&name, program).args(args).exec();
    Err(error).context("cannot run `ip netns exec`: is iproute2 installed?")
}

/// Removes what a wan that was killed has left, and says what that was.
///
/// # Errors
/// A wan with this prefix is running, or something cannot be removed.
pub(crate) fn clean(prefix: &Prefix) -> Result<()> {
    ensure_root()?;
    let leftovers = Leftovers::of(prefix)?;
    let in_use = leftovers.in_use.join(", ");
    ensure!(in_use.is_empty(), "a wan with the prefix '{prefix}' is running (it has {in_use}): end it with SIGTERM");
    let mut stdout = std::io::stdout().lock();
    for name in leftovers.remove()? {
        writeln!(stdout, "removed the namespace {name}")?;
    }
    Ok(())
}

fn ensure_root() -> Result<()> {
    ensure!(geteuid().is_root(), "network namespaces need root: run this as root, or through sudo");
    Ok(())
}
