//! Each victim is struck at each moment of a migration, and what is left is judged: of the two QEMUs one runs, and at no time both; the
//! guest's data is what it was told; both hosts know how it went.
//!
//! The guest counts: it writes each number to its disk, flushes, and only then says it on its console. So what the disk holds in the end
//! is at least what was said last, wherever the guest was then.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use super::hosts::Hosts;
use super::strike::{Moment, Tail, Victim};
use crate::client::{Request, Style};
use crate::disk_server::DiskServer;
use crate::guest::qmp::Qmp;
use crate::guest::{CONTROL, Guest};
use crate::migrator::process_in;
use crate::random::Random;
use crate::tool::{self, Running, until};
use crate::wan::{Settings, Topology, Wan, Ways};

/// Strikes, each in the middle of a migration of its own.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// What is struck, and when.
    pub rounds: Vec<(Moment, Victim)>,
    /// Where everything is.
    pub directory: PathBuf,
}

/// How one of them went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Struck {
    /// When it was.
    pub moment: String,
    /// What it was.
    pub victim: String,
    /// Where the VM runs in the end: `source`, `destination` or `nowhere`.
    pub runs: String,
    /// How the migration has ended, by what the source's migrator tells; empty where that host tells nothing.
    pub told: String,
    /// From the strike until nothing was under way any more.
    pub settled_seconds: f64,
    /// The last number that the guest has said.
    pub said: u64,
    /// What its disk holds.
    pub kept: u64,
}

impl Campaign {
    /// Some of all strikes, by chance; all of them, in order, where `count` is none.
    pub fn plan(seed: u64, count: Option<usize>, directory: PathBuf) -> Self {
        let mut rounds: Vec<_> =
            Moment::ALL.into_iter().flat_map(|moment| Victim::ALL.map(|victim| (moment, victim))).collect();
        if let Some(count) = count {
            let mut random = Random::new(seed);
            for at in (1..rounds.len()).rev() {
                let other = random.below(at as u64 + 1);
                rounds.swap(at, usize::try_from(other).expect("less than there are"));
            }
            rounds.truncate(count);
        }
        Self { rounds, directory }
    }

    /// Strikes. `tell` is shown each as it has ended.
    ///
    /// # Errors
    /// What was promised was not kept, with what was struck; or something cannot be done.
    pub fn run(&self, mut tell: impl FnMut(&Struck)) -> Result<Vec<Struck>> {
        let between = Settings { delay: "5ms".parse()?, rate: "200M".parse()?, ..Settings::default() };
        let wan = Arc::new(Wan::start(Topology::of(&SITES, between)?)?);
        let mut hosts = Hosts::start(&self.directory, &SITES, Some(Arc::clone(&wan)))?;
        let mut all = Vec::new();
        for (number, &(moment, victim)) in self.rounds.iter().enumerate() {
            let round = Round { name: format!("vm{number}"), disk: format!("disk{number}"), moment, victim };
            let struck = round.play(&mut hosts, &wan);
            let struck = struck.with_context(|| format!("round {number}: {victim} was struck at {moment}"))?;
            tell(&struck);
            all.push(struck);
        }
        Ok(all)
    }
}

/// One migration, and one strike.
struct Round {
    name: String,
    disk: String,
    moment: Moment,
    victim: Victim,
}

impl Round {
    fn play(&self, hosts: &mut Hosts, wan: &Wan) -> Result<Struck> {
        let mut guest = hosts.boot(&self.name, &[(&self.disk, DISK_BYTES)])?;
        let job = guest.start(COUNT)?;
        until(WORK_LIMIT, || Ok(said_in(&hosts.home(&self.name)) > 3))?;
        let end = if self.moment.is_source { SOURCE } else { DESTINATION };
        let mut tail = Tail::of(&hosts.migrators[end].log_path())?;
        let asked = hosts.migrate(&self.name, "chi").spawn()?;
        let (step, vm) = (format!("step={}", self.moment.step), hosts.migrators[DESTINATION].directory_of(&self.name));
        let watch = thread::spawn({
            let vm = vm.clone();
            move || meet(&vm)
        });
        tail.wait_for(&[&step], WORK_LIMIT).with_context(|| hosts.logs())?;
        let (struck, struck_at) = (Instant::now(), seconds_since_1970()?);
        self.strike(hosts, wan, &mut guest)?;
        thread::sleep(if self.victim == Victim::Link { LINK_CUT } else { DOWN });
        self.heal(hosts, wan)?;
        let ended = wait(asked)?;
        self.settle(hosts)?;
        let settled_seconds = struck.elapsed().as_secs_f64();
        let other = watch.join().expect("whoever watches does not panic");
        self.judge(hosts, guest, other, &vm, struck_at, settled_seconds, &job)
            .with_context(|| format!("{ended}\n{}", hosts.logs()))
    }

