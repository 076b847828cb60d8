//! Giving volumes away: the steps of node A in [`super`].

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sterna_consensus::ProposeError;
use sterna_consensus::handoff::Holder;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::refusal::Refusal;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::node::handoff_client::HandoffClient;
use sterna_proto::node::{PrepareRequest, VolumeHeat};
use sterna_runtime::work::blocking;
use sterna_storage_node::volume::{Released, Volume, VolumeError};
use sterna_transport::Lane;
use sterna_types::{BLOCK_SIZE, Epoch, NodeId, VolumeName};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::end::{End, abort, deliver, handoffs};
use super::hydrate::bring_tail;
use super::in_hand::InHand;
use super::pre_copy::seal;
use super::promise::{Promise, PromiseError, may};
use super::service::MAX_RELEASE_BYTES;
use super::tell;
use super::wire::{Passing, Release, TailPart};
use crate::node::clock::now;
use crate::node::node::Node;
use crate::node::volumes::{HeldSlot, OpenVolume};

/// A volume that is to be given away.
#[derive(Debug)]
pub(in crate::node) struct Given {
    entry: Arc<VolumeEntry>,
    open: OpenVolume,
    /// What clients must not have changed it for; nothing where they may.
    quiet: Duration,
    /// Nobody opens, closes, deletes or changes it meanwhile.
    _slot: HeldSlot,
}

impl Given {
    /// The volume of which the metadata says this, open in its epoch, and in its slot.
    pub(in crate::node) fn new(entry: Arc<VolumeEntry>, open: OpenVolume, slot: HeldSlot) -> Self {
        Self { entry, open, quiet: Duration::ZERO, _slot: slot }
    }

    /// The same, kept where a client has changed something within this time when it comes to that.
    pub(super) fn if_quiet_for(self, quiet: Duration) -> Self {
        Self { quiet, ..self }
    }
}

/// Volumes that were given away.
#[derive(Debug)]
pub(in crate::node) struct Handed {
    /// Each with the epoch that has begun, and the bytes of its tail.
    pub(in crate::node) volumes: Vec<(VolumeName, Epoch, u64)>,
    /// From the moment at which this node acknowledged nothing more until the other one had answered.
    pub(in crate::node) paused: Duration,
}

/// Has `to` go on with volumes, all in one moment. They stay in their slots until that node has answered, or the handoff is aborted.
///
/// # Errors
/// As [`prepare`] and [`Prepared::release`].
///
/// # Cancel safety
/// Not cancel safe: run it in a task of its own.
pub(in crate::node) async fn give(node: Arc<Node>, given: Vec<Given>, to: NodeId) -> Result<Handed> {
    prepare(node, given, to, None).await?.release().await
}

/// Volumes of which everything slow is done: what is left is one message. They stay in their slots, and their clients read and write as
/// ever.
///
/// Who drops it has the handoffs aborted a little later, as those that nobody sees to.
pub(in crate::node) struct Prepared(Giver);

/// Steps 1 to 3. Of volumes that move with a VM its token goes along, which is empty where it has none.
///
/// # Errors
/// Why `to` does not take them; then the handoffs are aborted.
///
/// # Cancel safety
/// Not cancel safe: run it in a task of its own.
pub(in crate::node) async fn prepare(
    node: Arc<Node>,
    given: Vec<Given>,
    to: NodeId,
    token: Option<Vec<u8>>,
) -> Result<Prepared> {
    let hands = take_in_hand(&node, &given).await?;
    let giver = Giver { passings: given.iter().map(passing_of).collect(), node, to, given, _hands: hands };
    giver.bring_tails().await?;
    giver.seal().await?;
    giver.begin().await?;
    let ready = async {
        giver.prepare(token).await?;
        // What was written while that was on its way.
        giver.seal().await
    };
    if let Err(error) = ready.await {
        giver.abort().await;
        return Err(error);
    }
    Ok(Prepared(giver))
}

impl Prepared {
    /// Steps 4 to 6.
    ///
    /// # Errors
    /// Why it was not done, or that it is not known yet whether it was; then it goes on by itself, and ends one way or the other.
    ///
    /// # Cancel safety
    /// Not cancel safe: run it in a task of its own.
    pub(in crate::node) async fn release(self) -> Result<Handed> {
        self.0.release().await
    }

    /// Ends the handoffs: nothing was released, and their owner goes on with the volumes.
    ///
    /// # Cancel safety
    /// Not cancel safe; what fails of it is done again as with those that nobody sees to.
    pub(in crate::node) async fn abort(self) {
        self.0.abort().await;
    }
}

