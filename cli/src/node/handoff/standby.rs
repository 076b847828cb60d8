//! What a client has of a volume at a node that does not serve it (design section 5).
//!
//! ```text
//! standby ──the volume is served here──> owned: the device of its owner, in that epoch, for good
//! ```
//!
//! * A read is answered by whoever serves the volume, as of that moment: what a client reads is never old, wherever the volume goes
//!   behind it (docs/decisions/0025).
//! * A flush is acknowledged: on this connection nothing was written.
//! * A change waits while the volume is on its way here. Else it is refused, or, with `attach = auto`, has this node ask the owner
//!   for the volume, and waits for that.
//!
//! A connection is owned in one epoch: when that is over it is answered with errors for good, and asks for nothing any more. So of
//! two machines that were started on one disk by mistake each has it at most once.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sterna_consensus::Metadata;
use sterna_consensus::state::policy::AttachPolicy;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::node::handoff_client::HandoffClient;
use sterna_proto::node::{AskReply, AskRequest, ReadReply, ReadRequest};
use sterna_runtime::work::blocking;
use sterna_storage_node::volume::{VolumeDevice, VolumeSpec};
use sterna_transport::Lane;
use sterna_types::device::{
    Allocation, DeviceFuture, Geometry, Inline, Persistence, ReadData, ReadOutcome, Residency, StatusRun, ZeroRequest,
    check_range, checked_range,
};
use sterna_types::{BlockDevice, ByteOffset, ByteRange, DeviceError, NodeId, VolumeId};
use tokio::sync::futures::Notified;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::tell;
use crate::node::node::{Node, spec_of};
use crate::node::ownership::{OwnedDevice, PAUSE_PATIENCE};

/// Whether this node serves a volume now, of which the metadata says this.
async fn serves(node: &Arc<Node>, entry: Arc<VolumeEntry>) -> Result<bool, DeviceError> {
    if entry.moving_to.is_none() {
        return Ok(entry.owner == node.metadata.id());
    }
    let node = Arc::clone(node);
    // The first look at a promise is one at the disk.
    let looking = blocking(move || node.volumes.promises().serves(&entry).is_some());
    looking.await.map_err(|panic| DeviceError::Io(std::io::Error::other(panic)))
}

/// Waits until this node serves all of these volumes.
///
/// # Errors
/// One of them is not there, or is deleted meanwhile; or the metadata has ended.
///
/// # Cancel safety
/// May be dropped at any time.
pub(in crate::node) async fn until_served(node: &Arc<Node>, volumes: &[VolumeId]) -> Result<(), DeviceError> {
    let mut view = node.metadata.watch();
    loop {
        // What is accepted from here on is told.
        let mut accepted = std::pin::pin!(node.handoffs.accepted.notified());
        accepted.as_mut().enable();
        let metadata = Arc::clone(&view.borrow_and_update());
        let mut all_are = node.lease.is_valid();
        for volume in volumes {
            let entry = metadata.volume(*volume).cloned().ok_or(DeviceError::NotOwner)?;
            all_are &= serves(node, entry).await?;
        }
        if all_are {
            return Ok(());
        }
        tokio::select! {
            () = accepted => {}
            changed = view.changed() => changed.map_err(|_| DeviceError::NotOwner)?,
        }
    }
}

/// A volume's device where the volume is not served, until it is.
pub(in crate::node) struct StandbyDevice {
    node: Arc<Node>,
    volume: VolumeId,
    /// The size that it had when the client came.
    first: Geometry,
    owned: OnceLock<OwnedDevice>,
}

impl StandbyDevice {
    /// The device of this volume, which `node` does not serve.
    pub(in crate::node) fn new(node: Arc<Node>, volume: &VolumeEntry) -> Self {
        let first = VolumeDevice::geometry_of(volume.size.bytes());
        Self { node, volume: volume.id, first, owned: OnceLock::new() }
    }

    /// The volume, as this node knows it now.
    fn entry(&self) -> Result<Arc<VolumeEntry>, DeviceError> {
        self.node.metadata.read().volume(self.volume).cloned().ok_or(DeviceError::NotOwner)
    }

    /// The device of the owner, once this node is that.
    async fn owned(&self) -> Result<Option<&OwnedDevice>, DeviceError> {
        if let Some(owned) = self.owned.get() {
            return Ok(Some(owned));
        }
        // Without a lease it knows nothing for certain; with one it has seen every change of owner before that was prolonged.
        if !self.node.lease.is_valid() || !self.serves().await? {
            return Ok(None);
        }
        let mut slot = self.node.volumes.hold(self.volume).await;
        let entry = self.entry()?;
        let Some(epoch) = self.node.volumes.promises().serves(&entry) else { return Ok(None) };
        let Some(spec) = spec_of(&entry) else { return Err(DeviceError::NotOwner) };
        let failed = |error| DeviceError::Io(std::io::Error::other(error));
        let device = slot.attach(&VolumeSpec { epoch, ..spec }).await.map_err(failed)?;
        tracing::info!(volume = %entry.name, %epoch, "a client that had it in standby has it for writing");
        Ok(Some(self.owned.get_or_init(|| device)))
    }

