//! The sockets of a running node.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sterna_nbd_server::{Listener, activation};

use super::config::NbdConfig;
use super::directory::DataDirectory;
use crate::{nbd_uri, socket};

/// The sockets of a running node. Those that are files are removed when this is dropped, whichever end that is.
#[derive(Debug)]
pub(super) struct Sockets {
    nbd: Vec<Listener>,
    admin: Option<UnixListener>,
    peers: Option<TcpListener>,
    uris: Vec<String>,
    files: Files,
}

#[derive(Debug, Default)]
struct Files(Vec<PathBuf>);

impl Sockets {
    /// Binds `nbd.sock`, `admin.sock`, the configured TCP addresses and that for other nodes, and takes what systemd has handed over. Clients can
    /// connect from now on, and wait.
    ///
    /// # Errors
    /// Which cannot be bound, and why.
    pub(super) fn bind(directory: &DataDirectory, config: &NbdConfig, peers: Option<SocketAddr>) -> Result<Self> {
        let nbd = activation::inherited_listeners().context("a socket that was handed over cannot be used")?;
        let mut sockets = Self { nbd, admin: None, peers: None, uris: Vec::new(), files: Files::default() };
        let path = directory.nbd_socket();
        sockets.nbd.push(Listener::Unix(sockets.files.bind(&path)?));
        sockets.uris.push(nbd_uri::unix(&path, ""));
        for &address in &config.listen {
            let listener = socket::tcp_listener(address)?;
            sockets.uris.push(nbd_uri::tcp(listener.local_addr()?, ""));
            sockets.nbd.push(Listener::Tcp(listener));
        }
        sockets.peers = peers.map(socket::tcp_listener).transpose().context("[cluster] listen")?;
        sockets.admin = Some(sockets.files.bind(&directory.admin_socket())?);
        Ok(sockets)
    }

    /// Where NBD clients connect; the name of a volume goes behind the last '/' of the path.
    pub(super) fn uris(&self) -> Vec<String> {
        self.uris.clone()
    }

    /// The sockets for NBD clients, for whoever serves them.
    pub(super) fn take_nbd(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.nbd)
    }

    /// The socket for other nodes, for whoever serves them; none where the node is alone.
    pub(super) fn take_peers(&mut self) -> Option<TcpListener> {
        self.peers.take()
    }

    /// The socket for administrators, for whoever serves it.
    pub(super) fn take_admin(&mut self) -> Option<UnixListener> {
        self.admin.take()
    }
}

impl Files {
    fn bind(&mut self, path: &std::path::Path) -> Result<UnixListener> {
        let listener = socket::unix_listener(path)?;
        self.0.push(path.to_owned());
        Ok(listener)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            // It may have been removed by hand.
            let _ = std::fs::remove_file(path);
        }
    }
}
