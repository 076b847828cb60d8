//! What runs on a machine from its start to its end: the node, and the clients of its volumes.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use sterna_cli::node::simulated::{self, SimulatedNode, begin_cluster, prepare};
use sterna_consensus::MetadataConfig;
use sterna_consensus::simulation;
use sterna_storage_node::chunk_store::PackStoreOptions;
use sterna_storage_node::volume::StorageOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_local};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Progress};
use super::world::World;
use crate::surroundings;

/// Lives, and says how it ended, if that is not as it should.
pub(super) async fn live(world: Rc<World>, node: usize, progress: Rc<Vec<Progress>>) {
    surroundings::this_is(node);
    if let Err(error) = run(&world, node, progress).await {
        world.violated(format!("node {node}: {error:#}"));
    }
}

async fn run(world: &Rc<World>, node: usize, progress: Rc<Vec<Progress>>) -> Result<()> {
    let place = &world.places[node];
    let machine = world.machines.borrow()[node].clone();
    simulation::put(&place.metadata, machine.metadata.clone());
    if node == 0 && world.admitted.borrow()[0].is_none() {
        begin_cluster(place, raft()).await.context("the cluster cannot be made")?;
        world.admitted.borrow_mut()[0] = Some(sterna_types::NodeId::FIRST);
    }
    let id = loop {
        if let Some(id) = world.admitted.borrow()[node] {
            break id;
        }
        tokio::time::sleep(PAUSE).await;
    };
    // Where it is there already, this changes nothing.
    prepare(place, id).await.context("the metadata cannot be made")?;
    let on = simulated::Machine {
        disk: std::sync::Arc::new(machine.disk.clone()),
        index: machine.index.clone(),
        storage: storage(),
        packs: PackStoreOptions { reserve_bytes: 0, ..PackStoreOptions::default() },
        raft: raft(),
    };
    let mut running =
        SimulatedNode::start(place, on, world.certificates[node].clone()).await.context("it does not start")?;
    let (ask, mut asked) = mpsc::unbounded_channel();
    let (end, mut ended) = oneshot::channel();
    world.asks.borrow_mut()[node] = Some(ask);
    world.ends.borrow_mut()[node] = Some(end);
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for progress in progress.iter() {
        let client = Client::new(Rc::clone(world), running.handle(), progress.clone());
        clients.spawn_local(client.run(stop.clone()));
    }
    loop {
        tokio::select! {
            error = running.ended() => return Err(error.context("it has ended by itself")),
            Some(ask) = asked.recv() => drop(spawn_local(ask(running.handle()))),
            _ = &mut ended => break,
        }
    }
    // Clients first, as its server has them: what is in flight finishes.
    stop.cancel();
    while clients.join_next().await.is_some() {}
    running.shutdown().await;
    Ok(())
}

/// As the campaign of real processes has it: more elections, and more seals, than anybody wants.
pub(super) fn raft() -> MetadataConfig {
    MetadataConfig {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(600),
        election_max: Duration::from_millis(1_200),
        patience: Duration::from_secs(2),
        snapshot_after_entries: 200,
        kept_entries: 50,
        ..MetadataConfig::default()
    }
}

fn storage() -> StorageOptions {
    StorageOptions {
        seal_age: Duration::from_millis(500),
        segment_cache_bytes: 256 << 10,
        node_cache_bytes: 256 << 10,
        journal_file_bytes: 1 << 20,
        reserve_bytes: 0,
        ..StorageOptions::default()
    }
}

const PAUSE: Duration = Duration::from_millis(20);
