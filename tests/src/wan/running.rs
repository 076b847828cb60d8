//! A wan that is running.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::geteuid;

use super::carrier::{Action, Carrier, Order, Port};
use super::device::{self, Device};
use super::namespace::{self, Leftovers, Namespace, Prefix, command_inside, namespace_name};
use super::report::Report;
use super::settings::{Change, Settings};
use super::topology::{Offload, Topology};

/// A wan: its namespaces, its devices, and the thread that carries packets between them. Dropping it removes them all.
///
/// Its methods may be called from several threads. When one returns, what it is about has happened.
///
/// ```no_run
/// # use sterna_tests::wan::{Settings, Topology, Wan, Ways};
/// let settings = Settings { delay: "40ms".parse()?, ..Settings::default() };
/// let wan = Wan::start(Topology::of(&["ams", "nyc"], settings)?)?;
/// let server = wan.inside("ams", || std::net::TcpListener::bind("10.77.1.1:7000"))??;
/// let client = wan.inside("nyc", || std::net::TcpStream::connect("10.77.1.1:7000"))??;
/// wan.cut("ams", "nyc", Ways::Both)?;
/// wan.stop()?;
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct Wan {
    topology: Topology,
    orders: SyncSender<Order>,
    /// Wakes the thread.
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// Why the thread has ended, where nobody has told it to.
    failure: Arc<OnceLock<String>>,
    /// Whether each site hands over packets that are yet to be cut into segments.
    super_packets: Mutex<Vec<bool>>,
    /// In the sites' order. Behind the thread, so that they go after the devices.
    namespaces: Vec<Namespace>,
}

/// Which directions between two sites something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// From each to the other.
    Both,
    /// From the first to the second.
    OneWay,
}

impl Wan {
    /// Makes the namespaces and devices, and carries packets between them from then on.
    ///
    /// # Errors
    /// We are not root; the prefix is in use, or a wan that was killed has left namespaces with it; the system refuses
    /// something. Nothing is left behind.
    pub fn start(topology: Topology) -> Result<Self> {
        ensure!(geteuid().is_root(), NEEDS_ROOT);
        let prefix = match topology.prefix() {
            Some(prefix) => {
                ensure_free(prefix)?;
                prefix.clone()
            }
            None => {
                namespace::remove_those_of_the_dead()?;
                Prefix::unique()
            }
        };
        let wanted = super_packets_wanted(&topology);
        let (mut namespaces, mut ports) = (Vec::new(), Vec::new());
        for (site, &super_packets) in topology.sites().iter().zip(&wanted) {
            let namespace = Namespace::create(namespace_name(&prefix, site.name()))?;
            let name = namespace.name().to_owned();
            namespaces.push(namespace);
            let device = Device::open(&name)?;
            device::set_up(&name, site, &topology)?;
            device::set_super_packets(&name, super_packets)?;
            ports.push(Port { site: site.clone(), namespace: name, device });
        }
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (orders, received) = mpsc::sync_channel(MOST_ORDERS);
        let carrier = Carrier::new(&topology, ports);
        let failure = Arc::new(OnceLock::new());
        let (its_wake, its_failure) = (Arc::clone(&wake), Arc::clone(&failure));
        let thread = thread::Builder::new().name("wan".to_owned()).spawn(move || {
            if let Err(error) = carrier.run(&received, &its_wake) {
                // It is set here alone.
                let _ = its_failure.set(format!("{error:#}"));
            }
        })?;
        let (thread, super_packets) = (Some(thread), Mutex::new(wanted));
        Ok(Self { topology, orders, wake, thread, failure, super_packets, namespaces })
    }

    /// Cuts what lies between two sites. What is in flight there never arrives, and neither does what is sent from now on: once
    /// this has returned, no packet passes.
    ///
    /// # Errors
    /// There is no such site, or the wan has failed.
    pub fn cut(&self, one: &str, other: &str, ways: Ways) -> Result<()> {
        self.order(Action::Cut, self.directions(one, other, ways)?).map(drop)
    }

    /// Heals what was cut. That it was not is no error.
    ///
    /// # Errors
    /// There is no such site, or the wan has failed.
    pub fn heal(&self, one: &str, other: &str, ways: Ways) -> Result<()> {
        self.order(Action::Heal, self.directions(one, other, ways)?).map(drop)
    }

    /// Sets something anew between two sites, for what is sent from now on.
    ///
    /// # Errors
    /// There is no such site, or the wan has failed.
    pub fn set(&self, one: &str, other: &str, ways: Ways, change: &Change) -> Result<()> {
        let directions = self.directions(one, other, ways)?;
        // Held on to, so that what is set by several threads ends with the devices as the last of them wants them.
        let mut super_packets = self.super_packets.lock().unwrap_or_else(PoisonError::into_inner);
        let report = self.order(Action::Set(*change), directions)?;
        if self.topology.offload != Offload::Auto {
            return Ok(());
        }
        for ((site, namespace), current) in self.topology.sites().iter().zip(&self.namespaces).zip(&mut *super_packets)
        {
            let mut leaving = report.directions.iter().filter(|direction| direction.from == site.name());
            let wanted = leaving.all(|direction| {
                let (rate, loss) = (direction.rate, direction.loss);
                Settings { rate, loss, ..Settings::default() }.suits_super_packets()
            });
            if wanted != *current {
                device::set_super_packets(namespace.name(), wanted)?;
                *current = wanted;
            }
        }
        Ok(())
    }

