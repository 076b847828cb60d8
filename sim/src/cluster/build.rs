//! How a cluster comes to be, and its volumes.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use sterna_cli::node::simulated::NodeHandle;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::layout::NodeChange;
use sterna_consensus::state::session::SessionLength;
use sterna_tests::oracle::block::BLOCK_BYTES;
use sterna_types::{NodeId, VolumeName};
use tokio::time::{Instant, sleep};

use super::world::World;
use super::{PATIENCE, PAUSE, SESSION};

/// A cluster of all places, all of which vote, with a volume at some and a replica of each at all others.
pub(super) async fn build(world: &Rc<World>) -> Result<()> {
    let length = SessionLength::try_from(SESSION)?;
    asked(world, 0, move |node| async move { node.propose(Command::SetSessionLength { length }).await }).await?;
    for place in 1..world.places.len() {
        let newcomer = world.places[place].clone();
        let admit = move |node: NodeHandle| {
            let newcomer = newcomer.clone();
            async move { node.admit(&newcomer).await }
        };
        let id = asked(world, 0, admit).await?;
        world.admitted.borrow_mut()[place] = Some(id);
        asked(world, 0, move |node| async move { node.propose(Command::StageChange(NodeChange::Promote(id))).await })
            .await?;
    }
    asked(world, 0, |node| async move {
        let revision = node.linearizable().await?.layout().revision;
        node.propose(Command::ApplyChanges { revision }).await
    })
    .await?;
    let count = world.places.len();
    asked(world, 0, move |node| async move {
        let metadata = node.linearizable().await?;
        let is_live = |node: NodeId| metadata.node(node).and_then(|node| node.session).is_some_and(|s| s.is_live());
        let live = metadata.nodes().filter(|node| is_live(node.id)).count();
        ensure!(live == count && metadata.layout().voters.len() == count, "{live} of {count} have a session");
        Ok(())
    })
    .await?;
    for place in 0..world.shape.places {
        make_volume(world, place).await?;
    }
    Ok(())
}

/// A volume at its first owner, with a replica at every other site.
pub(super) async fn make_volume(world: &Rc<World>, number: u8) -> Result<()> {
    let volume = &world.setting.volumes[usize::from(number)];
    let place = world.shape.place_of(number);
    let (owner, candidates) = (usize::from(volume.owner), world.shape.copies(place).candidates);
    let name = volume.name.clone();
    let durability = if volume.copies > 1 { format!("sync:{}", volume.copies) } else { "local".to_owned() };
    let size_bytes = volume.blocks * BLOCK_BYTES as u64;
    let create = move |node: NodeHandle| {
        let (name, durability) = (name.clone(), durability.clone());
        async move {
            let id = |node: &NodeHandle| {
                let name: Option<VolumeName> = name.parse().ok();
                name.and_then(|name| node.metadata().volume_named(&name).map(|volume| volume.id.0))
            };
            // What was not answered for may have been done.
            if let Some(id) = id(&node) {
                return Ok(id);
            }
            node.create_volume(&name, size_bytes, &durability).await?;
            id(&node).context("what was made is not there")
        }
    };
    let id = asked(world, owner, create).await?;
    world.with(number, |standing| standing.id = Some(id));
    let others = world.setting.sites.iter().enumerate().filter(|(other, _)| *other != owner);
    for (number, (other, site)) in others.enumerate() {
        let mode = match world.shape.is_cached(place) && number == 0 {
            true => "cache",
            false if volume.copies > 1 && number < candidates => "sync",
            false => "async",
        };
        let (name, site) = (volume.name.clone(), site.clone());
        asked(world, owner, move |node| {
            let (name, site) = (name.clone(), site.clone());
            async move { node.set_replica(&name, &site, mode).await }
        })
        .await
        .with_context(|| format!("a replica at {other}"))?;
    }
    if world.shape.is_cached(place) {
        let name = volume.name.clone();
        let limit = move |node: NodeHandle| {
            let name = name.clone();
            async move { node.set_limit(&name, SLOWLY).await }
        };
        asked(world, owner, limit).await.context("a limit")?;
    }
    Ok(())
}

/// Asks a node until it does it.
pub(super) async fn asked<T: 'static, F: Future<Output = Result<T>> + 'static>(
    world: &World,
    node: usize,
    what: impl Fn(NodeHandle) -> F + Clone + 'static,
) -> Result<T> {
    let began = Instant::now();
    loop {
        let error = match world.ask(node, what.clone()).await {
            Some(Ok(done)) => return Ok(done),
            Some(Err(error)) => error,
            None => anyhow::anyhow!("node {node} does not answer"),
        };
        if began.elapsed() > PATIENCE {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

/// The least that there is: a few seconds for such a volume.
const SLOWLY: &str = "1Mbit";