    /// Whether this node serves the volume now.
    async fn serves(&self) -> Result<bool, DeviceError> {
        serves(&self.node, self.entry()?).await
    }

    /// The device of the owner, once this node is that, which a change brings about where it may.
    async fn until_owned(&self) -> Result<&OwnedDevice, DeviceError> {
        let mut waiting = Waiting::new(&self.node);
        loop {
            waiting.look();
            if let Some(owned) = self.owned().await? {
                return Ok(owned);
            }
            let entry = self.entry()?;
            let obstacle = self.change(&entry).await?;
            waiting.wait(&entry, obstacle).await?;
        }
    }

    /// What the volume holds there now.
    async fn read_now(&self, range: ByteRange) -> Result<ReadData, DeviceError> {
        let mut waiting = Waiting::new(&self.node);
        loop {
            waiting.look();
            if let Some(owned) = self.owned().await? {
                return owned.read(range).await;
            }
            let entry = self.entry()?;
            match self.read_elsewhere(&entry, range).await {
                Ok(data) => return Ok(data),
                Err(obstacle) => waiting.wait(&entry, obstacle).await?,
            }
        }
    }

    /// What the node that serves the volume has there now.
    async fn read_elsewhere(&self, entry: &VolumeEntry, range: ByteRange) -> Result<ReadData, String> {
        let server = self.server(entry)?;
        let request = ReadRequest { volume: self.volume.0, offset: range.start().0, length: range.length() };
        let of_server = |status: tonic::Status| format!("node {server}: {}", status.message());
        let mut client = self.client(server, Lane::Demand)?;
        tell("read", server);
        let silent = |_| format!("node {server} has not answered");
        let begun = timeout(STALL, client.read(request)).await.map_err(silent)?;
        let mut replies = begun.map_err(of_server)?.into_inner();
        let length = usize::try_from(range.length()).map_err(|error| error.to_string())?;
        let mut read = BytesMut::with_capacity(length);
        while let Some(ReadReply { data }) =
            timeout(STALL, replies.message()).await.map_err(silent)?.map_err(of_server)?
        {
            if data.len() > length - read.len() {
                return Err(format!("node {server} has sent more than was asked for"));
            }
            read.extend_from_slice(&data);
        }
        if read.len() < length {
            return Err(format!("node {server} has sent less than was asked for"));
        }
        Ok(ReadData::Bytes(read.freeze()))
    }

    /// The node that may serve the volume, and is not this one.
    fn server(&self, entry: &VolumeEntry) -> Result<NodeId, String> {
        let own = self.node.metadata.id();
        // Where it is not the owner that serves it any more, it says so.
        let server =
            Some(entry.owner).filter(|owner| *owner != own).or(entry.moving_to).filter(|server| *server != own);
        server.ok_or_else(|| "it is this node's, which has no session to serve it under".to_owned())
    }

    /// Brings about that the volume comes here, where that may be: what keeps it from being here now.
    async fn change(&self, entry: &VolumeEntry) -> Result<String, DeviceError> {
        let own = self.node.metadata.id();
        if entry.owner == own || entry.moving_to == Some(own) {
            return Ok("it is on its way here".to_owned());
        }
        if entry.attach == AttachPolicy::Manual {
            return Err(DeviceError::Standby);
        }
        let asked = timeout(PATIENCE, self.ask(entry.owner)).await;
        match asked.unwrap_or_else(|_| Err(format!("node {} has not answered", entry.owner))) {
            Ok(AskReply { obstacle, .. }) if obstacle.is_empty() => Ok("it has come here, and gone on".to_owned()),
            Ok(AskReply { obstacle, passes: true }) | Err(obstacle) => Ok(obstacle),
            Ok(AskReply { obstacle, passes: false }) => {
                tracing::warn!(volume = %entry.name, "a client writes to it here, and its owner keeps it: {obstacle}");
                Err(DeviceError::Standby)
            }
        }
    }

    /// Asks the owner for the volume.
    async fn ask(&self, owner: NodeId) -> Result<AskReply, String> {
        let mut client = self.client(owner, Lane::Control)?;
        tell("ask", owner);
        let reply = client.ask(AskRequest { volume: self.volume.0 }).await;
        reply.map(tonic::Response::into_inner).map_err(|status| format!("node {owner}: {}", status.message()))
    }

