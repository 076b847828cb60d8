//! The task that opens this node's session, renews it, and opens another one where it has lapsed.

use std::sync::Arc;
use std::time::Duration;

use sterna_runtime::BootTime;
use sterna_types::NodeId;
use tokio::sync::{oneshot, watch};

use super::holds_for;
use super::lease::Lease;
use super::trace;
use crate::node::{MetadataNode, ProposeError};
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;
use crate::state::command::Command;
use crate::state::outcome::Outcome;
use crate::state::refusal::Refusal;
use crate::state::session::{SessionLength, SessionNumber};

/// Keeps one node's session. See [`super`] for the steps.
pub struct SessionKeeper<F> {
    metadata: Arc<MetadataNode>,
    lease: Arc<Lease>,
    /// Step 5.
    give_up: F,
    news: watch::Sender<SessionNews>,
    session: Option<(SessionNumber, SessionLength)>,
    /// Until when the session's newest renewal lets this node acknowledge anything.
    end: BootTime,
}

/// How the session is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNews {
    /// There has been none yet.
    NotOpen,
    /// It lasts as long as the lease says.
    Open(SessionNumber),
    /// It cannot be renewed at the moment.
    Failing {
        /// Why.
        what: String,
    },
}

impl<F: FnMut(&Metadata) + Send> SessionKeeper<F> {
    /// Will keep the session of `metadata`'s node. Before each prolongation of `lease`, `give_up` is shown the metadata that it
    /// rests on, and has to see to it that nothing is acknowledged any more for volumes that this node does not own there.
    pub fn new(metadata: Arc<MetadataNode>, lease: Arc<Lease>, give_up: F) -> Self {
        Self {
            metadata,
            lease,
            give_up,
            news: watch::Sender::new(SessionNews::NotOpen),
            session: None,
            end: BootTime::START,
        }
    }

    /// Shows how it goes.
    pub fn news(&self) -> watch::Receiver<SessionNews> {
        self.news.subscribe()
    }

    /// Keeps it until `stop` says whether all that this node ever acknowledged is published, or is gone, which says nothing.
    /// Then it is closed, so that nobody has to wait for it to lapse.
    ///
    /// # Errors
    /// Why this node can have no session any more: it was removed, or another process runs as this node. Nothing is acknowledged
    /// from then on.
    pub async fn run(mut self, mut stop: oneshot::Receiver<bool>) -> Result<(), Refusal> {
        let mut view = self.metadata.watch();
        let all_is_published = loop {
            let pause = self.renew().await.inspect_err(|_| self.lease.set_end(BootTime::START))?;
            let node = self.metadata.id();
            let was_alone = is_alone(&view.borrow_and_update(), node);
            tokio::select! {
                biased;
                all_is_published = &mut stop => break all_is_published.unwrap_or(false),
                () = tokio::time::sleep(pause) => {}
                _ = view.wait_for(|metadata| is_alone(metadata, node) != was_alone) => {}
            }
            self.limit_lease();
        };
        self.close(all_is_published).await;
        Ok(())
    }

    /// Has the lease last as long as it may. Of a cluster that consists of this node alone, nobody can take anything over, and
    /// whoever could is let in by this node itself: there a disk that hangs for long makes clients wait, and fails none of them.
    fn limit_lease(&self) {
        let is_alone = self.session.is_some() && is_alone(&self.metadata.read(), self.metadata.id());
        self.lease.set_end(if is_alone { BootTime::NEVER } else { self.end });
    }

    /// Opens the session or renews it; how long to wait until it has to be renewed again.
    ///
    /// # Errors
    /// There can be none any more.
    async fn renew(&mut self) -> Result<Duration, Refusal> {
        let metadata = self.metadata.read();
        if metadata.version() < MetadataVersion::MANY_NODES {
            return Ok(SHORTEST_PAUSE);
        }
        let node = self.metadata.id();
        // Others do not listen to it any more; that it was let in was the first thing that it heard.
        if metadata.node(node).is_none() {
            return Err(Refusal::NoSuchNode { node });
        }
        let before = BootTime::now();
        let answer = match self.session {
            Some((number, _)) => self.ask(Command::RenewSession { node, number }).await,
            None => self.ask(Command::OpenSession { node, knows: self.metadata.knows() }).await,
        };
        match answer {
            Ok(Outcome::Session { number, length }) => {
                self.session = Some((number, length));
                (self.give_up)(&self.metadata.read());
                self.end = before.plus(holds_for(length));
                trace::lasts(number.0, self.end);
                self.limit_lease();
                self.tell(SessionNews::Open(number));
                Ok(length.duration() / RENEWALS_PER_SESSION)
            }
            Ok(other) => unreachable!("a renewal has the outcome {other:?}"),
            Err(ProposeError::Refused(Refusal::SessionLapsed { .. })) => {
                tracing::warn!(%node, "the session has lapsed; another one is opened");
                self.session = None;
                Ok(Duration::ZERO)
            }
            Err(ProposeError::Refused(refusal)) => Err(refusal),
            Err(error) => Ok(self.failed(node, &error)),
        }
    }

