//! What is served, under which name.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use sterna_types::BlockDevice;

use crate::client::Client;
use crate::limits::MAX_STRING_BYTES;
use crate::wire::transmission_flag as flag;

/// The name of an export as clients say it: UTF-8 of at most 4,096 bytes without NUL. The empty name asks for the default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExportName(String);

/// Bytes that no export can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an export's name is UTF-8 of at most {MAX_STRING_BYTES} bytes without NUL")]
pub struct InvalidExportName;

impl TryFrom<&[u8]> for ExportName {
    type Error = InvalidExportName;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidExportName)?;
        if text.len() > MAX_STRING_BYTES as usize || text.contains('\0') {
            return Err(InvalidExportName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl ExportName {
    /// The name as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line about an export for people: at most 4,096 bytes without NUL, as every string of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description(String);

/// A text that cannot describe an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a description has at most {MAX_STRING_BYTES} bytes and no NUL")]
pub struct InvalidDescription;

impl FromStr for Description {
    type Err = InvalidDescription;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() <= MAX_STRING_BYTES as usize && !text.contains('\0');
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidDescription) }
    }
}

impl Description {
    /// The description as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client may do with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportMode {
    /// Everything that its device does.
    ReadWrite,
    /// Reading; clients are told before they begin.
    ReadOnly,
    /// Reading for now: the export looks writable, because hypervisors refuse to open a read-only one for a VM that is
    /// still to arrive, and answers EPERM to each write.
    Standby,
}

/// A device with the name and the terms it is served under.
#[derive(Clone, Debug)]
pub struct Export {
    /// The name that it is listed with.
    pub name: ExportName,
    /// A line for people.
    pub description: Option<Description>,
    /// What clients may do.
    pub mode: ExportMode,
    /// Whether it is served over TLS only, where TLS is otherwise the client's choice.
    pub requires_tls: bool,
    /// Where its bytes are.
    pub device: Arc<dyn BlockDevice>,
}

impl Export {
    /// Whether changes are refused, and the client told so beforehand.
    pub fn is_read_only(&self) -> bool {
        match self.mode {
            ExportMode::ReadWrite => self.device.geometry().read_only,
            ExportMode::ReadOnly => true,
            ExportMode::Standby => false,
        }
    }

    /// The transmission flags that do not depend on what was negotiated.
    pub fn base_flags(&self) -> u16 {
        let geometry = self.device.geometry();
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
        if self.is_read_only() {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_TRIM | flag::SEND_WRITE_ZEROES;
            if geometry.can_judge_fast_zeroes {
                flags |= flag::SEND_FAST_ZERO;
            }
        }
        if geometry.rotational {
            flags |= flag::ROTATIONAL;
        }
        flags
    }
}

/// A line of the list of exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportListing {
    /// The export's name.
    pub name: ExportName,
    /// A line for people.
    pub description: Option<Description>,
    /// Whether it is hidden from clients without TLS.
    pub requires_tls: bool,
}

/// What a [`Catalog`] answers with.
pub type CatalogFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who knows the exports of a server.
pub trait Catalog: Send + Sync + 'static {
    /// All exports that this client may have, in the order they are to be listed.
    fn list<'a>(&'a self, client: &'a Client) -> CatalogFuture<'a, Vec<ExportListing>>;

    /// The export of this name on the terms that this client may have it on, the default one for the empty name; `None` where
    /// there is none, or none for this client: nobody learns what there is for others.
    fn find<'a>(&'a self, client: &'a Client, name: &'a ExportName) -> CatalogFuture<'a, Option<Export>>;
}

/// A catalog that never changes and is for everybody; its first export is the default.
#[derive(Clone, Debug, Default)]
pub struct FixedCatalog(pub Vec<Export>);

impl Catalog for FixedCatalog {
    fn list<'a>(&'a self, _: &'a Client) -> CatalogFuture<'a, Vec<ExportListing>> {
        let listing = |export: &Export| ExportListing {
            name: export.name.clone(),
            description: export.description.clone(),
            requires_tls: export.requires_tls,
        };
        Box::pin(async move { self.0.iter().map(listing).collect() })
    }

    fn find<'a>(&'a self, _: &'a Client, name: &'a ExportName) -> CatalogFuture<'a, Option<Export>> {
        Box::pin(async move {
            let named = self.0.iter().find(|export| export.name == *name);
            named.or_else(|| self.0.first().filter(|_| name.as_str().is_empty())).cloned()
        })
    }
}