    fn client(&self, owner: NodeId, lane: Lane) -> Result<HandoffClient<Channel>, String> {
        let channels = self.node.metadata.channels().ok_or("this node has no network: set 'listen' in sterna.toml")?;
        let client = HandoffClient::new(channels.channel(owner, lane));
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).accept_compressed(CompressionEncoding::Zstd))
    }

    fn check(&self, range: ByteRange) -> Result<(), DeviceError> {
        check_range(range, self.geometry().size)
    }

    /// A range that is everywhere the same.
    fn all_of<T>(&self, range: ByteRange, status: T) -> Result<Vec<StatusRun<T>>, DeviceError> {
        self.check(range)?;
        match range.length() {
            0 => Err(DeviceError::OutOfRange { range, size: self.geometry().size }),
            length => Ok(vec![StatusRun { length, status }]),
        }
    }
}

impl BlockDevice for StandbyDevice {
    fn geometry(&self) -> Geometry {
        match (self.owned.get(), self.entry()) {
            (Some(owned), _) => owned.geometry(),
            (None, Ok(entry)) => VolumeDevice::geometry_of(entry.size.bytes()),
            (None, Err(_)) => self.first,
        }
    }

    fn try_read(&self, at: ByteOffset, into: &mut [u8]) -> Inline<ReadOutcome> {
        self.owned.get().map_or(Inline::Later, |owned| owned.try_read(at, into))
    }

    fn try_write(&self, at: ByteOffset, data: &[u8], persistence: Persistence) -> Inline<()> {
        self.owned.get().map_or(Inline::Later, |owned| owned.try_write(at, data, persistence))
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        match self.owned.get() {
            Some(owned) => owned.read(range),
            None => Box::pin(async move {
                self.check(range)?;
                self.read_now(range).await
            }),
        }
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        match self.owned.get() {
            Some(owned) => owned.write(at, data, persistence),
            None => Box::pin(async move {
                checked_range(at, data.len(), self.geometry().size)?;
                self.until_owned().await?.write(at, data, persistence).await
            }),
        }
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            self.check(request.range)?;
            self.until_owned().await?.write_zeroes(request).await
        })
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            self.check(range)?;
            self.until_owned().await?.trim(range, persistence).await
        })
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        match self.owned.get() {
            Some(owned) => owned.flush(),
            None => Box::pin(async { Ok(()) }),
        }
    }

    fn try_flush(&self) -> Inline<()> {
        self.owned.get().map_or(Inline::Done(Ok(())), OwnedDevice::try_flush)
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        match self.owned.get() {
            Some(owned) => owned.prefetch(range),
            None => Box::pin(async move { self.check(range) }),
        }
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        match self.owned.get() {
            Some(owned) => owned.allocation(range, max_runs),
            // Where there may be holes, there may be data.
            None => Box::pin(async move { self.all_of(range, Allocation::Data) }),
        }
    }

    fn residency(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Residency>>> {
        match self.owned.get() {
            Some(owned) => owned.residency(range, max_runs),
            None => Box::pin(async move { self.all_of(range, Residency::Elsewhere) }),
        }
    }
}

/// A client's request that cannot be answered yet.
struct Waiting<'a> {
    node: &'a Node,
    begun: Instant,
    told: bool,
    accepted: Pin<Box<Notified<'a>>>,
    metadata: watch::Receiver<Arc<Metadata>>,
}

impl<'a> Waiting<'a> {
    fn new(node: &'a Node) -> Self {
        let accepted = Box::pin(node.handoffs.accepted.notified());
        Self { node, begun: Instant::now(), told: false, accepted, metadata: node.metadata.watch() }
    }

    /// It is looked at now: what happens from here on is news.
    fn look(&mut self) {
        self.accepted = Box::pin(self.node.handoffs.accepted.notified());
        self.metadata.mark_unchanged();
    }

    /// Waits for news.
    ///
    /// # Errors
    /// It has waited for long enough.
    async fn wait(&mut self, entry: &VolumeEntry, obstacle: String) -> Result<(), DeviceError> {
        if self.begun.elapsed() > PATIENCE || self.node.stopping.is_cancelled() {
            tracing::warn!(volume = %entry.name, "a client that has it in standby is answered with an error: {obstacle}");
            return Err(DeviceError::Io(std::io::Error::other(obstacle)));
        }
        if !std::mem::replace(&mut self.told, true) {
            tracing::info!(volume = %entry.name, "a client that has it in standby waits: {obstacle}");
        }
        tokio::select! {
            () = &mut self.accepted => {}
            _ = self.metadata.changed() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
        Ok(())
    }
}

/// What a client waits at most: as long as one whose volume is being handed over.
const PATIENCE: Duration = PAUSE_PATIENCE;
/// Not all news come here.
const AGAIN: Duration = Duration::from_millis(100);
/// A link that brings nothing for so long is asked again, or for something else by then.
const STALL: Duration = Duration::from_secs(5);
/// A message has a MiB of data.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
