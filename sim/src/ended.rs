//! How a run has ended.

use serde::{Deserialize, Serialize};

use crate::cluster::{Cared, HandedOn};
use crate::story::Story;

/// How a run has ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Its seed.
    pub seed: u64,
    /// How often a machine has stopped.
    pub stops: u32,
    /// How often a volume was given to another node without its owner.
    pub takeovers: u32,
    /// How many of these nodes were in sync.
    pub in_sync: u32,
    /// How often its owner has handed a volume over, as that was answered.
    pub handoffs: u32,
    /// How many of those volumes had not all arrived there.
    pub handed_on: HandedOn,
    /// What administrators have done.
    pub cared: Cared,
    /// What has happened.
    pub story: Story,
    /// What was violated.
    pub violation: Option<String>,
}

impl Ended {
    /// One that could not begin.
    pub fn before_it_began(seed: u64, why: String) -> Self {
        Self { seed, violation: Some(why), ..Self::default() }
    }
}
