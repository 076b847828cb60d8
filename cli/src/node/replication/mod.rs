//! Copies of volumes at other sites (design section 6): what this node keeps of the volumes of others, and gives to them.
//!
//! ```text
//! owner: seal ── publish ──> metadata ──> follower: which of mine has moved? ── pull ──> report ──> metadata
//!        chunks <──────────────────────────── Fetch ──────────────────────────────┘
//! ```
//!
//! * `source`: what this node answers to those who pull from it.
//! * `pull`: all of one root, from wherever it is.
//! * `follow`: which roots are to be pulled, and when. `report`: telling the metadata what is complete here.
//!
//! What is complete here is known to the metadata, and named there, so that collections leave it alone. What is being pulled is
//! not: a collection may take parts of it, and they are pulled again.
//!
//! Nothing here is a replica's order of arrival or its share of a link: chunks come in the order of the map, over the lane for
//! what nobody waits for, and stop while something is read ahead for a guest (`precedence`).

mod follow;
mod precedence;
mod pull;
mod report;
mod source;

pub(super) use follow::run;
pub(super) use precedence::Precedence;
pub(super) use pull::{PullError, Target, fetch, fill, pull};
pub(super) use source::service;
