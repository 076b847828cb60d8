//! Has volumes go on at other sites, and finds out afterwards what has become of it: a command whose answer was lost may have
//! been carried out. As `sterna_tests::faults` does it with real processes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sterna_cli::node::simulated::FailedOver;
use sterna_consensus::Metadata;
use sterna_consensus::state::volume::Volume;
use sterna_tests::faults::history::{Kept, Record, Takeover};
use sterna_tests::faults::mark::Found;
use sterna_types::{BLOCK_SIZE, NodeId, VolumeName};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::sleep;

use super::world::World;
use crate::surroundings::now_ns;

/// What was asked for of each volume.
pub(super) struct Failovers {
    world: Rc<World>,
    turns: Vec<Arc<Mutex<()>>>,
    asked: RefCell<Vec<Asked>>,
}

#[derive(Clone, Debug, Default)]
struct Asked {
    /// Epochs up to this one have been taken down; 0 before the first.
    known_epoch: u64,
    /// Since when something is asked for that is not taken down.
    since_ns: Option<u64>,
    /// What failovers said of themselves.
    reported: Vec<FailedOver>,
    /// How many epochs may have begun by handoffs, and are not counted among those that are taken down.
    handoffs: u64,
    /// The superseded epochs of which it is taken down what their owners still had.
    looked_at: BTreeSet<u64>,
}

impl Failovers {
    pub(super) fn new(world: &Rc<World>) -> Rc<Self> {
        let volumes = world.setting.volumes.len();
        let (turns, asked) = ((0..volumes).map(|_| Arc::default()).collect(), vec![Asked::default(); volumes]);
        Rc::new(Self { world: Rc::clone(world), turns, asked: RefCell::new(asked) })
    }

