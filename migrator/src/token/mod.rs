//! Migration tokens: what an operator allows, for one migration of one VM, so that whoever commands a host, or has its certificate, does not
//! move VMs by that alone.
//!
//! A [`MigrationToken`] names the VM, all of its volumes with their epochs, where it is and where it goes, a window of time and a rate. The
//! operator signs it with the key of their identity file: a [`SignedToken`], which goes along with the migration. It is looked at
//! in four places, each by what is known there ([`Claim`]):
//!
//! | where | when | what is known there |
//! |---|---|---|
//! | the source's migrator | before anything is begun | all; it is used up there |
//! | the destination's migrator | before a hook is called or a QEMU started | all; it is used up there too |
//! | the source's node | before anything of the volumes is brought there | all but the VM |
//! | the destination's node | before it makes room | all but the VM; the window may have ended meanwhile |
//!
//! * [`signed`]: a token with its signature, as bytes and as a file. [`check`]: whether it allows what is claimed.
//! * [`ledger`]: which ones were used up. [`admission`]: all of it, as a migrator asks for it.
//!
//! It is *not* a join token, which lets a node into a cluster (`sterna_transport::token`), and no proof of who moves what: two migrators
//! know each other by certificates.

pub mod admission;
pub mod check;
pub mod ledger;
pub mod signed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use sterna_runtime::chance::NoRandomBytes;
use sterna_types::{ByteRate, ClusterId, Epoch, SiteName, VmName, VolumeId};

pub use admission::{Admission, NotAdmitted};
pub use check::{Claim, Stage, TokenRefusal};
pub use signed::{InvalidToken, IssueError, SignedToken};

/// One migration of one VM, as an operator allows it.
///
/// What is never false: there are 1 to [`MAX_VOLUMES`] volumes, and the window has a length, of at most [`MAX_WINDOW`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationToken {
    id: MigrationTokenId,
    cluster: ClusterId,
    vm: VmName,
    volumes: Volumes,
    from: SiteName,
    to: SiteName,
    window: Window,
    max_rate: Option<ByteRate>,
}

/// The volumes that are a VM's disks, each with the epoch that it is in.
pub type Volumes = BTreeMap<VolumeId, Epoch>;

/// A token, among all that there ever were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigrationTokenId(pub [u8; 16]);

/// From when until when, both included, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub not_before_ms: u64,
    /// The last one.
    pub not_after_ms: u64,
}

/// What a token is to allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The VM.
    pub vm: VmName,
    /// All of its volumes.
    pub volumes: Volumes,
    /// The site where it is.
    pub from: SiteName,
    /// The site where it is to go.
    pub to: SiteName,
    /// When it may begin.
    pub window: Window,
    /// How fast memory may be sent at most, while the VM runs.
    pub max_rate: Option<ByteRate>,
}

/// Terms that no token can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// There are none, or too many.
    #[error("a migration token is for 1 to {MAX_VOLUMES} volumes, and not for {count}")]
    Volumes {
        /// How many.
        count: usize,
    },
    /// It ends before it begins.
    #[error("the window of a migration token ends before it begins")]
    Window,
    /// It is too long.
    #[error("the window of a migration token has {} s, and {} are the most: issue one when it is needed", .length.as_secs(), MAX_WINDOW.as_secs())]
    LongWindow {
        /// How long it is.
        length: Duration,
    },
}

/// Whether migrations from and to a host need a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Each needs one.
    #[default]
    Required,
    /// One that is given has to be right, and none is needed.
    Optional,
}

impl MigrationToken {
    /// A new one on these terms, in a cluster. It is nothing before it is [signed](MigrationToken::sign).
    ///
    /// # Errors
    /// [`IssueError::Terms`], and [`IssueError::Chance`] where the system has no random bytes.
    pub fn new(cluster: ClusterId, terms: Terms) -> Result<Self, IssueError> {
        Ok(Self::with_id(MigrationTokenId::random()?, cluster, terms)?)
    }

    fn with_id(id: MigrationTokenId, cluster: ClusterId, terms: Terms) -> Result<Self, InvalidTerms> {
        let Terms { vm, volumes, from, to, window, max_rate } = terms;
        let count = volumes.len();
        if count == 0 || count > MAX_VOLUMES {
            return Err(InvalidTerms::Volumes { count });
        }
        let length = window.not_after_ms.checked_sub(window.not_before_ms).ok_or(InvalidTerms::Window)?;
        let length = Duration::from_millis(length);
        if length > MAX_WINDOW {
            return Err(InvalidTerms::LongWindow { length });
        }
        Ok(Self { id, cluster, vm, volumes, from, to, window, max_rate })
    }

    /// Which one it is.
    pub fn id(&self) -> MigrationTokenId {
        self.id
    }

    /// The VM that it is for.
    pub fn vm(&self) -> &VmName {
        &self.vm
    }

    /// The site that it is to leave.
    pub fn from(&self) -> &SiteName {
        &self.from
    }

    /// The site that it is to go to.
    pub fn to(&self) -> &SiteName {
        &self.to
    }

    /// When the migration may begin.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How fast memory may be sent at most, while the VM runs.
    pub fn max_rate(&self) -> Option<ByteRate> {
        self.max_rate
    }
}

impl Window {
    /// From `begin` on, for so long.
    pub fn beginning(begin: SystemTime, length: Duration) -> Self {
        let begin = milliseconds(begin);
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self { not_before_ms: begin, not_after_ms: begin.saturating_add(length) }
    }
}

impl MigrationTokenId {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn random() -> Result<Self, NoRandomBytes> {
        sterna_runtime::chance::bytes().map(Self)
    }
}

impl fmt::Display for MigrationTokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MigrationTokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MigrationTokenId({self})")
    }
}

/// Milliseconds since 1970; 0 before that.
fn milliseconds(at: SystemTime) -> u64 {
    let passed = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

/// Most volumes of one VM: more than QEMU has slots for.
pub const MAX_VOLUMES: usize = 256;

/// The longest window. Who has used a token up remembers it for so long, and an operator who has left can have one in hand that long.
pub const MAX_WINDOW: Duration = Duration::from_hours(30 * 24);

/// How long after its window the volumes of a migration may be handed over that has begun in it: terabytes of memory over a slow link.
pub const LONGEST_MIGRATION: Duration = Duration::from_hours(24);
