//! Links: what all connections between this node and one peer share, whatever their lane. Whose turn it is to write, how
//! much may be written, and how much was.
//!
//! ```text
//!   HTTP/2 ──> TLS ──> Shaped ──> socket      one for each connection
//!                        │
//!                      Member ──> Link        one for each peer: a node, or all nodes of a site
//!                                  │
//!                                 Gate ──> Bucket
//! ```
//!
//! Everything stands below TLS, where a write can still be put off: what the socket has taken is on its way, and nothing
//! goes before it any more. `shaped` is the stream that asks before it writes; `link` has its askers wait and wakes them;
//! `gate` decides, `bucket` says what the limit leaves and `speed` what the link carries, all without a clock or a lock in them.
//!
//! Connections of administrators and strangers are on no link. They are short, and whoever sits before one waits for it.

mod bucket;
mod gate;
mod link;
mod shaped;
mod speed;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sterna_types::{ByteRate, NodeId};

use crate::lane::Lane;
#[cfg(doc)]
use crate::limits::MIN_LIMIT;

use link::Link;
pub(crate) use link::Member;
pub(crate) use shaped::Shaped;

/// Which link connections to a node are on. What the number means is for the owner of the [`Links`] to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// The links of one node. Cloning shares them.
///
/// What has been on a link is remembered for as long as the links are: there are as many as peers have ever been.
///
/// ```no_run
/// use sterna_transport::{Channels, LinkId, Links, ListenerConfig, Tls};
/// use sterna_types::{ByteRate, NodeId};
///
/// # fn example(tls: Tls, stop: tokio_util::sync::CancellationToken, site_of: fn(NodeId) -> u64) {
/// let links = Links::new(move |node| LinkId(site_of(node)));
/// let channels = Channels::new(tls.clone(), |_| None).with_links(links.clone());
/// let config = ListenerConfig::new(tls, stop).with_links(links.clone());
/// // All that this node sends to the second site, over the channels and the listener's connections together.
/// links.set_limit(LinkId(2), Some(ByteRate(3 << 20)));
/// # }
/// ```
#[derive(Clone)]
pub struct Links(Arc<Shared>);

struct Shared {
    of: Box<dyn Fn(NodeId) -> LinkId + Send + Sync>,
    links: Mutex<BTreeMap<LinkId, Arc<Link>>>,
}

/// What went over one lane of one link since the links were made, in bytes as the sockets took and gave them: TLS and
/// HTTP/2 are counted, TCP and IP are not. It never decreases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTraffic {
    /// Which link.
    pub link: LinkId,
    /// Which lane of it. What a peer that knows no lanes began is on [`Lane::Control`].
    pub lane: Lane,
    /// Bytes from this node.
    pub sent_bytes: u64,
    /// Bytes to this node.
    pub received_bytes: u64,
}

impl Default for Links {
    /// Each node is a link of its own, of the same number.
    fn default() -> Self {
        Self::new(|node| LinkId(node.0))
    }
}

impl Links {
    /// Links to the peers that `of` tells apart. It is asked once for each connection, which then stays where it is, so it
    /// should answer from memory.
    pub fn new(of: impl Fn(NodeId) -> LinkId + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { of: Box::new(of), links: Mutex::default() }))
    }

    /// Sends no more than this over a link from now on, connections and writes that wait included; `None` lifts the
    /// limit. A limit below [`MIN_LIMIT`] is raised to it.
    ///
    /// The control and demand lanes are counted and never held back: what they take, the others do without.
    pub fn set_limit(&self, link: LinkId, limit: Option<ByteRate>) {
        self.link(link).set_limit(limit);
    }

    /// The limit of a link as it is kept; `None` if it has none.
    pub fn limit(&self, link: LinkId) -> Option<ByteRate> {
        self.links().get(&link).and_then(|link| link.limit())
    }

    /// What went over each lane of each link, in this order.
    pub fn counters(&self) -> Vec<LinkTraffic> {
        let links = self.links();
        links.iter().flat_map(|(id, link)| Lane::ALL.map(|lane| link.traffic(*id, lane))).collect()
    }

    /// A new connection with this node as its peer.
    pub(crate) fn member(&self, node: NodeId, lane: Lane) -> Member {
        Member::new(self.link((self.0.of)(node)), lane)
    }

    fn link(&self, link: LinkId) -> Arc<Link> {
        Arc::clone(self.links().entry(link).or_default())
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<LinkId, Arc<Link>>> {
        // Nothing panics while it is held.
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Links").field(&self.links().keys()).finish()
    }
}

#[cfg(test)]
mod tests;