/// Takes them in hand. What is fetched of them is not fetched further: only where they can be given away, so that who asks again and
/// again does not keep them from arriving.
async fn take_in_hand(node: &Node, given: &[Given]) -> Result<Vec<InHand>> {
    if let Some(Given { entry, .. }) = given.iter().find(|given| !given.entry.has_room_for_source()) {
        bail!("volume '{}': {}", entry.name, Refusal::TooManySources { volume: entry.id });
    }
    let mut hands = Vec::new();
    for Given { entry, .. } in given {
        let taken = node.handoffs.ask_for(entry.id).await;
        hands.push(taken.with_context(|| {
            format!("an earlier handoff of volume '{}' is still being seen to: move it a little later", entry.name)
        })?);
    }
    Ok(hands)
}

/// The next handoff of a volume.
fn passing_of(given: &Given) -> Passing {
    let entry = &given.entry;
    Passing { volume: entry.id, handoff: entry.last_handoff.next(), epoch: entry.epoch }
}

struct Giver {
    node: Arc<Node>,
    to: NodeId,
    given: Vec<Given>,
    passings: Vec<Passing>,
    _hands: Vec<InHand>,
}

impl Giver {
    /// Before step 1: what has not arrived of these volumes are chunks only, which sources keep.
    async fn bring_tails(&self) -> Result<()> {
        for Given { entry, open, .. } in &self.given {
            if open.volume.has_sealed_tail() {
                continue;
            }
            let brought = timeout(TAIL_PATIENCE, bring_tail(&self.node, &open.volume)).await;
            let brought = brought.map_err(anyhow::Error::from).flatten();
            brought.with_context(|| {
                format!("what was newest of volume '{}' has not arrived here yet: move it a little later", entry.name)
            })?;
        }
        Ok(())
    }

    /// Step 1: what is not sealed becomes little, under a client that writes as without one.
    async fn seal(&self) -> Result<()> {
        for Given { entry, open, .. } in &self.given {
            seal(&self.node, &open.volume, &entry.name).await?;
        }
        Ok(())
    }

    /// Step 2.
    async fn begin(&self) -> Result<()> {
        let by = self.node.metadata.id();
        let command = Command::BeginHandoff { by, to: self.to, volumes: handoffs(&self.passings) };
        match self.node.metadata.propose(command).await {
            Ok(_) => Ok(()),
            Err(ProposeError::Refused(refusal)) => Err(refusal.into()),
            // Read back; what begins later than that nobody sees to, and so it is aborted.
            Err(error) => {
                let metadata = self.node.metadata.linearizable().await?;
                let has_begun = |passing: &Passing| {
                    let under_way = metadata.volume(passing.volume).and_then(|entry| entry.ownership().under_way());
                    under_way == Some((passing.handoff, self.to))
                };
                if self.passings.iter().all(has_begun) { Ok(()) } else { Err(error.into()) }
            }
        }
    }

    /// Step 3.
    async fn prepare(&self, token: Option<Vec<u8>>) -> Result<()> {
        let volumes = self.passings.iter().map(|passing| passing.to_message()).collect();
        let heat = |given: &Given| {
            let (id, volume) = (given.entry.id, &given.open.volume);
            VolumeHeat { volume: id.0, heat: volume.encode_heat(), traces: volume.traces().encode() }
        };
        let heat = self.given.iter().map(heat).collect();
        let mut client = client(&self.node, self.to)?;
        tell("prepare", self.to);
        let asked = timeout(ANSWER_PATIENCE, client.prepare(PrepareRequest { volumes, heat, token })).await;
        let obstacle = match asked {
            Ok(Ok(reply)) => reply.into_inner().obstacle,
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => format!("it has not answered within {ANSWER_PATIENCE:?}"),
        };
        ensure!(obstacle.is_empty(), "{} does not take it: {obstacle}", self.recipient());
        Ok(())
    }

    /// What the node that they go to is called.
    fn recipient(&self) -> String {
        let metadata = self.node.metadata.read();
        metadata.node(self.to).map_or_else(|| format!("node {}", self.to), |node| node.name.to_string())
    }

    /// Ends what has begun: nothing was released. What fails of it is done again by [`super::settle`].
    async fn abort(&self) {
        if let Err(error) = abort(&self.node, &self.passings).await {
            tracing::warn!("a handoff is not aborted yet; it is tried again: {error:#}");
        }
    }

