//! `sterna nbd`: disks over NBD, without a node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Subcommand, ValueEnum};
use sterna_nbd_server::export::Description;
use sterna_types::ByteSize;

#[derive(Debug, Subcommand)]
pub(crate) enum NbdCommand {
    /// Serve raw files, block devices and scratch disks in memory to NBD clients.
    ///
    /// The first export is the default one. Sockets that systemd hands over (LISTEN_FDS) are served too. SIGTERM and
    /// SIGINT end it in good order: requests in flight finish, later ones are answered with ESHUTDOWN.
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("disk").required(true).multiple(true))]
pub(crate) struct Serve {
    /// Serve a raw file or block device. Its export is called NAME, else as the file is.
    #[arg(long, value_name = "[NAME=]PATH", group = "disk")]
    pub(crate) file: Vec<Named<PathBuf>>,

    /// Serve a disk in memory that reads as zeroes at first and is gone at the end, such as scratch=20G.
    #[arg(long, value_name = "[NAME=]SIZE", group = "disk")]
    pub(crate) memory: Vec<Named<ByteSize>>,

    /// What clients may do: standby reads, refuses each write, and looks writable, as a hypervisor needs it that waits
    /// for a VM to arrive.
    #[arg(long, value_enum, default_value_t = Mode::ReadWrite)]
    pub(crate) mode: Mode,

    /// A line about the exports for people, shown by clients.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<Description>,

    /// Listen on a Unix socket, which only this user may connect to.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Vec<PathBuf>,

    /// Listen on a TCP address, such as 127.0.0.1:10809. Without TLS only loopback addresses are taken.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Vec<SocketAddr>,

    /// The server's certificate, with the chain behind it (PEM): clients may, or have to, use TLS.
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM).
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The authority that clients' certificates have to be from (PEM); without it clients need none.
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Whether clients have to use TLS: all of them, or for each export as it is listed in --tls-only.
    #[arg(long, value_enum, default_value_t = TlsUse::Required, requires = "tls_cert")]
    pub(crate) tls: TlsUse,

    /// With --tls=offered, serve this export over TLS only.
    #[arg(long, value_name = "NAME", requires = "tls_cert")]
    pub(crate) tls_only: Vec<String>,

    /// How many threads serve connections; 0 for one per processor.
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) lanes: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    ReadWrite,
    ReadOnly,
    Standby,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsUse {
    /// Every client.
    Required,
    /// Those that want to, and those of the exports that insist.
    Offered,
}

/// A thing with the name it was given, as in `root=/var/lib/disk.raw`.
#[derive(Clone, Debug)]
pub(crate) struct Named<T> {
    pub(crate) name: Option<String>,
    pub(crate) value: T,
}

impl<T: FromStr> FromStr for Named<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A path may hold a '='; a name holds no '/', so what is in front of a '/' is no name.
        let named = text.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        match named {
            Some((name, value)) => Ok(Self { name: Some(name.to_owned()), value: value.parse()? }),
            None => Ok(Self { name: None, value: text.parse()? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_be_named() {
        let named: Named<PathBuf> = "root=/disks/a=b.raw".parse().expect("a named path");
        assert_eq!((named.name.as_deref(), named.value), (Some("root"), PathBuf::from("/disks/a=b.raw")));
        let plain: Named<PathBuf> = "/disks/a=b.raw".parse().expect("a path");
        assert_eq!((plain.name.as_deref(), plain.value), (None, PathBuf::from("/disks/a=b.raw")));
        assert!("scratch=20X".parse::<Named<ByteSize>>().is_err());
    }
}
