//! Which sessions have not been renewed in time, by the clock of the node that leads.
//!
//! Pure: it is shown the metadata and the time. A session's time runs from when this node, leading, first saw its newest renewal:
//! what came before this node led it cannot know, so that a new leader lets every session last in full once more.

use std::collections::BTreeMap;
use std::time::Duration;

use sterna_types::NodeId;

use crate::session::lapses_after;
use crate::state::Metadata;
use crate::state::session::{Session, SessionNumber};

/// The live sessions, and since when each is as it is. `T` is a moment.
#[derive(Debug)]
pub(super) struct Overdue<T> {
    seen: BTreeMap<NodeId, Seen<T>>,
}

#[derive(Debug)]
struct Seen<T> {
    number: SessionNumber,
    renewals: u64,
    since: T,
}

impl<T> Default for Overdue<T> {
    fn default() -> Self {
        Self { seen: BTreeMap::new() }
    }
}

impl<T: Copy + Ord + std::ops::Add<Duration, Output = T>> Overdue<T> {
    /// Takes note of the sessions as they are now.
    pub(super) fn observe(&mut self, metadata: &Metadata, now: T) {
        self.seen.retain(|id, _| live(metadata, *id).is_some());
        for node in metadata.nodes() {
            let Some(session) = live(metadata, node.id) else { continue };
            let seen = Seen { number: session.number, renewals: session.renewals, since: now };
            match self.seen.get_mut(&node.id) {
                Some(known) if (known.number, known.renewals) == (seen.number, seen.renewals) => {}
                Some(known) => *known = seen,
                None => drop(self.seen.insert(node.id, seen)),
            }
        }
    }

    /// Sessions, with the number of their renewals, that have lasted longer than they may.
    pub(super) fn overdue(&self, metadata: &Metadata, now: T) -> Vec<(NodeId, SessionNumber, u64)> {
        let is_over = |id: NodeId, seen: &Seen<T>| {
            live(metadata, id).is_some_and(|session| seen.since + lapses_after(session.length) <= now)
        };
        let over = self.seen.iter().filter(|(id, seen)| is_over(**id, seen));
        over.map(|(id, seen)| (*id, seen.number, seen.renewals)).collect()
    }
}

fn live(metadata: &Metadata, id: NodeId) -> Option<Session> {
    metadata.node(id)?.session.filter(Session::is_live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::cluster::MetadataVersion;
    use crate::state::command::Command;
    use crate::state::request::Request;
    use crate::state::tests::bootstrap_command;

    fn apply(metadata: &mut Metadata, command: Command) {
        metadata.apply(&Request { id: None, command }).unwrap();
    }

    fn with_session() -> Metadata {
        let mut metadata = Metadata::default();
        apply(&mut metadata, bootstrap_command());
        apply(&mut metadata, Command::RaiseVersion { version: MetadataVersion::CURRENT });
        apply(&mut metadata, Command::OpenSession { node: NodeId::FIRST, knows: MetadataVersion::CURRENT });
        metadata
    }

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_session_is_overdue_only_after_its_length_and_the_margin() {
        let (mut metadata, mut overdue) = (with_session(), Overdue::default());
        overdue.observe(&metadata, s(100.0));
        assert_eq!(overdue.overdue(&metadata, s(116.4)), []);
        assert_eq!(overdue.overdue(&metadata, s(116.5)), [(NodeId::FIRST, SessionNumber(1), 0)]);

        apply(&mut metadata, Command::RenewSession { node: NodeId::FIRST, number: SessionNumber(1) });
        overdue.observe(&metadata, s(116.0));
        overdue.observe(&metadata, s(130.0));
        assert_eq!(overdue.overdue(&metadata, s(132.4)), []);
        assert_eq!(overdue.overdue(&metadata, s(132.5)), [(NodeId::FIRST, SessionNumber(1), 1)]);
    }

    #[test]
    fn a_new_leader_and_a_new_session_begin_to_count_anew() {
        let (mut metadata, mut overdue) = (with_session(), Overdue::default());
        overdue.observe(&metadata, s(100.0));
        apply(
            &mut metadata,
            Command::CloseSession { node: NodeId::FIRST, number: SessionNumber(1), all_is_published: false },
        );
        assert_eq!(overdue.overdue(&metadata, s(200.0)), [], "it has ended already");
        overdue.observe(&metadata, s(200.0));
        apply(&mut metadata, Command::OpenSession { node: NodeId::FIRST, knows: MetadataVersion::CURRENT });
        overdue.observe(&metadata, s(200.0));
        assert_eq!(overdue.overdue(&metadata, s(210.0)), []);

        let mut of_new_leader = Overdue::default();
        assert_eq!(of_new_leader.overdue(&metadata, s(500.0)), [], "it has seen nothing yet");
        of_new_leader.observe(&metadata, s(500.0));
        assert_eq!(of_new_leader.overdue(&metadata, s(510.0)), []);
    }
}
