//! A cluster from a seed: a node at each of three or five sites, a network between them, clients that write, and faults upon all of
//! it. The nodes are the product's: sessions, Raft, ownership, journals, seals, maps, replicas, failover, over its own TLS and
//! HTTP/2. What is simulated lies below: time, chance, the network's packets, the disk.
//!
//! * [`machine`]: what is left when a machine stops. `life`: what runs on it. `network`: what lies between.
//! * `client`: who writes. `faults`: what is done to it all. `failover`, `members`, `handoff`: volumes that go on elsewhere. `told`: what
//!   nodes tell.
//! * `world`: what a run knows. `shape`: what it is of. `build`: how its cluster comes to be.
//! * `care`, `emptied`: in a run that lasts for hours, what administrators do, and what is left when all was deleted.
//!
//! A run leaves a history as the campaign of real processes does (`sterna_tests::faults::history`), and the same checkers judge it.
//!
//! A process plays one seed (`sterna_entropy`): [`play`] is for `sim`, and the campaign starts one for each.

mod build;
mod care;
mod client;
mod emptied;
mod failover;
mod faults;
mod handoff;
mod life;
pub mod machine;
mod members;
mod network;
mod shape;
mod told;
mod world;

pub use told::log_of;
pub use world::{Cared, HandedOn};

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sterna_cli::node::simulated::{Certificates, Place};
use sterna_tests::faults::check;
use sterna_tests::faults::history::{Handoff, Record, Setting, Takeover, VERSION, VolumeSetting};
use sterna_tests::random::Random;
use sterna_types::{ClusterId, NodeId};
use tokio::time::{Instant, sleep};

use self::build::build;
use self::care::Care;
use self::client::{Client, Progress};
use self::emptied::Emptied;
use self::failover::Failovers;
use self::faults::Faults;
use self::handoff::Handoffs;
use self::machine::Machine;
use self::shape::Shape;
use self::world::{Act, Standing, World};
use crate::ended::Ended;
use crate::surroundings::{self, Clocks, set_clocks, stepped};

/// A run, and its history.
#[derive(Clone, Debug)]
pub struct Played {
    /// How it has ended.
    pub ended: Ended,
    /// All that was asked, answered and told.
    pub history: Vec<Record>,
}

/// Plays a seed, for a minute or two. Once in a process, and on its first thread.
pub fn play(seed: u64) -> Played {
    play_of(Shape::cluster(seed))
}

/// Plays a seed for hours, with many volumes and an administrator: for about thirteen seconds times `faults`. Once in a process, and on
/// its first thread.
pub fn soak(seed: u64, faults: u32) -> Played {
    play_of(Shape::soak(seed, faults))
}

fn play_of(shape: Shape) -> Played {
    let seed = shape.seed;
    sterna_entropy::seed(seed);
    surroundings::install();
    surroundings::begin(seed);
    network::install();
    told::listen();
    let world = match World::of(shape) {
        Ok(world) => Rc::new(world),
        Err(error) => {
            let ended = Ended::before_it_began(seed, format!("the world cannot be made: {error:#}"));
            return Played { ended, history: Vec::new() };
        }
    };
    run(&world);
    let mut history = std::mem::take(&mut *world.records.borrow_mut());
    match told::records(&world) {
        Ok(told) => history.extend(told.into_iter().map(Record::Node)),
        Err(error) => world.violated(format!("what nodes tell is not understood: {error:#}")),
    }
    match check::check(&history) {
        Ok(violations) => violations.iter().for_each(|violation| world.violated(violation.to_string())),
        Err(error) => world.violated(format!("the history is none: {error:#}")),
    }
    let mut story = world.story.take();
    for record in &history {
        story.note(format!("{record:?}").as_bytes());
    }
    let count =
        |is_it: fn(&Record) -> bool| u32::try_from(history.iter().filter(|one| is_it(one)).count()).unwrap_or(u32::MAX);
    let takeovers = count(|record| matches!(record, Record::Takeover(_)));
    let in_sync = count(|record| matches!(record, Record::Takeover(Takeover { is_in_sync: Some(true), .. })));
    let handoffs = count(|record| matches!(record, Record::Handoff(Handoff { epoch: Some(_), .. })));
    let (stops, violation) = (world.stops.get(), world.violation.take());
    let (handed_on, cared) = (world.handed_on.get(), world.cared.get());
    let ended = Ended { seed, stops, takeovers, in_sync, handoffs, handed_on, cared, story, violation };
    Played { ended, history }
}

