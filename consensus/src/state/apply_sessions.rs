//! What the commands about sessions do. Each one first finds every reason to refuse, and only then changes anything.

use std::sync::Arc;

use sterna_types::NodeId;

use super::Metadata;
use super::cluster::{MetadataVersion, Node};
use super::outcome::{Outcome, Refusal};
use super::session::{Session, SessionLength, SessionNumber, SessionState};

impl Metadata {
    pub(super) fn open_session(&mut self, id: NodeId, knows: MetadataVersion) -> Result<Outcome, Refusal> {
        let node = self.known_node(id)?;
        let required = self.version();
        if knows < required {
            return Err(Refusal::ProgramTooOld { node: id, knows, required });
        }
        let number = node.session.map_or(1, |session| session.number.0.saturating_add(1));
        let length = self.session_length();
        let session = Session { number: SessionNumber(number), renewals: 0, length, state: SessionState::Live };
        self.change_node(id, |node| {
            node.session = Some(session);
            node.knows = knows;
        })?;
        Ok(Outcome::Session { number: session.number, length })
    }

    pub(super) fn renew_session(&mut self, id: NodeId, number: SessionNumber) -> Result<Outcome, Refusal> {
        let session = self.session(id, number)?;
        if !session.is_live() {
            return Err(Refusal::SessionLapsed { node: id, number });
        }
        let renewed = Session { renewals: session.renewals + 1, length: self.session_length(), ..session };
        self.change_node(id, |node| node.session = Some(renewed))?;
        Ok(Outcome::Session { number, length: renewed.length })
    }

    /// Ends a session as `state` says; with `renewals`, only one that was not renewed since.
    pub(super) fn end_session(
        &mut self,
        id: NodeId,
        number: SessionNumber,
        state: SessionState,
        renewals: Option<u64>,
    ) -> Result<Outcome, Refusal> {
        let session = self.session(id, number)?;
        if renewals.is_some_and(|known| known != session.renewals) {
            return Err(Refusal::SessionRenewed { node: id, number });
        }
        if session.is_live() {
            self.change_node(id, |node| node.session = Some(Session { state, ..session }))?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn set_session_length(&mut self, length: SessionLength) -> Result<Outcome, Refusal> {
        if let Some(cluster) = &mut self.cluster {
            cluster.session = length;
        }
        Ok(Outcome::Done)
    }

    /// The newest session of a node, if that is the one of this number.
    fn session(&self, id: NodeId, number: SessionNumber) -> Result<Session, Refusal> {
        match self.known_node(id)?.session {
            Some(session) if session.number == number => Ok(session),
            Some(session) => Err(Refusal::OtherSession { node: id, given: number, current: session.number }),
            None => Err(Refusal::NoSession { node: id }),
        }
    }

    pub(super) fn known_node(&self, id: NodeId) -> Result<&Arc<Node>, Refusal> {
        self.node(id).ok_or(Refusal::NoSuchNode { node: id })
    }

    /// Changes a node in its place.
    pub(super) fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) -> Result<(), Refusal> {
        let found = self.nodes.update(&id, |node| change(Arc::make_mut(node)));
        if found { Ok(()) } else { Err(Refusal::NoSuchNode { node: id }) }
    }
}
