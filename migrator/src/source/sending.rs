//! A VM's memory on its way: from its QEMU's socket to the destination, over one connection after the other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sterna_proto::migrator::AskRequest;
use sterna_types::ByteRate;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::setup::{Peer, SourceError};
use crate::carry::Carrier;
use crate::memory::{MemoryProgress, SourceTap};
use crate::peer::{MigrationId, Outcome, carry_there};
use crate::phase::Verdict;
use crate::qmp::Commands;

/// Memory on its way. Dropping it ends that.
pub(super) struct Sending {
    /// What carries it.
    pub(super) carrier: Arc<Carrier>,
    /// What has passed.
    pub(super) memory: watch::Receiver<MemoryProgress>,
    _carrying: AbortOnDropHandle<()>,
}

impl Sending {
    /// Has QEMU send the VM's memory to `socket`, a path that is its own, while it runs at most at this rate, and carries it to `peer`. What
    /// becomes of it there is told to `outcome`.
    ///
    /// # Errors
    /// [`SourceError`]; QEMU may have begun then, and fails by itself.
    ///
    /// # Cancel safety
    /// As an error.
    pub(super) async fn begin(
        qmp: &Commands,
        socket: &Path,
        rate: Option<ByteRate>,
        peer: &Peer,
        migration: MigrationId,
        outcome: watch::Sender<Outcome>,
    ) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Socket { path: socket.to_owned(), source };
        let _bound = Bound::at(socket).map_err(failed)?;
        let listener = UnixListener::bind(socket).map_err(failed)?;
        qmp.set_capabilities(&CAPABILITIES).await?;
        qmp.set_parameters(serde_json::json!({ "max-bandwidth": rate.map_or(MAX_BANDWIDTH, |rate| rate.0) })).await?;
        qmp.migrate(&format!("unix:{}", socket.display())).await?;
        let accepted = timeout(SOCKET_PATIENCE, listener.accept()).await;
        let (stream, _) = accepted.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        let (tap, memory) = SourceTap::new();
        let carrier = Arc::new(Carrier::start(stream, tap));
        let carrying = carry_on(peer.clone(), migration, Arc::clone(&carrier), outcome);
        Ok(Self { carrier, memory, _carrying: AbortOnDropHandle::new(tokio::spawn(carrying)) })
    }

    /// What was written and is not taken yet, in bytes.
    pub(super) fn on_the_way(&self) -> u64 {
        let carried = *self.carrier.progress().borrow();
        carried.written.since(carried.taken).unwrap_or(0)
    }
}

/// A path of a socket, which is removed when this is dropped: whoever was to connect has.
struct Bound(PathBuf);

impl Bound {
    fn at(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self(path.to_owned())),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Where it is gone already, nothing is to be done.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Carries over one call after the other, until the destination has declined. QEMU may be writing then what nobody will take, and answers
/// nothing before it has: so it is let go of.
async fn carry_on(mut peer: Peer, migration: MigrationId, carrier: Arc<Carrier>, told: watch::Sender<Outcome>) {
    let mut outcome = told.subscribe();
    let carrying = async {
        loop {
            let end = carry_there(&mut peer.stream, migration, &carrier, &told).await;
            tracing::info!(%migration, %end, "a connection of a migration has ended; another is tried");
            sleep(AFTER_END).await;
            // What was decided meanwhile.
            if let Ok(reply) = peer.calls.ask(AskRequest { migration: migration.0.to_vec() }).await {
                let outcome = Outcome::from(reply.into_inner().outcome());
                if matches!(outcome, Outcome::Decided(_) | Outcome::Lost) {
                    told.send_replace(outcome);
                }
            }
        }
    };
    tokio::select! {
        () = carrying => {}
        _ = outcome.wait_for(|outcome| *outcome == Outcome::Decided(Verdict::Declined)) => carrier.close(),
    }
}

/// QEMU says what it does, hears whether it was loaded, and does not take the last step by itself.
const CAPABILITIES: [(&str, bool); 6] = [
    ("events", true),
    ("return-path", true),
    ("pause-before-switchover", true),
    ("switchover-ack", true),
    ("xbzrle", false),
    ("multifd", false),
];

/// The link decides how fast it goes, and not QEMU's own bound of 128 MiB/s, which counts pages of zeros too.
const MAX_BANDWIDTH: u64 = 8 << 30;

/// QEMU connects as soon as it is told to.
const SOCKET_PATIENCE: Duration = Duration::from_secs(10);

/// Before another connection is tried.
const AFTER_END: Duration = Duration::from_millis(500);