fn run(world: &Rc<World>) {
    let Shape { seed, longest, .. } = world.shape;
    let mut builder = turmoil::Builder::new();
    builder.rng_seed(seed).tick_duration(TICK).simulation_duration(longest).tcp_capacity(TCP_SEGMENTS);
    builder.min_message_latency(DELAY).max_message_latency(DELAY * 2);
    let mut sim = builder.build();
    let mut random = Random::new(seed);
    let mut progress = Vec::new();
    for node in 0..world.places.len() {
        let clocks = Clocks {
            booted_ns: random.below(1 << 50),
            drift_ppm: i64::try_from(random.below(2 * DRIFT_PPM)).unwrap_or(0) - i64::try_from(DRIFT_PPM).unwrap_or(0),
            ..Clocks::default()
        };
        set_clocks(node, clocks);
        let number = u8::try_from(node).unwrap_or(u8::MAX);
        let clients = (0..).zip(&world.setting.volumes);
        let clients: Vec<_> =
            clients.map(|(volume, _)| Progress::new((volume, number), Random::new(random.bits()))).collect();
        progress.push(Rc::new(clients));
    }
    for (node, progress) in progress.iter().enumerate() {
        let (world, progress) = (Rc::clone(world), Rc::clone(progress));
        sim.host(world.ip(node), move || {
            let (world, progress) = (Rc::clone(&world), Rc::clone(&progress));
            async move {
                life::live(world, node, progress).await;
                Ok(())
            }
        });
    }
    let operator = Rc::clone(world);
    sim.client("operator", async move {
        if let Err(error) = operate(&operator, &progress).await {
            operator.violated(format!("{error:#}"));
        }
        operator.is_over.set(true);
        Ok(())
    });
    while !world.is_over.get() {
        if let Err(error) = sim.step() {
            world.violated(format!("the run cannot go on: {error}"));
        }
        stepped(sim.elapsed());
        if let Some(panic) = told::panicked() {
            world.violated(panic);
        }
        while let Some(act) = { world.acts.borrow_mut().pop_front() } {
            carry_out(&mut sim, world, act);
        }
    }
}

fn carry_out(sim: &mut turmoil::Sim<'_>, world: &World, act: Act) {
    let ip = |node| world.ip(node);
    match act {
        Act::Stop(node, stop) => {
            // Before its tasks are dropped: a machine that has stopped writes nothing more.
            let left = world.machines.borrow()[node].after(stop);
            world.tell(&format!("{node} stops: {stop:?}"));
            world.asks.borrow_mut()[node] = None;
            sim.crash(ip(node));
            world.machines.borrow_mut()[node] = left;
            world.stops.set(world.stops.get() + 1);
        }
        Act::Start(node) => sim.bounce(ip(node)),
        Act::Hold(one, other) => sim.hold(ip(one), ip(other)),
        Act::Release(one, other) => sim.release(ip(one), ip(other)),
        Act::Cut(one, other) => sim.partition(ip(one), ip(other)),
        Act::CutOneWay(from, to) => sim.partition_oneway(ip(from), ip(to)),
        Act::Heal(one, other) => sim.repair(ip(one), ip(other)),
        Act::Slow(one, other, delay) => sim.set_link_latency(ip(one), ip(other), delay),
    }
}

impl World {
    fn of(shape: Shape) -> Result<Self> {
        let cluster = ClusterId::from_bytes([7; 16]);
        let certificates = Certificates::new(cluster)?;
        let (mut places, mut tls) = (Vec::new(), Vec::new());
        for (number, site) in (0u8..).zip(&SITES[..shape.sites]) {
            places.push(Place {
                cluster,
                name: format!("{site}-1").parse()?,
                site: site.parse()?,
                address: SocketAddr::from(([192, 168, 7, number + 1], PORT)),
                metadata: PathBuf::from(format!("{site}-1")),
            });
            tls.push(certificates.of(NodeId(u64::from(number) + 1))?);
        }
        let volumes = (0..shape.volumes()).map(|number| {
            let (place, owner) = (shape.place_of(number), usize::from(number) % shape.sites);
            let name = if shape.generations > 1 { format!("disk-{number}") } else { format!("disk-{}", SITES[owner]) };
            let (owner, copies) = (u8::try_from(owner)?, shape.copies(place).count);
            Ok(VolumeSetting { name, blocks: shape.blocks, owner, copies })
        });
        let volumes: Vec<_> = volumes.collect::<Result<_>>()?;
        let sites = SITES[..shape.sites].iter().map(|site| (*site).to_owned()).collect();
        let session_ms = u64::try_from(SESSION.as_millis())?;
        let setting = Setting { version: VERSION, seed: shape.seed, sites, session_ms, volumes };
        Ok(Self {
            shape,
            certificates: tls,
            machines: RefCell::new((0..shape.sites).map(|_| Machine::new()).collect()),
            admitted: RefCell::new(vec![None; shape.sites]),
            asks: RefCell::new(vec![None; shape.sites]),
            ends: RefCell::new((0..shape.sites).map(|_| None).collect()),
            clients_work: Cell::new(false),
            volumes: RefCell::new(vec![Standing::default(); setting.volumes.len()]),
            acts: RefCell::default(),
            records: RefCell::new(vec![Record::Campaign(setting.clone())]),
            story: RefCell::default(),
            violation: RefCell::default(),
            is_over: Cell::new(false),
            stops: Cell::new(0),
            cared: Cell::default(),
            handed_on: Cell::default(),
            setting,
            places,
        })
    }
}