    /// What has happened so far.
    ///
    /// # Errors
    /// The wan has failed.
    pub fn report(&self) -> Result<Report> {
        self.order(Action::Look, Vec::new())
    }

    /// The name of a site's network namespace, as `ip netns` knows it.
    ///
    /// # Errors
    /// There is no such site.
    pub fn namespace(&self, site: &str) -> Result<&str> {
        Ok(self.namespaces[self.topology.place(site)?].name())
    }

    /// The address of a site's device.
    ///
    /// # Errors
    /// There is no such site.
    pub fn address(&self, site: &str) -> Result<Ipv4Addr> {
        Ok(self.topology.sites()[self.topology.place(site)?].address())
    }

    /// A command that runs a program at a site.
    ///
    /// # Errors
    /// There is no such site.
    pub fn command(&self, site: &str, program: &str) -> Result<Command> {
        Ok(command_inside(self.namespace(site)?, program))
    }

    /// Runs something at a site, on a thread of its own. Sockets that are made in it stay at the site, whoever uses them.
    ///
    /// # Errors
    /// There is no such site, or its namespace is gone.
    ///
    /// # Panics
    /// Where `body` does.
    pub fn inside<T: Send>(&self, site: &str, body: impl FnOnce() -> T + Send) -> Result<T> {
        namespace::inside(self.namespace(site)?, body)
    }

    /// Why packets are not carried any more, where they are not.
    pub fn failure(&self) -> Option<&str> {
        let is_over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        self.failure.get().map(String::as_str).or(is_over.then_some(PANICKED))
    }

    /// Stops it, and removes all that it has made.
    ///
    /// # Errors
    /// It had failed before, or something cannot be removed.
    pub fn stop(mut self) -> Result<()> {
        if let Some(failure) = self.failure() {
            bail!("the wan has failed: {failure}");
        }
        self.order(Action::Stop, Vec::new())?;
        self.join();
        std::mem::take(&mut self.namespaces).into_iter().try_for_each(Namespace::remove)
    }

    /// Waits for the thread, and so for the end of its devices.
    fn join(&mut self) {
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("{PANICKED}");
        }
    }

    fn directions(&self, one: &str, other: &str, ways: Ways) -> Result<Vec<(usize, usize)>> {
        let (from, to) = (self.topology.place(one)?, self.topology.place(other)?);
        ensure!(from != to, "nothing lies between '{one}' and itself");
        Ok(match ways {
            Ways::Both => vec![(from, to), (to, from)],
            Ways::OneWay => vec![(from, to)],
        })
    }

    /// Has the thread do something, and waits for how things are afterwards.
    fn order(&self, action: Action, directions: Vec<(usize, usize)>) -> Result<Report> {
        let (reply, answer) = mpsc::sync_channel(1);
        let failed = || anyhow!("the wan has failed: {}", self.failure().unwrap_or(PANICKED));
        self.orders.send(Order { action, directions, reply }).map_err(|_| failed())?;
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).context("cannot wake the wan")?;
        answer.recv().map_err(|_| failed())?
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Where it has failed it has ended.
            let _ = self.order(Action::Stop, Vec::new());
            self.join();
        }
    }
}

fn ensure_free(prefix: &Prefix) -> Result<()> {
    let Leftovers { in_use, idle } = Leftovers::of(prefix)?;
    ensure!(
        in_use.is_empty(),
        "a wan with the prefix '{prefix}' is running (it has {}): end it first, or choose another prefix",
        in_use.join(", ")
    );
    ensure!(
        idle.is_empty(),
        "a wan that was killed has left the namespaces {}: remove them with `wan clean --prefix {prefix}`",
        idle.join(", ")
    );
    Ok(())
}

/// For each site.
fn super_packets_wanted(topology: &Topology) -> Vec<bool> {
    let sites = 0..topology.sites().len();
    let suits =
        |from| sites.clone().filter(|&to| to != from).all(|to| topology.settings(from, to).suits_super_packets());
    match topology.offload {
        Offload::On => sites.map(|_| true).collect(),
        Offload::Off => sites.map(|_| false).collect(),
        Offload::Auto => sites.clone().map(suits).collect(),
    }
}

const NEEDS_ROOT: &str = "a wan needs root, for network namespaces and TUN devices: run this as root, or through sudo";
const PANICKED: &str = "its thread has panicked";

/// Orders that may wait: each is answered within a millisecond, and who gives one waits.
const MOST_ORDERS: usize = 16;
