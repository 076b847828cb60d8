//! What the commands about nodes, tokens and the layout do. Each one first finds every reason to refuse, and only then
//! changes anything.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sterna_types::{ByteRate, NodeId, SiteName, TokenId};

use super::Metadata;
use super::cluster::{MetadataVersion, Node, Site};
use super::command::{Admission, NewToken};
use super::layout::{Layout, LayoutRevision, NodeChange};
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::token::Token;
use crate::limits::{MAX_NODES, MAX_SITES, MAX_STAGED_CHANGES, MAX_TOKENS, MAX_VOTERS};

/// Which nodes are needed for how many volumes.
struct Needed {
    /// They own them.
    owned: BTreeMap<NodeId, usize>,
    /// They are being given them, or keep something for their owners.
    handed_over: BTreeMap<NodeId, usize>,
}

impl Metadata {
    pub(super) fn raise_version(&mut self, version: MetadataVersion) -> Result<Outcome, Refusal> {
        if version > MetadataVersion::CURRENT {
            return Err(Refusal::UnknownVersion { version });
        }
        // A lone node has just shown what it knows.
        let too_old = self.nodes.values().find(|node| node.knows < version).filter(|_| self.nodes.len() > 1);
        if let Some(node) = too_old {
            return Err(Refusal::ProgramTooOld { node: node.id, knows: node.knows, required: version });
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.version = cluster.version.max(version);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn set_link_limit(
        &mut self,
        from: &SiteName,
        to: &SiteName,
        limit: Option<ByteRate>,
    ) -> Result<Outcome, Refusal> {
        if from == to {
            return Err(Refusal::NoLink { site: from.clone() });
        }
        if let Some(unknown) = [from, to].into_iter().find(|site| !self.sites.contains(site)) {
            return Err(Refusal::NoSuchSite { site: unknown.clone() });
        }
        self.sites.update(from, |site| {
            let limits = &mut Arc::make_mut(site).limits;
            match limit {
                Some(limit) => drop(limits.insert(to.clone(), limit)),
                None => drop(limits.remove(to)),
            }
        });
        Ok(Outcome::Done)
    }

    pub(super) fn create_token(&mut self, new: &NewToken) -> Result<Outcome, Refusal> {
        if self.tokens.contains(&new.id) {
            return Err(Refusal::TokenTaken { token: new.id });
        }
        let expired = |token: &&Arc<Token>| token.expires <= new.at;
        let expired: Vec<_> = self.tokens.values().filter(expired).map(|token| token.id).collect();
        if self.tokens.len() - expired.len() >= MAX_TOKENS {
            return Err(Refusal::TooManyTokens);
        }
        for id in expired {
            self.tokens.remove(&id);
        }
        let NewToken { id, secret, expires, ref site, .. } = *new;
        self.tokens.insert(id, Arc::new(Token { id, secret, expires, site: site.clone(), used_by: None }));
        Ok(Outcome::Done)
    }

    pub(super) fn revoke_token(&mut self, id: TokenId) -> Result<Outcome, Refusal> {
        if !self.tokens.contains(&id) {
            return Err(Refusal::NoSuchToken { token: id });
        }
        self.tokens.remove(&id);
        Ok(Outcome::Done)
    }

    pub(super) fn admit_node(&mut self, admission: &Admission) -> Result<Outcome, Refusal> {
        let token = self.token_for(admission)?;
        if let Some(used_by) = token.used_by {
            // Its answer was lost, and it asks again; anybody else comes too late.
            let is_same = self.node(used_by).is_some_and(|node| {
                node.key == Some(admission.key) && node.name == admission.name && node.site == admission.site
            });
            let outcome = if is_same { Ok(Outcome::Admitted { node: used_by }) } else { Err(used_by) };
            return outcome.map_err(|used_by| Refusal::TokenUsed { token: token.id, node: used_by });
        }
        if self.nodes.values().any(|node| node.name == admission.name) {
            return Err(Refusal::NodeNameTaken { name: admission.name.clone() });
        }
        if admission.knows < self.version() {
            let (knows, required) = (admission.knows, self.version());
            return Err(Refusal::NewcomerTooOld { knows, required });
        }
        let is_new_site = !self.sites.contains(&admission.site);
        if self.nodes.len() >= MAX_NODES || is_new_site && self.sites.len() >= MAX_SITES {
            return Err(Refusal::TooManyNodes);
        }
        let number = self.last_node.checked_add(1).ok_or(Refusal::TooManyNodes)?;
        let (id, token) = (NodeId(number), token.id);
        self.last_node = number;
        if is_new_site {
            let name = admission.site.clone();
            self.sites.insert(name.clone(), Arc::new(Site { name, limits: BTreeMap::new() }));
        }
        let Admission { knows, key, ref name, ref site, address, .. } = *admission;
        let node = Node {
            id,
            name: name.clone(),
            site: site.clone(),
            address: Some(address),
            knows,
            key: Some(key),
            session: None,
        };
        self.nodes.insert(id, Arc::new(node));
        self.tokens.update(&token, |token| Arc::make_mut(token).used_by = Some(id));
        Ok(Outcome::Admitted { node: id })
    }

    /// The token that somebody came with, if it is one, has not expired, and is for that site.
    fn token_for(&self, admission: &Admission) -> Result<Arc<Token>, Refusal> {
        let unknown = Refusal::NoSuchToken { token: admission.token };
        let token =
            self.tokens.get(&admission.token).filter(|token| token.secret == admission.secret).ok_or(unknown)?;
        if token.expires <= admission.at {
            return Err(Refusal::TokenExpired { token: token.id });
        }
        match &token.site {
            Some(site) if *site != admission.site => {
                Err(Refusal::TokenForOtherSite { token: token.id, site: site.clone() })
            }
            _ => Ok(Arc::clone(token)),
        }
    }

    pub(super) fn set_node_address(&mut self, id: NodeId, address: SocketAddr) -> Result<Outcome, Refusal> {
        self.change_node(id, |node| node.address = Some(address))?;
        Ok(Outcome::Done)
    }

    pub(super) fn stage_change(&mut self, change: NodeChange) -> Result<Outcome, Refusal> {
        if self.layout.staged.len() >= MAX_STAGED_CHANGES {
            return Err(Refusal::TooManyChanges);
        }
        let mut layout = self.layout.clone();
        layout.staged.push(change);
        self.applied_layout(&layout)?;
        self.set_layout(layout);
        Ok(Outcome::Layout { revision: self.layout.revision })
    }

    pub(super) fn discard_changes(&mut self) -> Result<Outcome, Refusal> {
        if !self.layout.staged.is_empty() {
            self.set_layout(Layout { staged: Vec::new(), ..self.layout.clone() });
        }
        Ok(Outcome::Layout { revision: self.layout.revision })
    }

    pub(super) fn apply_changes(&mut self, revision: LayoutRevision) -> Result<Outcome, Refusal> {
        if revision != self.layout.revision {
            return Err(Refusal::LayoutHasChanged { given: revision, current: self.layout.revision });
        }
        let (layout, removed) = self.applied_layout(&self.layout)?;
        for change in self.layout.staged.clone() {
            if let NodeChange::Replace(old, new) = change {
                self.move_replicas(old, new);
            }
        }
        for id in removed {
            self.forget_copies(id);
            self.nodes.remove(&id);
        }
        self.set_layout(layout);
        Ok(Outcome::Layout { revision: self.layout.revision })
    }

    /// What the layout would be with its staged changes made, and which nodes would be gone.
    ///
    /// # Errors
    /// Why they cannot be made.
    pub fn applied_layout(&self, layout: &Layout) -> Result<(Layout, Vec<NodeId>), Refusal> {
        let mut after = Layout { staged: Vec::new(), ..layout.clone() };
        let mut removed = Vec::new();
        // All volumes are looked at once, not once for each node that goes.
        let needed = OnceCell::new();
        for change in &layout.staged {
            for node in change.nodes() {
                self.known_node(node)?;
                if removed.contains(&node) {
                    return Err(Refusal::NoSuchNode { node });
                }
            }
            match *change {
                NodeChange::Promote(node) => drop(after.voters.insert(node)),
                NodeChange::Demote(node) => drop(after.voters.remove(&node)),
                NodeChange::Drain(node) => drop(after.draining.insert(node)),
                NodeChange::Undrain(node) => drop(after.draining.remove(&node)),
                NodeChange::Remove(node) => {
                    let count = self.replica_count(node);
                    if count > 0 {
                        return Err(Refusal::KeepsReplicas { node, count });
                    }
                    self.leave(node, &needed, &mut after, &mut removed)?;
                }
                NodeChange::Replace(old, new) if old == new => return Err(Refusal::ReplacesItself { node: old }),
                NodeChange::Replace(old, new) => {
                    if after.voters.contains(&old) {
                        after.voters.insert(new);
                    }
                    self.leave(old, &needed, &mut after, &mut removed)?;
                }
            }
        }
        if after.voters.is_empty() {
            return Err(Refusal::NoVoters);
        }
        if after.voters.len() > MAX_VOTERS {
            return Err(Refusal::TooManyVoters);
        }
        Ok((after, removed))
    }

    fn leave(
        &self,
        node: NodeId,
        needed: &OnceCell<Needed>,
        layout: &mut Layout,
        removed: &mut Vec<NodeId>,
    ) -> Result<(), Refusal> {
        let needed =
            needed.get_or_init(|| Needed { owned: self.owned_volumes(), handed_over: self.volumes_handed_over() });
        if let Some(&count) = needed.owned.get(&node) {
            return Err(Refusal::OwnsVolumes { node, count });
        }
        if let Some(&count) = needed.handed_over.get(&node) {
            return Err(Refusal::HandsVolumesOver { node, count });
        }
        let count = self.sole_copies(node);
        if count > 0 {
            return Err(Refusal::HoldsSnapshots { node, count });
        }
        layout.voters.remove(&node);
        layout.draining.remove(&node);
        removed.push(node);
        Ok(())
    }

    /// How many volumes each node owns that owns any. O(all volumes).
    fn owned_volumes(&self) -> BTreeMap<NodeId, usize> {
        let mut owned = BTreeMap::new();
        for volume in self.volumes.values() {
            *owned.entry(volume.owner).or_default() += 1;
        }
        owned
    }

    fn set_layout(&mut self, layout: Layout) {
        let revision = LayoutRevision(self.layout.revision.0 + 1);
        self.layout = Layout { revision, ..layout };
    }
}
