//! Copies of volumes at other sites (design section 6): what this node keeps of the volumes of others, and gives to them.
//!
//! ```text
//! owner: seal ── publish ──> metadata ──> follower: which of mine has moved? ── pull ──> report ──> metadata
//!        chunks <──────────────────────────── Fetch ──────────────────────────────┘
//! ```
//!
//! * `source`: what this node answers to those who pull from it.
//! * `fetch`: some chunks, by one request to one source after the other; `wire`: how they are asked for and come. `transfer`: many
//!   chunks, by several requests to several sources at once. `reach`: which of these is near. `error`: why something did not come.
//!   `pace`: how fast a volume is fetched that has a limit.
//! * `bucket`: what no node has, from where it is kept besides.
//! * `locate`: which chunks are where, for people.
//! * `mend`: what is damaged here, from whoever has it whole.
//! * `pull`: all of one root, from wherever it is.
//! * `follow`: which roots are to be pulled, and when. `report`: telling the metadata what is complete here.
//!
//! What is complete here is known to the metadata, and named there, so that collections leave it alone. What is being pulled is
//! not: a collection may take parts of it, and they are pulled again.
//!
//! Nothing here is a replica's order of arrival or its share of a link: chunks come in the order of the map, over the lane for
//! what nobody waits for, and stop while something is read ahead for a guest (`precedence`).

mod bucket;
mod error;
mod fetch;
mod follow;
mod locate;
mod mend;
mod pace;
mod precedence;
mod pull;
mod reach;
mod report;
mod source;
mod transfer;
mod wire;

pub(super) use error::PullError;
pub(super) use fetch::fetch;
pub(super) use follow::run;
pub(super) use locate::locate;
pub(super) use mend::{Origin, mend};
pub(super) use pace::Pace;
pub(super) use precedence::Precedence;
pub(super) use pull::{Target, fill, pull, pull_in_order};
pub(super) use reach::Reach;
pub(super) use source::service;