    /// Proposes a command about the session.
    async fn ask(&self, command: Command) -> Result<Outcome, ProposeError> {
        let asked = trace::Asked::tell(&command);
        let answer = match command {
            Command::RenewSession { .. } => self.metadata.propose_without_haste(command).await,
            _ => self.metadata.propose(command).await,
        };
        if let Some(asked) = asked {
            asked.hear(answer.as_ref());
        }
        answer
    }

    fn failed(&mut self, node: NodeId, error: &ProposeError) -> Duration {
        let what = error.to_string();
        if !matches!(&*self.news.borrow(), SessionNews::Failing { .. }) {
            tracing::warn!(%node, %error, "the session cannot be renewed; it is tried again");
        }
        self.tell(SessionNews::Failing { what });
        let length = self.metadata.read().session_length().duration();
        (length / RETRIES_PER_SESSION).max(SHORTEST_PAUSE)
    }

    async fn close(self, all_is_published: bool) {
        self.lease.set_end(BootTime::START);
        let Some((number, _)) = self.session else { return };
        let node = self.metadata.id();
        // Earlier versions know no such field.
        let all_is_published = all_is_published && self.metadata.read().version() >= MetadataVersion::REPLICAS;
        let closing = self.ask(Command::CloseSession { node, number, all_is_published });
        match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the session was not closed; it lapses by itself"),
            Err(_) => tracing::warn!("the session was not closed in time; it lapses by itself"),
        }
    }

    fn tell(&self, news: SessionNews) {
        self.news.send_if_modified(|old| {
            let is_new = *old != news;
            *old = news;
            is_new
        });
    }
}

/// Whether a cluster is this node, and no other.
fn is_alone(metadata: &Metadata, node: NodeId) -> bool {
    metadata.node(node).is_some() && metadata.nodes().nth(1).is_none()
}

/// How often a session is renewed while it lasts. Three: two renewals may be lost before the session is.
pub const RENEWALS_PER_SESSION: u32 = 3;
/// A renewal that failed is tried again soon, by all nodes of a cluster that has just elected a leader.
const RETRIES_PER_SESSION: u32 = 30;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// Who shuts down does not wait for a cluster that does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::MetadataConfig;
    use crate::state::tests::bootstrap_command;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_lost_is_given_up_before_the_lease_is_prolonged_on_it() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("metadata");
        let config = MetadataConfig::default();
        let Command::Bootstrap(bootstrap) = bootstrap_command() else { panic!("another command") };
        let metadata = Arc::new(MetadataNode::bootstrap(&directory, config, bootstrap).await.unwrap());
        let (lease, looks) = (Arc::new(Lease::default()), Arc::new(Mutex::new(Vec::new())));
        let (under, noted) = (Arc::clone(&lease), Arc::clone(&looks));
        let give_up = move |seen: &Metadata| noted.lock().unwrap().push((under.is_valid(), seen.nodes().count()));
        let keeper = SessionKeeper::new(Arc::clone(&metadata), Arc::clone(&lease), give_up);
        let (mut news, (stop, stopped)) = (keeper.news(), oneshot::channel());
        let kept = tokio::spawn(keeper.run(stopped));
        news.wait_for(|news| matches!(news, SessionNews::Open(_))).await.unwrap();
        let first = looks.lock().unwrap().first().copied();
        assert_eq!(first, Some((false, 1)), "whether the lease was valid already, and how many nodes there were");
        assert!(lease.is_valid());
        stop.send(true).unwrap();
        kept.await.unwrap().unwrap();
        assert!(!lease.is_valid());
        metadata.shutdown().await;
    }
}
