//! The source's end of one migration: it looks at what there is, and does what [`crate::phase::source()`] says.
//!
//! * [`setup`]: what it is about. [`record`]: what it remembers, and what it tells. `sending`: the VM's memory on its way.
//!   `look`: what there is of QEMU and volumes.

mod look;
pub mod record;
mod sending;
pub mod setup;

use std::sync::Arc;
use std::time::Duration;

use sterna_proto::migrator::{AskRequest, GiveUpRequest, PrepareRequest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::converge::Rounds;
use crate::hooks::Event;
use crate::peer::Outcome;
use crate::phase::source::{Destination, Memory, OutgoingVm};
use crate::phase::{SourceFacts, SourceStep, Verdict, source};
use crate::qmp::{Commands, MigrationInfo, QmpError};
use crate::stream::return_path::Message;
use crate::volumes::{Passage, Purpose};

use record::{End, Phase, Progress, Report};
use sending::Sending;
use setup::{Setup, SourceError};

/// A migration at its source.
pub struct Source {
    setup: Setup,
    wish: watch::Receiver<Option<String>>,
    progress: watch::Sender<Progress>,
    given_up: Option<String>,
    outcome: watch::Sender<Outcome>,
    sending: Option<Sending>,
    passage: Option<Passage>,
    is_prepared: bool,
    is_handed_over: bool,
    rounds: Rounds,
    round: u64,
    is_converged: bool,
    /// Since when it has been once.
    converged: Option<Instant>,
    info: MigrationInfo,
    times: Times,
    brought_bytes: u64,
    volumes_paused: Option<Duration>,
    waited_for_volumes: Option<Duration>,
}

/// When what was.
struct Times {
    began: Instant,
    stopped: Option<Instant>,
    runs: Option<Instant>,
    downtime: Option<Duration>,
}

impl Source {
    /// One that is to begin. It is given up once `wish` has a reason for that. How far it is, is told to `progress`.
    pub fn new(setup: Setup, wish: watch::Receiver<Option<String>>, progress: watch::Sender<Progress>) -> Self {
        let times = Times { began: Instant::now(), stopped: None, runs: None, downtime: None };
        Self {
            // There is no memory of what was sent: whatever there is can be ended, and not gone on with.
            given_up: setup.vm.is_none().then(|| SourceError::Restarted.to_string()),
            setup,
            wish,
            progress,
            outcome: watch::Sender::new(Outcome::Unknown),
            sending: None,
            passage: None,
            is_prepared: false,
            is_handed_over: false,
            rounds: Rounds::new(),
            round: 0,
            is_converged: false,
            converged: None,
            info: MigrationInfo::default(),
            times,
            brought_bytes: 0,
            volumes_paused: None,
            waited_for_volumes: None,
        }
    }

    /// Does it, to its end.
    ///
    /// # Cancel safety
    /// Dropped, it leaves what there is to the next one who looks: the VM stands or runs, as the last step has left it.
    pub async fn run(mut self) -> Report {
        loop {
            let facts = self.look().await;
            let step = source(&facts);
            tracing::debug!(migration = %self.setup.migration, ?facts, ?step, "the source of a migration");
            self.tell(&facts);
            let end = match step {
                SourceStep::Moved => Some(End::Moved),
                SourceStep::Kept => Some(End::Kept),
                SourceStep::Lost => Some(End::Lost),
                _ => None,
            };
            if let Some(end) = end {
                return self.report(end);
            }
            if let Err(error) = self.take(step).await {
                tracing::warn!(migration = %self.setup.migration, ?step, %error, "a step of a migration has failed");
                self.given_up.get_or_insert_with(|| error.to_string());
                sleep(AFTER_ERROR).await;
            }
            self.wait().await;
        }
    }

    /// What there is.
    async fn look(&mut self) -> SourceFacts {
        if let Some(why) = self.wish.borrow().clone() {
            self.given_up.get_or_insert(why);
        }
        let volumes = self.volumes().await;
        let vm = self.vm().await;
        let memory = self.memory();
        self.converge();
        let destination = match *self.outcome.borrow() {
            Outcome::Unknown => Destination::Silent,
            Outcome::UnderWay => Destination::Ready,
            Outcome::Decided(verdict) => Destination::Decided(verdict),
            // It may have run: what is left here of its memory is old.
            Outcome::Lost => Destination::Decided(Verdict::Runs),
        };
        if destination == Destination::Decided(Verdict::Runs) {
            self.times.runs.get_or_insert_with(Instant::now);
        }
        SourceFacts {
            is_offline: self.setup.is_offline,
            is_given_up: self.given_up.is_some(),
            vm,
            memory,
            volumes,
            destination,
            is_converged: self.is_converged || self.converged.is_some_and(|since| since.elapsed() > LOW_PATIENCE),
        }
    }

    fn tell(&self, facts: &SourceFacts) {
        let is_undone = facts.is_given_up && !matches!(facts.destination, Destination::Decided(Verdict::Runs));
        let phase = match facts.vm {
            _ if is_undone => Phase::Undoing,
            OutgoingVm::Stopped | OutgoingVm::Ended => Phase::Switching,
            OutgoingVm::Running if self.sending.is_some() => Phase::Bringing,
            OutgoingVm::Running => Phase::Preparing,
        };
        let ram = self.info.ram.as_ref();
        let carried = self.sending.as_ref().map(|sending| *sending.carrier.progress().borrow()).unwrap_or_default();
        let on_the_way = self.sending.as_ref().map_or(0, Sending::on_the_way);
        let progress = Progress {
            phase,
            memory_bytes: ram.map_or(0, |ram| ram.total_bytes),
            memory_left_bytes: ram.map_or(0, |ram| ram.remaining_bytes) + on_the_way,
            sent_bytes: carried.taken.0,
            brought_bytes: self.brought_bytes,
            bytes_per_second: carried.rate,
        };
        self.progress.send_if_modified(|told| std::mem::replace(told, progress) != progress);
    }

    async fn qmp(&mut self) -> Result<Commands, SourceError> {
        self.setup.monitor.commands().await?.cloned().ok_or(SourceError::Ended)
    }

    async fn take(&mut self, step: SourceStep) -> Result<(), SourceError> {
        match step {
            SourceStep::Wait | SourceStep::Moved | SourceStep::Kept | SourceStep::Lost => {}
            SourceStep::Prepare => self.prepare().await?,
            SourceStep::SendMemory => {
                let (qmp, peer) = (self.qmp().await?, &self.setup.peer);
                let Setup { socket, migration, rate, .. } = &self.setup;
                let told = self.outcome.clone();
                self.sending = Some(Sending::begin(&qmp, socket, *rate, peer, *migration, told).await?);
            }
            SourceStep::BringVolumes => {
                if self.passage.is_none() {
                    let Setup { node, volumes, to, token, .. } = &self.setup;
                    self.passage = Some(node.pass(volumes, to, Purpose::Migration(token.clone())));
                    self.is_prepared = false;
                }
            }
            SourceStep::PrepareVolumes => {
                if let Some(passage) = self.passage.as_ref().filter(|_| !self.is_prepared) {
                    passage.prepare().await;
                    self.is_prepared = true;
                }
            }
            SourceStep::Stop => self.stop().await?,
            SourceStep::Switch => {
                // Side by side: neither waits for the other.
                let qmp = self.qmp().await?;
                let is_first = !std::mem::replace(&mut self.is_handed_over, true);
                let (continued, ()) = tokio::join!(qmp.migrate_continue(), self.hand_over(is_first));
                continued?;
            }
            SourceStep::HandOver => {
                let is_first = !std::mem::replace(&mut self.is_handed_over, true);
                self.hand_over(is_first).await;
            }
            SourceStep::GiveUp => self.give_up().await?,
            SourceStep::AbortVolumes => self.passage = None,
            SourceStep::CancelMemory => {
                // While it writes the last of it QEMU hears no command, and perhaps nobody takes that.
                if let Some(sending) = &self.sending {
                    sending.carrier.close();
                }
                self.qmp().await?.migrate_cancel().await?;
            }
            SourceStep::Continue => {
                // They may have been away.
                self.setup.node.resume_clients(&self.setup.volumes).await?;
                self.qmp().await?.cont().await?;
                self.times.runs.get_or_insert_with(Instant::now);
                self.note_stopped(false).await?;
            }
            SourceStep::End => self.end().await?,
        }
        Ok(())
    }

    async fn prepare(&mut self) -> Result<(), SourceError> {
        self.write_down().await?;
        self.setup.hooks.call(Event::Prepare, &self.setup.occasion()).await?;
        let request = PrepareRequest {
            migration: self.setup.migration.0.to_vec(),
            vm: self.setup.vm.clone(),
            from_site: self.setup.from.site.to_string(),
            from_node: self.setup.from.node.to_string(),
            token: self.setup.token.clone(),
            rate: self.setup.rate.map_or(0, |rate| rate.0),
        };
        let reply = self.setup.peer.calls.prepare(request).await.map_err(peer)?.into_inner();
        if !reply.obstacles.is_empty() {
            let obstacles: Vec<_> =
                reply.obstacles.into_iter().map(|found| format!("{}: {}", found.what, found.remedy)).collect();
            return Err(SourceError::Obstacles { to: self.setup.to.clone(), obstacles: obstacles.join("; ") });
        }
        self.outcome.send_if_modified(|outcome| {
            let is_new = *outcome == Outcome::Unknown;
            if is_new {
                *outcome = Outcome::UnderWay;
            }
            is_new
        });
        Ok(())
    }

    /// Stops the VM. Who finds it so after a crash knows that it was for this.
    async fn stop(&mut self) -> Result<(), SourceError> {
        self.note_stopped(true).await?;
        self.times.stopped = Some(Instant::now());
        Ok(self.qmp().await?.stop().await?)
    }

    async fn note_stopped(&mut self, is_stopped: bool) -> Result<(), SourceError> {
        self.setup.record.is_stopped = is_stopped;
        self.write_down().await
    }

    async fn write_down(&self) -> Result<(), SourceError> {
        let (records, record) = (Arc::clone(&self.setup.records), self.setup.record.clone());
        let name = self.setup.migration.to_string();
        let written = sterna_runtime::work::blocking(move || records.put(&name, &record)).await;
        Ok(written.expect("writing a record does not panic")?)
    }

    async fn hand_over(&self, is_first: bool) {
        if let Some(passage) = self.passage.as_ref().filter(|_| is_first) {
            passage.hand_over().await;
        }
    }

    async fn give_up(&mut self) -> Result<(), SourceError> {
        let migration = self.setup.migration.0.to_vec();
        let why = self.given_up.clone().unwrap_or_default();
        let given_up = self.setup.peer.calls.give_up(GiveUpRequest { migration, why });
        let reply = given_up.await.map_err(peer)?.into_inner();
        self.outcome.send_replace(reply.outcome().into());
        Ok(())
    }

    /// The VM runs at the destination.
    async fn end(&mut self) -> Result<(), SourceError> {
        let qmp = self.qmp().await?;
        if let Some(sending) = &self.sending
            // Where QEMU hears nothing more it is ended all the same.
            && sending.carrier.write(Message::shut(0).written).await.is_ok()
        {
            let over = async {
                loop {
                    match qmp.query_migrate().await {
                        Ok(info) if info.status.is_over() => return info.downtime,
                        Ok(_) => sleep(LOOK_SWITCHING).await,
                        Err(_) => return None,
                    }
                }
            };
            self.times.downtime = timeout(END_PATIENCE, over).await.ok().flatten();
        }
        match qmp.quit().await {
            // It may have ended before it answered.
            Ok(()) | Err(QmpError::Ended { .. }) => self.setup.monitor.closed().await,
            Err(error) => return Err(error.into()),
        }
        let asked = self.setup.peer.calls.ask(AskRequest { migration: self.setup.migration.0.to_vec() });
        // It is only told; where it is not known that is told.
        if let Ok(Ok(reply)) = timeout(END_PATIENCE, asked).await {
            self.waited_for_volumes = reply.into_inner().waited_for_volumes_us.map(Duration::from_micros);
        }
        Ok(())
    }

    /// Until something may have changed.
    async fn wait(&mut self) {
        let mut outcome = self.outcome.subscribe();
        // Offline all of the memory is sent while the VM stands: that takes longer than a look.
        let is_sent = !self.setup.is_offline || self.memory() != Memory::Active;
        let is_switching = self.setup.record.is_stopped && self.passage.is_some() && is_sent;
        let look = if is_switching { LOOK_SWITCHING } else { LOOK };
        let passage = async {
            let is_news = match &mut self.passage {
                Some(passage) => passage.changed().await,
                None => false,
            };
            // How it has ended was seen at the last look.
            if !is_news {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = outcome.changed() => {}
            () = passage => {}
            Ok(()) = self.wish.changed() => {}
            () = sleep(look) => {}
        }
    }

    fn report(self, end: End) -> Report {
        let memory = self.sending.as_ref().map(|sending| sending.memory.borrow().clone());
        let carried = self.sending.as_ref().map(|sending| *sending.carrier.progress().borrow()).unwrap_or_default();
        let Times { began, stopped, runs, downtime } = self.times;
        Report {
            end,
            why: self.given_up,
            took: began.elapsed(),
            stopped_for: stopped.zip(runs).map(|(stopped, runs)| runs.duration_since(stopped)),
            downtime,
            sent_bytes: carried.taken.0,
            memory: memory.unwrap_or_default(),
            brought_bytes: self.brought_bytes,
            volumes_paused: self.volumes_paused,
            waited_for_volumes: self.waited_for_volumes,
        }
    }
}

fn peer(status: tonic::Status) -> SourceError {
    SourceError::Peer(Box::new(status))
}

/// How often it is looked at what nobody tells, while the VM runs.
const LOOK: Duration = Duration::from_millis(20);

/// The same while it stands.
const LOOK_SWITCHING: Duration = Duration::from_millis(1);

/// Once little was left, and room is made for the volumes, it is not waited for as little any longer than this.
const LOW_PATIENCE: Duration = Duration::from_secs(5);

/// Before what has failed is tried again.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// For what is better done, and not needed.
const END_PATIENCE: Duration = Duration::from_secs(5);
