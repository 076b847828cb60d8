//! `sterna nbd serve`: raw files and scratch disks over NBD, without a node.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sterna_nbd_server::export::FixedCatalog;
use sterna_nbd_server::tls::TlsFiles;
use sterna_nbd_server::{Export, ExportMode, ExportName, Listener, NbdServer, ServerConfig, TlsPolicy, activation};
use sterna_types::device::{FileAccess, FileDevice, MemoryDevice};
use sterna_types::{BlockDevice, ByteSize};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::nbd::{Mode, Serve, TlsUse};
use crate::{nbd_uri, socket};

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(serve: Serve, json: bool) -> Result<()> {
    let exports = exports(&serve)?;
    let tls = tls_policy(&serve, &exports)?;
    let (mut addresses, mut sockets) = (Vec::new(), Sockets::default());
    let listeners = listeners(&serve, &mut addresses, &mut sockets)?;
    let offers = offers(&exports, &addresses);
    let config = ServerConfig { lanes: usize::from(serve.lanes), ..ServerConfig::new(Arc::new(FixedCatalog(exports))) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let server = Arc::new(NbdServer::start(config)?);
        for listener in listeners {
            server.listen(listener, tls.clone())?;
        }
        announce(&offers, json)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down: requests in flight finish first; a second signal ends it at once");
        tokio::select! {
            () = server.shutdown() => {}
            _ = terminate.recv() => bail!("ended before all connections were closed"),
            _ = interrupt.recv() => bail!("ended before all connections were closed"),
        }
        tracing::info!(counters = ?server.counters().values(), "done");
        Ok(())
    });
    drop(sockets);
    result
}

/// The sockets that were made, which are removed at the end, whichever end that is.
#[derive(Default)]
struct Sockets(Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn exports(serve: &Serve) -> Result<Vec<Export>> {
    let mut exports: Vec<Export> = Vec::new();
    let access = if serve.mode == Mode::ReadWrite { FileAccess::ReadWrite } else { FileAccess::ReadOnly };
    let mut add = |name: String, device: Arc<dyn BlockDevice>| {
        let requires_tls = serve.tls_only.contains(&name);
        let name = ExportName::try_from(name.as_bytes()).with_context(|| format!("'{name}' cannot name an export"))?;
        if name.as_str().is_empty() || exports.iter().any(|export| export.name == name) {
            bail!("two exports are called '{name}': name one of them, as in --file NAME=PATH");
        }
        let mode = match serve.mode {
            Mode::ReadWrite => ExportMode::ReadWrite,
            Mode::ReadOnly => ExportMode::ReadOnly,
            Mode::Standby => ExportMode::Standby,
        };
        exports.push(Export { name, description: serve.description.clone(), mode, requires_tls, device });
        Ok(())
    };
    for file in &serve.file {
        let own_name = || file.value.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = file.name.clone().or_else(own_name).context("a path to serve ends with the name of a file")?;
        let device = FileDevice::open(&file.value, access)?;
        add(name, Arc::new(device))?;
    }
    for memory in &serve.memory {
        let name = memory.name.clone().unwrap_or_else(|| "memory".to_owned());
        add(name, Arc::new(MemoryDevice::new(memory.value)))?;
    }
    if let Some(unknown) = serve.tls_only.iter().find(|name| !exports.iter().any(|e| e.name.as_str() == name.as_str()))
    {
        bail!("--tls-only {unknown}: there is no such export");
    }
    Ok(exports)
}

fn tls_policy(serve: &Serve, exports: &[Export]) -> Result<TlsPolicy> {
    let open = serve.listen.iter().find(|address| !address.ip().is_loopback());
    let (Some(certificate), Some(key)) = (serve.tls_cert.clone(), serve.tls_key.clone()) else {
        if let Some(open) = open {
            bail!("{open} can be reached from other machines: give --tls-cert and --tls-key, or a loopback address");
        }
        return Ok(TlsPolicy::Off);
    };
    let in_the_clear = exports.iter().find(|export| serve.tls == TlsUse::Offered && !export.requires_tls);
    if let (Some(open), Some(export)) = (open, in_the_clear) {
        let name = &export.name;
        bail!(
            "{open} can be reached from other machines, and {name} without TLS: leave out --tls=offered, or give --tls-only {name}"
        );
    }
    let config = TlsFiles { certificate, key, client_ca: serve.tls_client_ca.clone() }.load()?;
    Ok(match serve.tls {
        TlsUse::Required => TlsPolicy::Required(config),
        TlsUse::Offered => TlsPolicy::Offered(config),
    })
}

/// An address in the form that goes into a URI.
enum Address {
    Unix(PathBuf),
    Tcp(std::net::SocketAddr),
}

fn listeners(serve: &Serve, addresses: &mut Vec<Address>, sockets: &mut Sockets) -> Result<Vec<Listener>> {
    let mut listeners = activation::inherited_listeners().context("a socket that was handed over cannot be used")?;
    let inherited = listeners.len();
    for path in &serve.socket {
        listeners.push(Listener::Unix(socket::unix_listener(path)?));
        sockets.0.push(path.clone());
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        addresses.push(Address::Unix(absolute));
    }
    for &address in &serve.listen {
        let listener = socket::tcp_listener(address)?;
        addresses.push(Address::Tcp(listener.local_addr()?));
        listeners.push(Listener::Tcp(listener));
    }
    if listeners.is_empty() {
        bail!("nothing to listen on: give --socket PATH or --listen ADDRESS:PORT");
    }
    if inherited > 0 {
        tracing::info!(inherited, "serving on sockets that were handed over");
    }
    Ok(listeners)
}

/// What is told when the server is ready.
#[derive(Serialize)]
struct Offer {
    export: String,
    size_bytes: u64,
    read_only: bool,
    uris: Vec<String>,
}

fn offers(exports: &[Export], addresses: &[Address]) -> Vec<Offer> {
    let offer = |export: &Export| Offer {
        export: export.name.to_string(),
        size_bytes: export.device.geometry().size.0,
        read_only: export.is_read_only(),
        uris: addresses.iter().map(|address| uri(address, export.name.as_str())).collect(),
    };
    exports.iter().map(offer).collect()
}

fn uri(address: &Address, export: &str) -> String {
    match address {
        Address::Unix(path) => nbd_uri::unix(path, export),
        Address::Tcp(address) => nbd_uri::tcp(*address, export),
    }
}

/// Says on stdout where the exports are. On sockets that were handed over, whoever did so knows, and stdout may be theirs.
fn announce(offers: &[Offer], json: bool) -> Result<()> {
    for offer in offers {
        if offer.uris.is_empty() {
            tracing::info!(export = offer.export, size_bytes = offer.size_bytes, "serving");
        } else if json {
            println!("{}", serde_json::to_string(offer)?);
        } else {
            let size = ByteSize(offer.size_bytes);
            println!("{} ({size}): {}", offer.export, offer.uris.join(", "));
        }
    }
    Ok(())
}