    fn strike(&self, hosts: &mut Hosts, wan: &Wan, guest: &mut Guest) -> Result<()> {
        let coming = hosts.migrators[DESTINATION].directory_of(&self.name);
        let kill_coming = || process_in(&coming).map_or(Ok(()), |process| tool::signal(process, Signal::KILL));
        match self.victim {
            Victim::SourceMigrator => hosts.migrators[SOURCE].process().kill(),
            Victim::DestinationMigrator => hosts.migrators[DESTINATION].process().kill(),
            Victim::SourceNode => hosts.cluster.nodes[SOURCE].kill(),
            Victim::DestinationNode => hosts.cluster.nodes[DESTINATION].kill(),
            Victim::SourceQemu => tool::signal(guest.id(), Signal::KILL),
            // There may be none yet, or none any more.
            Victim::DestinationQemu => kill_coming(),
            Victim::Link => wan.cut(SITES[SOURCE], SITES[DESTINATION], Ways::Both),
            Victim::SourceHost => {
                hosts.migrators[SOURCE].process().kill()?;
                hosts.cluster.nodes[SOURCE].kill()?;
                tool::signal(guest.id(), Signal::KILL)
            }
            Victim::DestinationHost => {
                hosts.migrators[DESTINATION].process().kill()?;
                hosts.cluster.nodes[DESTINATION].kill()?;
                kill_coming()
            }
        }
    }

    fn heal(&self, hosts: &mut Hosts, wan: &Wan) -> Result<()> {
        match self.victim {
            Victim::SourceMigrator => hosts.migrators[SOURCE].run(),
            Victim::DestinationMigrator => hosts.migrators[DESTINATION].run(),
            Victim::SourceNode => hosts.cluster.nodes[SOURCE].run(),
            Victim::DestinationNode => hosts.cluster.nodes[DESTINATION].run(),
            Victim::SourceQemu | Victim::DestinationQemu => Ok(()),
            Victim::Link => wan.heal(SITES[SOURCE], SITES[DESTINATION], Ways::Both),
            Victim::SourceHost => {
                hosts.cluster.nodes[SOURCE].run()?;
                hosts.migrators[SOURCE].run()
            }
            Victim::DestinationHost => {
                hosts.cluster.nodes[DESTINATION].run()?;
                hosts.migrators[DESTINATION].run()
            }
        }
    }

    /// Waits until neither host has a migration of it under way.
    fn settle(&self, hosts: &Hosts) -> Result<()> {
        let settled = until(SETTLE_LIMIT, || {
            let leaves = hosts.vm(SOURCE, &self.name)?.is_some_and(|vm| !vm["migration"].is_null());
            Ok(!leaves && !hosts.migrators[DESTINATION].has_incoming()?)
        })?;
        ensure!(settled, "a migration is still under way after {SETTLE_LIMIT:?}: {}", hosts.logs());
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all that was seen of a round, judged at once")]
    fn judge(
        &self,
        hosts: &Hosts,
        mut guest: Guest,
        other: Option<Qmp>,
        coming: &Path,
        struck_at: f64,
        settled_seconds: f64,
        job: &crate::guest::Job,
    ) -> Result<Struck> {
        let there = spans(other.as_ref().map(|qmp| qmp.all_events()).unwrap_or_default(), None);
        let here = spans(guest.qmp().all_events(), Some(if guest.has_ended()? { struck_at } else { f64::INFINITY }));
        for (from, to) in &here {
            let both = there.iter().find(|(begin, end)| begin < to && from < end);
            ensure!(both.is_none(), "it ran at both hosts: {here:?} and {there:?}");
        }
        let mut other = other;
        let runs_here = !guest.has_ended()? && runs(guest.qmp());
        let runs_there = process_in(coming).is_ok() && other.as_mut().is_some_and(runs);
        let place = match (runs_here, runs_there) {
            (true, true) => anyhow::bail!("it runs at both hosts"),
            (true, false) => "source",
            (false, true) => "destination",
            (false, false) => "nowhere",
        };
        let known = hosts.cluster.nodes[SOURCE].value(["vm", "show", &self.name]).ok();
        let told = known.as_ref().and_then(|vm| vm["last"]["end"].as_str()).unwrap_or_default().to_owned();
        if place == "nowhere" {
            let may_be = matches!(
                self.victim,
                Victim::SourceQemu | Victim::DestinationQemu | Victim::SourceHost | Victim::DestinationHost
            );
            ensure!(may_be, "the VM runs nowhere, and no QEMU was struck: {known:?}");
        }
        // Still the guest that it was: it counts on, and ends when it is told.
        let said = said_in(&hosts.home(&self.name)).max(said_in(coming));
        if place != "nowhere" {
            if runs_there {
                guest = guest.follow(coming, other)?;
            }
            guest.succeed("touch /run/enough")?;
            let counted = guest.finish(job, WORK_LIMIT)?;
            ensure!(counted.status == 0, "the guest failed to count: {counted}");
            guest.expect_no_disk_error()?;
        }
        let said = said.max(said_in(&hosts.home(&self.name))).max(said_in(coming));
        guest.kill_if_it_runs()?;
        let kept = self.kept(hosts)?;
        ensure!(kept >= said, "the guest has said {said}, and its disk holds {kept}");
        let (moment, victim) = (self.moment.to_string(), self.victim.to_string());
        Ok(Struck { moment, victim, runs: place.to_owned(), told, settled_seconds, said, kept })
    }

    /// The number on its disk, by whoever owns that.
    fn kept(&self, hosts: &Hosts) -> Result<u64> {
        let mut found = None;
        let is_served = until(SETTLE_LIMIT, || {
            let shown = hosts.cluster.nodes[SOURCE].value(["volume", "show", &self.disk])?;
            let owner = if shown["volume"]["owner"] == "chi-1" { DESTINATION } else { SOURCE };
            let Ok((mut client, _)) = hosts.cluster.nodes[owner].disk(&self.disk).attach(Style::Structured) else {
                return Ok(false);
            };
            let answer = client.call(Request::read(COUNTER_AT, 512))?;
            if answer.error() == 0 {
                found = String::from_utf8_lossy(&answer.data()[..16]).trim_matches(['\0', ' ']).parse().ok();
            }
            Ok(found.is_some())
        })?;
        ensure!(is_served, "the volume is not served");
        found.context("a number is on the disk")
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moment, victim, runs, told, settled_seconds, said, kept } = self;
        write!(
            f,
            "{victim} at {moment}: runs at {runs} after {settled_seconds:.1} s; told '{told}'; said {said}, kept {kept}"
        )
    }
}

