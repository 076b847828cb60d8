//! The thread that carries packets: it alone owns devices and links. It sleeps until a site sends something, a packet is due,
//! or there is an order.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::nice;
use rustix::thread::set_current_timer_slack;

use super::device::Device;
use super::moment::Moment;
use super::packet::{FRAME_LIMIT_BYTES, Packet};
use super::path::Path;
use super::pool::Pool;
use super::report::{Report, SiteReport};
use super::settings::Change;
use super::topology::{MOST_SITES, Site, Topology};
use crate::random::Random;

/// What the carrier is told to do, and whom it tells what came of it.
pub(super) struct Order {
    pub(super) action: Action,
    /// The directions that it is about: from the first site to the second.
    pub(super) directions: Vec<(usize, usize)>,
    /// Gets how things are afterwards.
    pub(super) reply: SyncSender<Result<Report>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Cut,
    Heal,
    Set(Change),
    /// Only looks.
    Look,
    Stop,
}

/// A site as the carrier knows it.
pub(super) struct Port {
    pub(super) site: Site,
    pub(super) namespace: String,
    pub(super) device: Device,
}

/// All that the thread owns.
pub(super) struct Carrier {
    ports: Vec<Port>,
    /// From each site (the outer order) to each (the inner one); those from a site to itself carry nothing.
    paths: Vec<Path>,
    /// Packets of each site that go to none.
    strays: Vec<u64>,
    pool: Pool,
    /// What is being read.
    frame: Box<[u8]>,
    started: Instant,
}

impl Carrier {
    pub(super) fn new(topology: &Topology, ports: Vec<Port>) -> Self {
        let mut seeds = Random::new(topology.seed);
        let sites = 0..ports.len();
        let ends = sites.clone().flat_map(|from| sites.clone().map(move |to| (from, to)));
        let paths = ends.map(|(from, to)| Path::new(topology.settings(from, to), seeds.bits())).collect();
        let (strays, pool) = (vec![0; ports.len()], Pool::new());
        Self { ports, paths, strays, pool, frame: vec![0; FRAME_LIMIT_BYTES].into(), started: Instant::now() }
    }

    /// Carries until it is told to stop. `wake` is an eventfd: who sends an order writes to it.
    ///
    /// # Errors
    /// A device is gone, or the system fails; the other sites' packets are not carried any more either.
    pub(super) fn run(mut self, orders: &Receiver<Order>, wake: &OwnedFd) -> Result<()> {
        // The default of 50 µs would be added to each delay.
        set_current_timer_slack(NonZeroU64::new(1))?;
        // What the sites compute delays no packet. Where we may not, the network is less exact on a busy machine.
        let _ = nice(HIGHEST_PRIORITY);
        let mut ready = vec![PollFlags::empty(); self.ports.len()];
        loop {
            self.deliver();
            if self.wait(wake, &mut ready)? && !self.obey(orders, wake)? {
                return Ok(());
            }
            for (from, &flags) in ready.iter().enumerate() {
                if !flags.is_empty() {
                    self.read(from, flags)?;
                }
            }
        }
    }

    fn now(&self) -> Moment {
        Moment::after_start_ns(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Sleeps until there is something to do; whether there are orders. What each device is ready for is put into `ready`.
    fn wait(&self, wake: &OwnedFd, ready: &mut [PollFlags]) -> Result<bool> {
        let next = self.paths.iter().filter_map(Path::next_arrival).min();
        // A thread that sleeps is woken late. So it sleeps until shortly before, and then only looks.
        let until = |next: Moment| next.since(self.now()).saturating_sub(AWAKE_BEFORE);
        let timeout = next.map(|next| Timespec::try_from(until(next))).transpose()?;
        // Behind the devices is `wake`; what is behind that is not polled.
        let fd = |place: usize| self.ports.get(place).map_or(wake.as_fd(), |port| port.device.tun.as_fd());
        let mut polled: [_; MOST_SITES + 1] =
            std::array::from_fn(|place| PollFd::from_borrowed_fd(fd(place), PollFlags::IN));
        match poll(&mut polled[..=self.ports.len()], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the devices"),
        }
        for (ready, polled) in ready.iter_mut().zip(&polled) {
            *ready = polled.revents();
        }
        Ok(!polled[self.ports.len()].revents().is_empty())
    }

    /// Hands over what has arrived.
    fn deliver(&mut self) {
        let now = self.now();
        for (index, path) in self.paths.iter_mut().enumerate() {
            let to = index % self.ports.len();
            path.deliver(now, &self.ports[to].device.tun, &mut self.pool);
        }
    }

    /// Reads what a site has sent: some packets, so that others have their turn.
    fn read(&mut self, from: usize, ready: PollFlags) -> Result<()> {
        let name = self.ports[from].site.name().to_owned();
        if !PollFlags::IN.contains(ready) {
            bail!("the device of the site '{name}' is gone: somebody has deleted it, or its namespace");
        }
        for _ in 0..BATCH {
            let bytes = match rustix::io::read(&self.ports[from].device.tun, &mut self.frame[..]) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).with_context(|| format!("cannot read what the site '{name}' sends")),
            };
            let now = self.now();
            let Self { ports, paths, strays, pool, frame, .. } = self;
            let packet = Packet::of(&frame[..bytes]);
            let to = packet.and_then(|packet| ports.iter().position(|port| port.site.has(packet.destination)));
            match packet.zip(to) {
                Some((packet, to)) if to != from => {
                    paths[from * ports.len() + to].offer(now, &frame[..bytes], packet.wire_bytes, pool);
                }
                _ => strays[from] += 1,
            }
        }
        Ok(())
    }

    /// Does what it is told; whether to go on.
    fn obey(&mut self, orders: &Receiver<Order>, wake: &OwnedFd) -> Result<bool> {
        rustix::io::read(wake, &mut [0; 8]).context("cannot read the eventfd that tells of orders")?;
        while let Ok(Order { action, directions, reply }) = orders.try_recv() {
            let now = self.now();
            for (from, to) in directions {
                let path = &mut self.paths[from * self.ports.len() + to];
                match &action {
                    Action::Cut => path.cut(now, &mut self.pool),
                    Action::Heal => path.heal(),
                    Action::Set(change) => path.change(change),
                    Action::Look | Action::Stop => {}
                }
            }
            // Who does not wait for the answer does not want it.
            let _ = reply.send(self.report(now));
            if matches!(action, Action::Stop) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn report(&mut self, now: Moment) -> Result<Report> {
        let mut sites = Vec::with_capacity(self.ports.len());
        for (Port { site, namespace, device }, &strays) in self.ports.iter_mut().zip(&self.strays) {
            let (name, namespace, address) = (site.name().to_owned(), namespace.clone(), site.address());
            sites.push(SiteReport { name, namespace, address, strays, overruns: device.overruns()? });
        }
        let mut directions = Vec::with_capacity(self.paths.len());
        for (index, path) in self.paths.iter_mut().enumerate() {
            let (from, to) = (index / sites.len(), index % sites.len());
            if from != to {
                directions.push(path.report(now, &sites[from].name, &sites[to].name));
            }
        }
        Ok(Report { sites, directions })
    }
}

/// The least that `nice` knows; it is of this thread alone.
const HIGHEST_PRIORITY: i32 = -20;
/// For so long before a packet is due the thread does not sleep: about as long as it takes to be woken.
const AWAKE_BEFORE: Duration = Duration::from_micros(100);
/// How many packets of one site are read before what is due is handed over: at most half a millisecond of work.
const BATCH: usize = 16;
