//! What all who use a bucket agree on: an object that whoever comes first writes, and nobody alters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::BucketError;
use crate::names::TERMS;
use crate::objects::Objects;
use crate::sealed::{self, Kind};

/// The terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    /// A random number, which tells this bucket from any other, also from one that takes its place.
    pub(crate) id: String,
    /// What nothing needs is left for so long before it goes: whoever relies on something that is here has to be done by then.
    grace_ms: u64,
}

impl Terms {
    fn new(grace: Duration) -> Result<Self, BucketError> {
        let id = u128::from_be_bytes(sterna_runtime::chance::bytes()?);
        Ok(Self { id: format!("{id:032x}"), grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) })
    }

    /// How long what nothing needs is left.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// Those of a bucket; a new one gets terms with this `grace`.
    pub(crate) async fn of(objects: &Objects, grace: Duration) -> Result<Self, BucketError> {
        match objects.get(TERMS, MAX_BYTES).await {
            Ok(terms) => sealed::unseal(KIND, TERMS, &terms),
            Err(BucketError::NotFound { .. }) => {
                // Some servers make a bucket of whatever name something is written to.
                objects.list(TERMS).await?;
                objects.put_new(TERMS, sealed::seal(KIND, TERMS, &Self::new(grace)?)?).await?;
                // Somebody else may have been faster.
                sealed::unseal(KIND, TERMS, &objects.get(TERMS, MAX_BYTES).await?)
            }
            Err(error) => Err(error),
        }
    }
}

const KIND: Kind = Kind { magic: "sterna-bucket", version: 1 };
const MAX_BYTES: u64 = 64 << 10;
