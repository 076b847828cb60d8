//! What a run knows: its machines, the nodes that run on them, and all that has happened. Everything of a run is on one thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::ops::AddAssign;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sterna_cli::node::simulated::{NodeHandle, Place};
use sterna_tests::faults::history::{Record, Setting};
use sterna_tests::faults::mark::Found;
use sterna_transport::Tls;
use sterna_types::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::machine::Machine;
use super::shape::Shape;
use crate::site::Stop;
use crate::story::Story;
use crate::surroundings::now_ns;

/// Something that a node does for whoever asks it.
pub(super) type Ask = Box<dyn FnOnce(NodeHandle) -> Pin<Box<dyn Future<Output = ()>>>>;

/// What is done to machines and to what lies between them, from outside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// A machine stops.
    Stop(usize, Stop),
    /// A machine that has stopped starts.
    Start(usize),
    /// What two send each other is late until it is let go.
    Hold(usize, usize),
    /// It is let go.
    Release(usize, usize),
    /// What two send each other is lost.
    Cut(usize, usize),
    /// What the first sends to the second is lost.
    CutOneWay(usize, usize),
    /// Nothing is lost any more.
    Heal(usize, usize),
    /// What two send each other takes so long, one way.
    Slow(usize, usize, Duration),
}

/// The world of one run.
pub(super) struct World {
    pub(super) shape: Shape,
    /// With every volume that may ever be.
    pub(super) setting: Setting,
    pub(super) places: Vec<Place>,
    pub(super) certificates: Vec<Tls>,
    /// What has become of each of these volumes.
    pub(super) volumes: RefCell<Vec<Standing>>,
    pub(super) machines: RefCell<Vec<Machine>>,
    /// The ids of those that the cluster has let in.
    pub(super) admitted: RefCell<Vec<Option<NodeId>>>,
    /// The way to each node that runs.
    pub(super) asks: RefCell<Vec<Option<mpsc::UnboundedSender<Ask>>>>,
    /// Tells a node to end in good order.
    pub(super) ends: RefCell<Vec<Option<oneshot::Sender<()>>>>,
    /// Whether clients work.
    pub(super) clients_work: Cell<bool>,
    pub(super) acts: RefCell<VecDeque<Act>>,
    pub(super) records: RefCell<Vec<Record>>,
    pub(super) story: RefCell<Story>,
    pub(super) violation: RefCell<Option<String>>,
    pub(super) is_over: Cell<bool>,
    pub(super) stops: Cell<u32>,
    pub(super) cared: Cell<Cared>,
    pub(super) handed_on: Cell<HandedOn>,
}

/// What has become of a volume.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// What the cluster calls it, once it is there.
    pub(super) id: Option<u64>,
    /// Whether it is to go, or has gone: no client comes to it.
    pub(super) is_closed: bool,
    /// How many flushes of it were acknowledged.
    pub(super) flushes: u64,
    /// The snapshot that its client is to take next.
    pub(super) wanted: Option<String>,
    /// Its snapshots that were acknowledged and not given up, and what each has held from the first look on.
    pub(super) snapshots: BTreeMap<String, Vec<Found>>,
}

/// How often administrators have done something, as that was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cared {
    /// A snapshot was taken.
    pub snapshots: u32,
    /// A volume was deleted.
    pub deletions: u32,
    /// What nothing needs was collected at a site.
    pub collections: u32,
}

/// How often a volume was handed over before all of it had arrived at who had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOn {
    /// To any node.
    pub all: u32,
    /// To one that still kept something of it.
    pub back: u32,
}

impl AddAssign for HandedOn {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.back += other.back;
    }
}

impl AddAssign for Cared {
    fn add_assign(&mut self, other: Self) {
        self.snapshots += other.snapshots;
        self.deletions += other.deletions;
        self.collections += other.collections;
    }
}

impl World {
    /// Goes on with the story.
    pub(super) fn tell(&self, what: &str) {
        let ms = now_ns() / 1_000_000;
        self.story.borrow_mut().tell(format!("{:4}.{:03} s  {what}", ms / 1_000, ms % 1_000));
    }

    /// Takes something down.
    pub(super) fn record(&self, record: Record) {
        self.records.borrow_mut().push(record);
    }

    /// A promise was not kept; the first one counts.
    pub(super) fn violated(&self, what: String) {
        self.tell(&what);
        self.violation.borrow_mut().get_or_insert(what);
        self.is_over.set(true);
    }

    /// Has something done from outside, before time goes on.
    pub(super) fn act(&self, act: Act) {
        self.acts.borrow_mut().push_back(act);
    }

    /// Asks a node for something; `None` where it does not run, or ends before it has answered, or does not answer for long.
    pub(super) async fn ask<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        node: usize,
        what: impl FnOnce(NodeHandle) -> F + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let ask: Ask = Box::new(move |handle| {
            let asked = what(handle);
            Box::pin(async move {
                // Who has asked may have lost patience.
                let _ = answer.send(asked.await);
            })
        });
        let way = self.asks.borrow()[node].clone()?;
        way.send(ask).ok()?;
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }

    /// Looks at what has become of a volume, or changes it.
    pub(super) fn with<T>(&self, volume: u8, act: impl FnOnce(&mut Standing) -> T) -> T {
        act(&mut self.volumes.borrow_mut()[usize::from(volume)])
    }

    /// Whether a volume is to go, or has gone.
    pub(super) fn is_closed(&self, volume: u8) -> bool {
        self.with(volume, |standing| standing.is_closed)
    }

    /// The volume that has a place now: the first that is not to go, or the last.
    pub(super) fn standing(&self, place: u8) -> u8 {
        let all = (0..self.shape.generations).map(|generation| place + generation * self.shape.places);
        let mut last = place;
        for volume in all {
            last = volume;
            if !self.is_closed(volume) {
                break;
            }
        }
        last
    }

    /// Counts what an administrator has done.
    pub(super) fn count(&self, what: impl FnOnce(&mut Cared)) {
        let mut cared = self.cared.get();
        what(&mut cared);
        self.cared.set(cared);
    }

    /// Counts that a volume was handed over before all of it had arrived, and whether back.
    pub(super) fn count_handed_on(&self, back: bool) {
        let mut handed_on = self.handed_on.get();
        handed_on += HandedOn { all: 1, back: back.into() };
        self.handed_on.set(handed_on);
    }

    /// Where a node is.
    pub(super) fn ip(&self, node: usize) -> IpAddr {
        self.places[node].address.ip()
    }
}

/// Longer than a node is patient.
const PATIENCE: Duration = Duration::from_secs(30);
