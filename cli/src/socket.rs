//! Sockets to listen on.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;

/// A Unix socket at `path` that only this user may connect to. One that a dead process left behind is replaced.
pub(crate) fn unix_listener(path: &Path) -> Result<UnixListener> {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            bail!("{} is there already and is no socket: give another path", path.display());
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).with_context(|| format!("cannot replace the dead socket {}", path.display()))?;
            }
            _ => bail!("another process listens on {}: stop it, or give another path", path.display()),
        }
    }
    // The socket is made with its permissions: there is no moment at which others could connect.
    let usual = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(usual);
    listener.with_context(|| format!("cannot listen on {}", path.display()))
}

/// A TCP socket at `address`.
pub(crate) fn tcp_listener(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}
