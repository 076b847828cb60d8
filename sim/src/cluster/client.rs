//! A client of one volume at one node, as those of the campaign of real processes (`sterna_tests::faults::writer`): it tries for ever
//! to be let in; once it is, it reads all of the volume, and then writes, flushes and reads, one request at a time.
//!
//! Where power is lost, what is not flushed may be lost, and a history has no word for it. There a client believes nothing that is
//! not durable: what it writes is durable when it is acknowledged, and it flushes before it reads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sterna_cli::node::simulated::NodeHandle;
use sterna_tests::faults::history::{Does, Operation, Outcome, Record};
use sterna_tests::faults::mark::{Found, Mark};
use sterna_tests::oracle::block::BLOCK_BYTES;
use sterna_tests::random::Random;
use sterna_types::device::{Persistence, ReadData};
use sterna_types::{BlockDevice, ByteOffset, ByteRange, DeviceError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::world::World;
use crate::surroundings::now_ns;

/// Which client it is, and how far it has come; it goes on with that when its machine is started again. Clones are the same.
#[derive(Clone)]
pub(super) struct Progress(Rc<Counters>);

struct Counters {
    volume: u8,
    node: u8,
    connection: Cell<u32>,
    sequence: Cell<u64>,
    random: RefCell<Random>,
}

impl Progress {
    /// The client of a volume at a node that has done nothing yet.
    pub(super) fn new((volume, node): (u8, u8), random: Random) -> Self {
        let (connection, sequence) = (Cell::new(0), Cell::new(0));
        Self(Rc::new(Counters { volume, node, connection, sequence, random: RefCell::new(random) }))
    }

    fn below(&self, end: u64) -> u64 {
        self.0.random.borrow_mut().below(end)
    }

    /// A time by chance, shorter than this.
    fn within(&self, longest: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A client, at work.
pub(super) struct Client {
    world: Rc<World>,
    node: NodeHandle,
    progress: Progress,
    blocks: u64,
}

type Device = Arc<dyn BlockDevice>;

impl Client {
    pub(super) fn new(world: Rc<World>, node: NodeHandle, progress: Progress) -> Self {
        let blocks = world.setting.volumes[usize::from(progress.0.volume)].blocks;
        Self { world, node, progress, blocks }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() && !self.is_closed() {
            if self.world.clients_work.get()
                && self.world.with(self.volume(), |standing| standing.id.is_some())
                && let Some(device) = self.attach().await
            {
                self.work(&device, &stop).await;
            }
            let pause = self.progress.within(self.world.shape.between_attaches);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads all of the volume, and flushes it; whether it could.
    pub(super) async fn read_at_the_end(&self) -> bool {
        let Some(device) = self.attach().await else { return false };
        self.read_all(&device).await == Outcome::Done && self.flush(&device).await == Outcome::Done
    }

    async fn attach(&self) -> Option<Device> {
        let connection = &self.progress.0.connection;
        connection.set(connection.get() + 1);
        let asked = self.asks(Does::Attach);
        let name = self.world.setting.volumes[usize::from(self.progress.0.volume)].name.clone();
        let device = self.node.attach(&name).await;
        asked.hears(if device.is_some() { Outcome::Done } else { Outcome::Refused }, None);
        device
    }

    async fn work(&self, device: &Device, stop: &CancellationToken) {
        let patience = Duration::from_millis(LEAST_PATIENCE_MS + self.progress.below(MORE_PATIENCE_MS));
        let mut last_done = Instant::now();
        let mut outcome = self.read_all(device).await;
        // What was written without an answer is read before anything else is done.
        let mut doubt = None;
        loop {
            match outcome {
                Outcome::Done => last_done = Instant::now(),
                Outcome::Failed(_) if last_done.elapsed() > patience => return,
                _ => tokio::time::sleep(AGAIN).await,
            }
            if stop.is_cancelled() || !self.world.clients_work.get() || self.is_closed() {
                return;
            }
            tokio::time::sleep(self.progress.within(self.world.shape.between_requests)).await;
            if let Some(block) = doubt {
                outcome = self.read(device, block, 1).await;
                if outcome == Outcome::Done {
                    doubt = None;
                }
                continue;
            }
            if let Some(snapshot) = self.world.with(self.volume(), |standing| standing.wanted.take()) {
                self.take_snapshot(snapshot).await;
                continue;
            }
            outcome = match self.progress.below(100) {
                0..65 => {
                    let (block, outcome) = self.write(device).await;
                    doubt = (outcome != Outcome::Done).then_some(block);
                    outcome
                }
                65..85 => self.flush(device).await,
                _ => {
                    let first = self.progress.below(self.blocks);
                    let count = 1 + self.progress.below(MOST_READ.min(self.blocks - first));
                    self.read(device, first, count).await
                }
            };
        }
    }

    /// Has its volume's contents kept under a name, and looks at them. It is its own reader of that moment: nothing is on its way.
    async fn take_snapshot(&self, snapshot: String) {
        let volume = self.volume();
        let asked = self.asks(Does::Snapshot { found: Vec::new() });
        let name = self.world.setting.volumes[usize::from(volume)].name.clone();
        let taken = self.node.snapshot(&name, &snapshot).await;
        let answered_ns = now_ns();
        let looked = match taken {
            Ok(()) => self.node.export(&format!("{name}@{snapshot}")).await,
            Err(error) => Err(error),
        };
        let found = match looked {
            Ok(bytes) => Found::all_of(volume, &bytes),
            Err(error) => {
                self.world.tell(&format!("no snapshot '{snapshot}' of volume {volume} is known of: {error:#}"));
                // What was not answered for is not relied on.
                return asked.forgets();
            }
        };
        asked.heard(answered_ns, found.clone());
        self.world.with(volume, |standing| standing.snapshots.insert(snapshot, found));
        self.world.count(|cared| cared.snapshots += 1);
    }

    fn volume(&self) -> u8 {
        self.progress.0.volume
    }

    /// Whether the volume is to go.
    fn is_closed(&self) -> bool {
        self.world.is_closed(self.volume())
    }

    async fn write(&self, device: &Device) -> (u64, Outcome) {
        let Counters { volume, node, connection, sequence, .. } = &*self.progress.0;
        sequence.set(sequence.get() + 1);
        let (block, sequence) = (sequence.get() % self.blocks, sequence.get());
        let bytes = Mark { node: *node, connection: connection.get(), sequence }.to_bytes(*volume, block);
        let persistence = if self.world.shape.power_is_lost { Persistence::Durable } else { Persistence::AtNextFlush };
        let asked = self.asks(Does::Write { block, sequence });
        let done = device.write(ByteOffset(block * BLOCK), bytes.into(), persistence).await;
        (block, asked.hears(outcome_of(&done), None))
    }

    async fn flush(&self, device: &Device) -> Outcome {
        let asked = self.asks(Does::Flush);
        let done = device.flush().await;
        if done.is_ok() {
            self.world.with(self.volume(), |standing| standing.flushes += 1);
        }
        asked.hears(outcome_of(&done), None)
    }

    async fn read_all(&self, device: &Device) -> Outcome {
        let mut first = 0;
        while first < self.blocks {
            let count = MOST_READ.min(self.blocks - first);
            match self.read(device, first, count).await {
                Outcome::Done => first += count,
                other => return other,
            }
        }
        Outcome::Done
    }

    async fn read(&self, device: &Device, first: u64, count: u64) -> Outcome {
        let asked = self.asks(Does::Read { first, found: Vec::new() });
        let range = ByteRange::new(ByteOffset(first * BLOCK), count * BLOCK).expect("blocks of the volume");
        let flushed = if self.world.shape.power_is_lost { device.flush().await } else { Ok(()) };
        let read = match flushed {
            Ok(()) => device.read(range).await,
            Err(error) => Err(error),
        };
        let found = read.as_ref().ok().map(|data| {
            let found = |(block, bytes)| Found::of(self.progress.0.volume, block, bytes);
            match data {
                ReadData::Bytes(bytes) => (first..).zip(bytes.chunks(BLOCK_BYTES)).map(found).collect(),
                ReadData::Zeroes => (0..count).map(|_| Found::Zeroes).collect(),
            }
        });
        asked.hears(outcome_of(&read), found)
    }

    fn asks(&self, does: Does) -> Asked<'_> {
        // Of the request: at the end another connection may come to be while it is on its way.
        let connection = self.progress.0.connection.get();
        Asked { client: self, connection, does: Some(does), invoked_ns: now_ns() }
    }
}

/// A request that is on its way. One that is dropped was lost with its machine.
struct Asked<'a> {
    client: &'a Client,
    connection: u32,
    does: Option<Does>,
    invoked_ns: u64,
}

impl Asked<'_> {
    /// It was answered at a moment that has passed, and this is what was found.
    fn heard(mut self, answered_ns: u64, found: Vec<Found>) {
        self.does = None;
        self.tell_of(Does::Snapshot { found }, answered_ns, Outcome::Done);
    }

    /// It does not count.
    fn forgets(mut self) {
        self.does = None;
    }

    fn hears(mut self, outcome: Outcome, found: Option<Vec<Found>>) -> Outcome {
        if let (Some(Does::Read { found: of, .. }), Some(found)) = (&mut self.does, found) {
            *of = found;
        }
        self.tell(outcome);
        outcome
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(does) = self.does.take() {
            self.tell_of(does, now_ns(), outcome);
        }
    }

    fn tell_of(&self, does: Does, answered_ns: u64, outcome: Outcome) {
        let Counters { volume, node, .. } = &*self.client.progress.0;
        self.client.world.record(Record::Operation(Operation {
            volume: *volume,
            node: *node,
            connection: self.connection,
            does,
            invoked_ns: self.invoked_ns,
            answered_ns,
            outcome,
        }));
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.tell(Outcome::Lost);
    }
}

fn outcome_of<T>(done: &Result<T, DeviceError>) -> Outcome {
    match done {
        Ok(_) => Outcome::Done,
        Err(DeviceError::NotOwner) => Outcome::Failed(ESHUTDOWN),
        Err(DeviceError::NoSpace) => Outcome::Failed(ENOSPC),
        Err(_) => Outcome::Failed(EIO),
    }
}

const BLOCK: u64 = BLOCK_BYTES as u64;
const ESHUTDOWN: u32 = sterna_tests::faults::check::contents::ESHUTDOWN;
const ENOSPC: u32 = 28;
const EIO: u32 = 5;
/// Before the next request after one that was refused.
const AGAIN: Duration = Duration::from_millis(50);
/// Without an acknowledgement, before the connection is given up: shorter and longer than a session.
const LEAST_PATIENCE_MS: u64 = 500;
const MORE_PATIENCE_MS: u64 = 6_000;
/// In one request.
const MOST_READ: u64 = 64;
