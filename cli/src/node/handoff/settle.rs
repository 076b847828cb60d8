//! What is left to do of handoffs: by a node that has started again, that was not answered, or that was handed a volume.
//!
//! | the metadata says | and this node | then it |
//! |---|---|---|
//! | it is the owner, and hands the volume over | has released it | sends that again |
//! | | has not | aborts |
//! | the volume is handed to it | has accepted it | commits |
//! | | has declined it, or the owner's session is over | declines |
//! | it is the owner, and lacks something | | fetches it ([`super::hydrate`]) |
//! | it is the owner, and no handoff is under way | had released it | has clients answered again |

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sterna_consensus::Metadata;
use sterna_consensus::handoff::{Choice, Holder};
use sterna_consensus::state::command::Command;
use sterna_consensus::state::handoffs::{ReceivedVolume, VolumeHandoff};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::volume::{Volume as VolumeEntry, VolumeState};
use sterna_runtime::work::blocking;
use sterna_types::{NodeId, VolumeId};
use tokio::task::JoinSet;

use super::end::{End, abort, deliver};
use super::hydrate::hydrate;
use super::in_hand::InHand;
use super::promise::promise;
use super::take::make_room;
use super::wire::{Passing, Release};
use crate::node::clock::now;
use crate::node::node::{Node, spec_of};

/// Does what is left to do, again and again, until the node shuts down.
pub(in crate::node) async fn run(node: Arc<Node>) {
    let mut view = node.metadata.watch();
    let mut tasks = JoinSet::new();
    loop {
        begin_due(&node, &mut tasks);
        tokio::select! {
            () = node.stopping.cancelled() => break,
            () = node.handoffs.woken() => continue,
            changed = view.changed() => if changed.is_err() { break },
            Some(ended) = tasks.join_next() => if let Err(panic) = ended {
                tracing::error!(error = %panic, "seeing to a handoff has failed");
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        // The metadata changes all the time, and all volumes are looked through for each look.
        tokio::time::sleep(PAUSE).await;
    }
    tasks.shutdown().await;
}

/// What is to be done about a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// It was, or was to be, given to another node.
    SettleGiven { to: NodeId },
    /// It was, or was to be, given to this node.
    SettleTaken,
    /// Not all of it is here.
    Hydrate,
}

fn begin_due(node: &Arc<Node>, tasks: &mut JoinSet<()>) {
    // What a node may do rests on what it had applied when its lease was last prolonged.
    if !node.lease.is_valid() {
        return;
    }
    let (metadata, own) = (node.metadata.read(), node.metadata.id());
    for entry in metadata.volumes() {
        if tasks.len() >= TASKS_AT_ONCE {
            break;
        }
        let Some(task) = due(&metadata, entry, own) else { continue };
        if matches!(task, Task::SettleGiven { .. }) && node.handoffs.is_delivered(entry.id, entry.last_handoff) {
            continue;
        }
        let Some(in_hand) = node.handoffs.take_in_hand(entry.id) else { continue };
        tasks.spawn(carry_out(Arc::clone(node), entry.id, task, in_hand));
    }
    for id in node.volumes.promises().released() {
        let Some(open) = node.volumes.get(id) else { continue };
        let is_back =
            || metadata.volume(id).and_then(|entry| node.volumes.promises().serves(entry)) == Some(open.epoch);
        if open.volume.is_released()
            && is_back()
            && let Some(_in_hand) = node.handoffs.take_in_hand(id)
        {
            tracing::info!(volume = %id, epoch = %open.epoch, "a volume that was released stays here");
            open.resume();
        }
    }
}

fn due(metadata: &Metadata, entry: &VolumeEntry, own: NodeId) -> Option<Task> {
    match entry.ownership().under_way() {
        Some((_, to)) if entry.owner == own => Some(Task::SettleGiven { to }),
        Some((_, to)) if to == own => Some(Task::SettleTaken),
        Some(_) => None,
        None if entry.owner == own && !entry.is_hydrated() && entry.state == VolumeState::Ready => {
            let is_live = |node: NodeId| metadata.node(node).and_then(|node| node.session).is_some_and(|s| s.is_live());
            // Nobody who keeps it can be asked otherwise.
            let is_reached = entry.sources.iter().any(|source| source.node == own || is_live(source.node));
            is_reached.then_some(Task::Hydrate)
        }
        None => None,
    }
}

async fn carry_out(node: Arc<Node>, volume: VolumeId, task: Task, in_hand: InHand) {
    let done = match task {
        Task::SettleGiven { to } => settle_given(&node, volume, to).await,
        Task::SettleTaken => settle_taken(&node, volume).await,
        Task::Hydrate => hydrate(&node, volume, &in_hand).await,
    };
    if let Err(error) = done {
        tracing::warn!(%volume, ?task, "a handoff does not come further for now: {error:#}");
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = in_hand.asked_for() => {}
        }
    }
}