    /// Whose turn it is with a volume.
    pub(super) async fn turn(&self, volume: u8) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turns[usize::from(volume)]).lock_owned().await
    }

    /// The node that owns a volume, as whoever can say it first says; `None` where nobody does for long.
    pub(super) async fn owner(&self, volume: u8) -> Option<usize> {
        self.owner_and_members(volume, 0).await.map(|(owner, _)| owner)
    }

    /// The node that owns a volume, and those that are in sync with it: so many, unless that takes long. `None` where nobody can say it.
    pub(super) async fn owner_and_members(&self, volume: u8, count: usize) -> Option<(usize, Vec<usize>)> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            if let Some(metadata) = self.metadata().await
                && let Some(entry) = self.entry(&metadata, volume)
            {
                let members: Vec<_> = entry.in_sync.iter().filter_map(|node| self.place_of(*node)).collect();
                let are_enough = members.len() >= count || attempt >= ATTEMPTS_FOR_MEMBERS;
                last = self.place_of(entry.owner).map(|owner| (owner, members));
                if are_enough {
                    return last;
                }
            }
            sleep(PAUSE).await;
        }
        last
    }

    /// Notes that an epoch of a volume may be about to begin by a handoff.
    pub(super) fn expect_handoff(&self, volume: u8) {
        self.asked.borrow_mut()[usize::from(volume)].handoffs += 1;
    }

    /// Whether a volume's owner has all of it, and none of its handoffs is under way, as far as anybody says.
    pub(super) async fn is_at_rest(&self, volume: u8) -> bool {
        let metadata = self.metadata().await;
        let entry = metadata.as_ref().and_then(|metadata| self.entry(metadata, volume));
        entry.is_some_and(|entry| entry.moving_to.is_none() && entry.is_hydrated())
    }

    /// Asks for a failover to a node's site, at that node; whether it was carried out for certain.
    pub(super) async fn fail_over(&self, volume: u8, to: usize) -> bool {
        self.asked.borrow_mut()[usize::from(volume)].since_ns.get_or_insert_with(now_ns);
        let (name, site) = (self.name(volume).to_owned(), self.world.setting.sites[to].clone());
        let shown = format!("volume {volume} goes on at {to}");
        let asked = self.world.ask(to, move |node| async move { node.fail_over(&name, &site).await }).await;
        let Some(Ok(done)) = asked else { return false };
        let FailedOver { epoch, lost_bytes, is_in_sync } = done;
        // A loss that has to be accepted, and was: epoch 0 says that nothing was done.
        if epoch == 0 {
            return false;
        }
        let how = if is_in_sync { "was in sync" } else { "was not in sync" };
        self.world.tell(&format!("{shown}, which {how}, in epoch {epoch}; {lost_bytes} bytes are lost"));
        self.asked.borrow_mut()[usize::from(volume)].reported.push(done);
        true
    }

    /// Takes down the failovers of a volume that are not yet, and what those who owned it before still had, as far as they have
    /// returned; what there is yet to be seen, if there is something.
    pub(super) async fn take_down(&self, volume: u8) -> Option<String> {
        let Some(metadata) = self.metadata().await else { return Some("nobody says who owned it".to_owned()) };
        let Some(entry) = self.entry(&metadata, volume) else { return Some("the volume is gone".to_owned()) };
        self.take_down_takeovers(volume, entry);
        self.take_down_kept(volume, entry).await
    }

    fn take_down_takeovers(&self, volume: u8, entry: &Volume) {
        let mut all = self.asked.borrow_mut();
        let asked = &mut all[usize::from(volume)];
        let known_before = asked.known_epoch;
        let past: Vec<_> = entry.superseded.iter().collect();
        for (at, superseded) in past.iter().enumerate() {
            let ended = superseded.epoch.number();
            if ended <= asked.known_epoch {
                continue;
            }
            let next = past.get(at + 1).map_or(entry.owner, |next| next.owner);
            // How the epoch behind it began, unless that has ended by a handoff since.
            let begun_by = match past.get(at + 1) {
                Some(next) if next.epoch == superseded.epoch.next() => Some(next.reclaimed),
                _ => (entry.epoch == superseded.epoch.next()).then_some(entry.reclaimed),
            };
            // Who was in sync has all that was published before it, and begins to publish with less.
            let inherited = at.checked_sub(1).and_then(|before| past.get(before));
            let inherited = inherited.filter(|before| before.epoch.next() == superseded.epoch);
            let published = inherited.map_or(0, |before| before.resumed.written_blocks);
            let published = published.max(superseded.published.written_blocks);
            let (Some(from), Some(to)) = (self.place_of(superseded.owner), self.place_of(next)) else { continue };
            let by_handoffs = ended - asked.known_epoch - 1;
            let Some(invoked_ns) = asked.since_ns.filter(|_| by_handoffs <= asked.handoffs) else {
                self.world.violated(format!("volume {volume} has left epoch {ended}, and nobody has asked for it"));
                return;
            };
            asked.handoffs -= by_handoffs;
            let epoch = ended + 1;
            let reported = asked.reported.iter().find(|reported| reported.epoch == epoch);
            // The metadata forgets it with a handoff; whoever has done it knows.
            let is_in_sync = begun_by.map(|reclaimed| reclaimed == Some(superseded.epoch));
            let is_in_sync = reported.map(|reported| reported.is_in_sync).or(is_in_sync);
            self.world.record(Record::Takeover(Takeover {
                volume,
                from: u8::try_from(from).unwrap_or(u8::MAX),
                to: u8::try_from(to).unwrap_or(u8::MAX),
                epoch,
                published_bytes: published * BLOCK_SIZE,
                complete_bytes: superseded.resumed.written_blocks * BLOCK_SIZE,
                is_in_sync,
                lost_bytes: reported.map(|reported| reported.lost_bytes),
                invoked_ns,
                answered_ns: now_ns(),
            }));
            asked.known_epoch = ended;
        }
        // What was asked for and has not come may come yet.
        if asked.known_epoch > known_before {
            asked.since_ns = None;
        }
    }

    async fn take_down_kept(&self, volume: u8, entry: &Volume) -> Option<String> {
        let mut missing = None;
        for past in &entry.superseded {
            let epoch = past.epoch.number();
            if self.asked.borrow()[usize::from(volume)].looked_at.contains(&epoch) {
                continue;
            }
            if !past.is_settled {
                missing = Some(format!("the owner of epoch {epoch} has not settled its past"));
                continue;
            }
            let name = format!("kept-e{epoch}");
            let found = match self.holders(entry, &name) {
                None => None,
                Some(holders) => {
                    let Some(&holder) = holders.first() else {
                        missing = Some(format!("nobody holds '{name}'"));
                        continue;
                    };
                    let source = format!("{}@{name}", self.name(volume));
                    let exported = self.world.ask(holder, move |node| async move { node.export(&source).await }).await;
                    let Some(Ok(bytes)) = exported else {
                        missing = Some(format!("'{name}' cannot be read: {:?}", exported.map(|read| read.map(drop))));
                        continue;
                    };
                    Some(Found::all_of(volume, &bytes))
                }
            };
            self.world.record(Record::Kept(Kept { volume, epoch, found }));
            self.asked.borrow_mut()[usize::from(volume)].looked_at.insert(epoch);
        }
        missing
    }

    /// Whether it is taken down what the owner of a superseded epoch still had.
    pub(super) fn has_looked_at(&self, volume: u8, epoch: u64) -> bool {
        self.asked.borrow()[usize::from(volume)].looked_at.contains(&epoch)
    }

    /// The metadata, from the first node that has it.
    pub(super) async fn metadata(&self) -> Option<Arc<Metadata>> {
        for node in 0..self.world.places.len() {
            let asked = self.world.ask(node, |node| async move { node.linearizable().await }).await;
            if let Some(Ok(metadata)) = asked {
                return Some(metadata);
            }
        }
        None
    }

    /// A volume, as the metadata knows it.
    pub(super) fn entry<'a>(&self, metadata: &'a Metadata, volume: u8) -> Option<&'a Arc<Volume>> {
        let name: VolumeName = self.name(volume).parse().ok()?;
        metadata.volume_named(&name)
    }

    /// Where a snapshot of a volume is held; `None` where the volume has none of that name.
    pub(super) fn holders(&self, entry: &Volume, snapshot: &str) -> Option<Vec<usize>> {
        let kept = entry.snapshots.get(&snapshot.parse().ok()?)?;
        Some(entry.holders(kept).filter_map(|node| self.place_of(node)).collect())
    }

    /// Where a node is.
    pub(super) fn place_of(&self, node: NodeId) -> Option<usize> {
        self.world.admitted.borrow().iter().position(|admitted| *admitted == Some(node))
    }

    /// What a volume is called.
    pub(super) fn name(&self, volume: u8) -> &str {
        &self.world.setting.volumes[usize::from(volume)].name
    }
}

const PAUSE: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 300;
/// For a node that has started to follow, and to be taken in.
const ATTEMPTS_FOR_MEMBERS: u32 = 80;