/// QEMU's control socket at the destination, as soon as it is there; nothing where it never is, or another one has come in between.
fn meet(directory: &Path) -> Option<Qmp> {
    let mut met = None;
    let _ = until(MEET_LIMIT, || {
        met = std::os::unix::net::UnixStream::connect(directory.join(CONTROL)).ok().and_then(|s| Qmp::greet(s).ok());
        Ok(met.is_some())
    });
    met
}

fn runs(qmp: &mut Qmp) -> bool {
    qmp.execute("query-status", Value::Object(Default::default())).is_ok_and(|status| status["running"] == true)
}

/// When the machine ran, by QEMU's clock, which is the same for all on this machine. `initial` is of one that ran from its beginning: until
/// when, if nothing has stopped it.
fn spans(events: Vec<Value>, initial: Option<f64>) -> Vec<(f64, f64)> {
    let (mut spans, mut since) = (Vec::new(), initial.map(|_| 0.0));
    for event in events {
        let at = event["timestamp"]["seconds"].as_f64().unwrap_or(0.0)
            + event["timestamp"]["microseconds"].as_f64().unwrap_or(0.0) / 1e6;
        match event["event"].as_str() {
            Some("RESUME") => since = since.or(Some(at)),
            Some("STOP") => spans.extend(since.take().map(|since| (since, at))),
            _ => {}
        }
    }
    spans.extend(since.map(|since| (since, initial.unwrap_or(f64::INFINITY))));
    spans
}

/// The last number on the console in a guest's directory.
fn said_in(directory: &Path) -> u64 {
    let console = fs::read(directory.join("console")).unwrap_or_default();
    let text = String::from_utf8_lossy(&console).into_owned();
    // The last line may be cut off.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().rev().find_map(|line| line.trim().strip_prefix("n=")?.parse().ok()).unwrap_or(0)
}

fn wait(asked: Running) -> Result<String> {
    Ok(asked.wait()?.to_string())
}

fn seconds_since_1970() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Counts until it is told that it is enough; each number is on the disk before it is said.
const COUNT: &str = "set -e; n=0
while [ ! -e /run/enough ]; do
    n=$((n + 1))
    printf '%016d' $n | dd of=/dev/vda bs=512 seek=8192 conv=fsync,notrunc 2>/dev/null
    echo n=$n >/dev/ttyS0
done";

/// Where the number is.
const COUNTER_AT: u64 = 8192 * 512;

const SITES: [&str; 3] = ["ams", "chi", "icn"];
const SOURCE: usize = 0;
const DESTINATION: usize = 1;
const DISK_BYTES: u64 = 64 << 20;

/// How long what was killed is gone.
const DOWN: Duration = Duration::from_millis(500);
/// How long a link is cut.
const LINK_CUT: Duration = Duration::from_secs(5);
/// What a small guest takes for anything.
const WORK_LIMIT: Duration = Duration::from_secs(120);
/// Until a QEMU was started for the VM, if ever.
const MEET_LIMIT: Duration = Duration::from_secs(20);
/// A destination waits a minute for a source that says nothing.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