/// At node A: sends again what was released, and aborts what was not.
async fn settle_given(node: &Arc<Node>, id: VolumeId, to: NodeId) -> Result<()> {
    let mut slot = node.volumes.hold(id).await;
    let Some((entry, passing)) = under_way(node, id) else { return Ok(()) };
    let last = node.volumes.promises().last(id)?;
    if !last.is_some_and(|last| last.pledge.handoff == passing.handoff && last.releases(passing.epoch)) {
        tracing::info!(volume = %entry.name, "a handoff that nobody sees to any more is aborted");
        return abort(node, &[passing]).await;
    }
    let open = slot.volume(&spec_of(&entry).context("its format is not known")?).await?;
    open.pause();
    let own = Arc::clone(node);
    let volume = Arc::clone(&open.volume);
    let releasing = blocking(move || {
        let released = volume.release()?;
        // As at the first time: it may have ended meanwhile.
        let is_under_way = promise(&own, passing, Holder::may_release)?;
        volume.flush()?;
        anyhow::Ok(is_under_way.then_some(released))
    });
    let Some(released) = releasing.await?? else {
        // Whether it comes back is seen by whoever looks through all that was released.
        node.volumes.promises().note_released(id);
        return Ok(());
    };
    let release = Release::new(passing, released, Vec::new(), now());
    for end in deliver(node, to, &[release]).await? {
        match end {
            End::Passed | End::Overtaken => drop(open.ownership.end()),
            End::HandedBack => open.resume(),
        }
    }
    Ok(())
}

/// At node B: commits what was accepted, and declines what nobody can release any more.
async fn settle_taken(node: &Arc<Node>, id: VolumeId) -> Result<()> {
    let Some((entry, passing)) = under_way(node, id) else { return Ok(()) };
    // From here on: what is accepted after it was looked at is told.
    let accepted = node.handoffs.accepted.notified();
    let last = node.volumes.promises().last(id)?.filter(|last| last.pledge.handoff == passing.handoff);
    let by = node.metadata.id();
    let command = match last {
        Some(last) if last.pledge.choice == Choice::Activated => {
            let contents = last.received.context("what it was given is not known")?;
            let received = ReceivedVolume { volume: id, handoff: passing.handoff, contents };
            Command::CommitHandoff { by, volumes: vec![received] }
        }
        Some(last) if last.pledge.choice == Choice::Declined => declined(by, passing),
        _ => {
            // A live owner says itself what becomes of it. Of one that is not nobody knows whether it has released the volume, but
            // that it has not arrived.
            let metadata = node.metadata.read();
            let is_over = metadata.node(entry.owner).and_then(|owner| owner.session).is_some_and(|s| !s.is_live());
            if !is_over {
                // What is accepted meanwhile is committed by whoever looks next, who is not to find the volume in hand then.
                let _either = tokio::time::timeout(LOOK, accepted).await;
                return Ok(());
            }
            let own = Arc::clone(node);
            // Nobody accepts it meanwhile.
            let mut slot = node.volumes.hold(id).await;
            // That this node has released what it keeps of an earlier epoch it knows by its last promise only, which is about to be another
            // one. One that was taken over is known by that, and stays.
            let last = node.volumes.promises().last(id)?;
            if last.is_some_and(|last| last.pledge.choice == Choice::Released)
                && let Err(status) = make_room(node, &mut slot, &entry).await
            {
                tracing::debug!(volume = %entry.name, "what is left of an earlier epoch stays: {}", status.message());
            }
            if !blocking(move || promise(&own, passing, Holder::may_decline)).await?? {
                return Ok(());
            }
            declined(by, passing)
        }
    };
    match node.metadata.propose(command).await? {
        Outcome::HandoffsEnded { refused } => match refused.into_iter().next() {
            None => Ok(()),
            Some((_, refusal)) => Err(refusal.into()),
        },
        other => bail!("the end of a handoff has the outcome {other:?}"),
    }
}

fn declined(by: NodeId, passing: Passing) -> Command {
    Command::DeclineHandoff { by, volumes: vec![VolumeHandoff { volume: passing.volume, handoff: passing.handoff }] }
}

/// The volume, and its handoff that is under way, as this node knows them now.
fn under_way(node: &Node, id: VolumeId) -> Option<(Arc<VolumeEntry>, Passing)> {
    let entry = node.metadata.read().volume(id).cloned()?;
    let (handoff, _) = entry.ownership().under_way()?;
    let passing = Passing { volume: id, handoff, epoch: entry.epoch };
    Some((entry, passing))
}

/// How many handoffs are seen to at a time; those that fetch hold some messages each.
const TASKS_AT_ONCE: usize = 16;
const RETRY: Duration = Duration::from_secs(1);
/// Nobody waits for what is begun here.
const PAUSE: Duration = Duration::from_millis(200);
/// Sessions come and go without a change of any volume.
const LOOK: Duration = Duration::from_secs(1);