    /// Steps 4 to 6.
    async fn release(self) -> Result<Handed> {
        let begun = Instant::now();
        for Given { open, .. } in &self.given {
            open.pause();
        }
        let volumes = self.given.iter().map(|given| Arc::clone(&given.open.volume)).collect();
        let releasing = async {
            let busy = self.given.iter().find(|given| given.open.ownership.quiet_for() < given.quiet);
            if let Some(Given { entry, .. }) = busy {
                bail!("a client of its owner writes to volume '{}'", entry.name);
            }
            let released = release_all(volumes).await?;
            anyhow::Ok((released, self.may_release().await?))
        };
        let (released, promises) = match releasing.await {
            Ok(both) => both,
            Err(error) => {
                self.resume();
                self.abort().await;
                return Err(error);
            }
        };
        let at = now();
        let releases: Vec<_> = self
            .passings
            .iter()
            .zip(released)
            .map(|(passing, (released, tail_data))| Release::new(*passing, released, tail_data, at))
            .collect();
        // From here on the way is forward. Where a sync fails it is not known whether it was released: nothing more is answered,
        // and a start makes it known.
        self.promise(promises).await?;
        let delivering = deliver(&self.node, self.to, &releases);
        let delivered = timeout(DELIVERY_PATIENCE, delivering).await;
        let not_known = "it is released, and not known yet to have been taken: it goes on by itself";
        let ends = delivered.ok().context(not_known)??;
        let paused = begun.elapsed();
        for (given, end) in self.given.iter().zip(&ends) {
            match end {
                End::Passed | End::Overtaken => drop(given.open.ownership.end()),
                End::HandedBack => given.open.resume(),
            }
        }
        ensure!(!ends.contains(&End::HandedBack), "{} has declined it", self.recipient());
        ensure!(!ends.contains(&End::Overtaken), "it has gone on in a later epoch meanwhile: look who owns it now");
        let volumes = self.given.iter().zip(&releases).map(|(given, release)| {
            (given.entry.name.clone(), given.entry.epoch.next(), release.tail.data_blocks() * BLOCK_SIZE)
        });
        Ok(Handed { volumes: volumes.collect(), paused })
    }

    fn resume(&self) {
        for Given { open, .. } in &self.given {
            open.resume();
        }
    }

    /// What this node promises with a release: for all of them, or none.
    async fn may_release(&self) -> Result<Vec<Promise>> {
        let (node, passings) = (Arc::clone(&self.node), self.passings.clone());
        let asking = move || passings.iter().map(|passing| may(&node, *passing, Holder::may_release)).collect();
        let promises: Result<Option<Vec<_>>, PromiseError> = blocking(asking).await?;
        promises?.context("the handoff has ended meanwhile")
    }

    /// Step 5, for all of them at once. The tail is durable with the promise: another node is about to ask for it.
    async fn promise(&self, promises: Vec<Promise>) -> Result<()> {
        let mut syncs = JoinSet::new();
        for (given, promise) in self.given.iter().zip(promises) {
            let (node, volume) = (Arc::clone(&self.node), Arc::clone(&given.open.volume));
            syncs.spawn(async move {
                let id = volume.id();
                blocking(move || node.volumes.promises().make(id, promise)).await?.map_err(anyhow::Error::from)
            });
            let volume = Arc::clone(&given.open.volume);
            syncs.spawn(async move { Ok(blocking(move || volume.flush()).await??) });
        }
        while let Some(synced) = syncs.join_next().await {
            synced?.context("it is not known whether the volume was released: restart this node")?;
        }
        Ok(())
    }
}

/// The cut: all are released, or none is. With the data of their tails, where that is little for all of them together.
async fn release_all(volumes: Vec<Arc<Volume>>) -> Result<Vec<(Released, Vec<TailPart>)>> {
    let releasing = blocking(move || {
        let released = volumes.iter().map(|volume| volume.release()).collect::<Result<Vec<_>, _>>()?;
        let bytes: u64 = released.iter().map(|released| released.tail.data_blocks() * BLOCK_SIZE).sum();
        let data = volumes.iter().zip(released).map(|(volume, released)| {
            let parts = if bytes <= CARRIED_BYTES { TailPart::all_of(volume, &released.tail)? } else { Vec::new() };
            Ok((released, parts))
        });
        data.collect::<Result<Vec<_>, VolumeError>>()
    });
    Ok(releasing.await??)
}

pub(super) fn client(node: &Node, to: NodeId) -> Result<HandoffClient<Channel>> {
    let channels = node.metadata.channels().context("this node has no network: set 'listen' in sterna.toml")?;
    let client = HandoffClient::new(channels.channel(to, Lane::Control));
    Ok(client.max_encoding_message_size(MAX_RELEASE_BYTES).send_compressed(CompressionEncoding::Zstd))
}

/// Data that goes along with a release: what a machine that has been stopped leaves behind, and no more than half a millisecond at
/// 1 Gbit/s.
const CARRIED_BYTES: u64 = 64 << 10;
/// A round trip around the world, and whatever the other node's disk is doing.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long whoever has asked for it waits for what goes on by itself.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);
/// What has come by then stays, for the next attempt.
const TAIL_PATIENCE: Duration = Duration::from_secs(30);