/// Has the cluster come to be, clients write and faults happen, and all be well again in the end.
async fn operate(world: &Rc<World>, progress: &[Rc<Vec<Progress>>]) -> Result<()> {
    let power = if world.shape.power_is_lost { ", and power is lost" } else { "" };
    world.tell(&format!("{} sites{power}", world.places.len()));
    build(world).await.context("the cluster does not come to be")?;
    world.tell("the cluster is there");
    let failovers = Failovers::new(world);
    world.clients_work.set(true);
    until_served(world).await.context("before the first fault")?;
    let faults = Faults::new(world, &failovers);
    let handoffs = Handoffs::new(world, &failovers);
    let disturbed = handoffs.until(faults.inflict());
    let care = world.shape.is_cared_for.then(|| Care::new(world, &failovers));
    match &care {
        None => disturbed.await,
        Some(care) => care.until(disturbed).await,
    }
    world.tell("all faults are over");
    let began = Instant::now();
    until_served(world).await?;
    world.clients_work.set(false);
    for volume in (0..world.shape.places).map(|place| world.standing(place)) {
        let _turn = failovers.turn(volume).await;
        while let Some(missing) = failovers.take_down(volume).await {
            ensure!(began.elapsed() < PATIENCE, "for {PATIENCE:?}, of the failovers of volume {volume}: {missing}");
            sleep(PAUSE).await;
        }
        loop {
            if let Some(owner) = failovers.owner(volume).await {
                let progress = progress[owner][usize::from(volume)].clone();
                let own = Rc::clone(world);
                let read =
                    world.ask(owner, |node| async move { Client::new(own, node, progress).read_at_the_end().await });
                if read.await == Some(true) {
                    break;
                }
            }
            ensure!(began.elapsed() < PATIENCE, "for {PATIENCE:?} volume {volume} could not be read at the end");
            sleep(PAUSE).await;
        }
    }
    world.tell("all volumes were read");
    match care {
        None => Ok(()),
        Some(care) => Emptied { world: Rc::clone(world), failovers, care }.run().await,
    }
}

/// Waits until a client of each volume has had two more flushes acknowledged: one of them it has asked for now.
async fn until_served(world: &World) -> Result<()> {
    let flushes = || {
        let standing = (0..world.shape.places).map(|place| world.standing(place));
        standing.map(|volume| world.with(volume, |standing| standing.flushes)).collect::<Vec<_>>()
    };
    let (began, before) = (Instant::now(), flushes());
    while flushes().iter().zip(&before).any(|(now, before)| *now < before + 2) {
        if began.elapsed() > PATIENCE {
            bail!(
                "for {PATIENCE:?} nothing disturbs it, and the volumes' flushes went from {before:?} to {:?}",
                flushes()
            );
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The most that a cluster has.
pub const MOST_SITES: usize = SITES.len();
const SITES: [&str; 5] = ["ams", "chi", "icn", "gru", "syd"];
const PORT: u16 = 7_400;
/// Shorter than the longer ones of the faults.
const SESSION: Duration = Duration::from_secs(2);
/// What lies between any two sites without a fault, one way; some messages take twice as long.
const DELAY: Duration = Duration::from_millis(15);
/// Clocks drift by less than one percent (design section 5).
const DRIFT_PPM: u64 = 9_000;
/// Nothing is faster between two sites.
const TICK: Duration = Duration::from_millis(5);
/// For all to be well again: elections, and connections that have to be found dead.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// What waits at a machine to be read.
const TCP_SEGMENTS: usize = 4_096;
