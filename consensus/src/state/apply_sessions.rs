//! What the commands about sessions do. Each one first finds every reason to refuse, and only then changes anything.

use std::sync::Arc;

use sterna_types::NodeId;

use super::Metadata;
use super::cluster::{MetadataVersion, Node};
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::session::{CannotChange, Session, SessionLength, SessionNumber, SessionState};

impl Metadata {
    pub(super) fn open_session(&mut self, id: NodeId, knows: MetadataVersion) -> Result<Outcome, Refusal> {
        let node = self.known_node(id)?;
        let required = self.version();
        if knows < required {
            return Err(Refusal::ProgramTooOld { node: id, knows, required });
        }
        let session = Session::open(node.session, self.session_length());
        self.change_node(id, |node| {
            node.session = Some(session);
            node.knows = knows;
        })?;
        Ok(Outcome::Session { number: session.number, length: session.length })
    }

    pub(super) fn renew_session(&mut self, id: NodeId, number: SessionNumber) -> Result<Outcome, Refusal> {
        let renewed = self.session(id, number)?.renew(self.session_length());
        let renewed = renewed.map_err(|cannot| refusal(id, number, cannot))?;
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
        let ended = self.session(id, number)?.end(state, renewals);
        let ended = ended.map_err(|cannot| refusal(id, number, cannot))?;
        self.change_node(id, |node| node.session = Some(ended))?;
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

fn refusal(node: NodeId, number: SessionNumber, cannot: CannotChange) -> Refusal {
    match cannot {
        CannotChange::Over => Refusal::SessionLapsed { node, number },
        CannotChange::Renewed => Refusal::SessionRenewed { node, number },
    }
}
