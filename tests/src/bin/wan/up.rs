//! `wan up`: a wan in the foreground.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use sterna_tests::wan::{Offload, Topology, Wan};

use crate::args::{DEFAULT_PREFIX, Up};
use crate::server::{Control, Signals, serve};

/// Runs a wan until a signal ends it.
///
/// # Errors
/// The topology is not one, the wan cannot be started, or it fails.
pub(crate) fn run(up: &Up) -> Result<()> {
    let topology = read(up)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // First, so that a signal that comes early finds everything removed too.
        let mut signals = Signals::catch()?;
        let control = up.control.as_deref().map(Control::listen).transpose()?;
        let wan = Wan::start(topology)?;
        announce(&wan)?;
        serve(&wan, control.as_ref(), &mut signals).await?;
        wan.stop()
    })
}

fn read(up: &Up) -> Result<Topology> {
    let path = up.topology.display();
    let text = fs::read_to_string(&up.topology).with_context(|| format!("cannot read {path}"))?;
    let mut topology = Topology::parse(&text).with_context(|| format!("{path} is not a topology"))?;
    let by_itself = if topology.prefix().is_none() { DEFAULT_PREFIX.parse().ok() } else { None };
    if let Some(prefix) = up.prefix.clone().or(by_itself) {
        topology = topology.with_prefix(prefix);
    }
    Ok(if up.no_offload { topology.with_offload(Offload::Off) } else { topology })
}

fn announce(wan: &Wan) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for site in wan.report()?.sites {
        writeln!(stdout, "{}: namespace {}, address {}", site.name, site.namespace, site.address)?;
    }
    writeln!(stdout, "the wan is up, until SIGINT or SIGTERM")?;
    Ok(())
}
