//! Which tokens were used up at this host: a file for each, until its window has ended, when it is refused anyway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{LONGEST_MIGRATION, MigrationToken, MigrationTokenId, milliseconds};
use crate::peer::MigrationId;
use crate::records::{RecordError, Records};

/// What is remembered of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedToken {
    /// For which migration it was used.
    migration: String,
    /// When its window ends.
    not_after_ms: u64,
}

/// The tokens that were used up at this host.
#[derive(Debug)]
pub struct Ledger {
    records: Records<UsedToken>,
    used: Mutex<BTreeMap<String, UsedToken>>,
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It was used.
    #[error(
        "the migration token {token} was used up by migration {migration}: each is for one, whatever became of it, so have another one issued"
    )]
    Used {
        /// Which one.
        token: MigrationTokenId,
        /// What it was used for.
        migration: String,
    },
    /// There are too many.
    #[error(
        "{MAX_USED} migration tokens were used at this host whose windows have not ended: issue them for shorter windows"
    )]
    TooMany,
    /// It cannot be written down.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Ledger {
    /// The one in this directory, which is made if it is not there. What needs not be remembered any more is forgotten.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(directory: impl Into<PathBuf>, now: SystemTime) -> Result<Self, RecordError> {
        let records = Records::open(directory)?;
        let used = Mutex::new(records.all()?);
        let ledger = Self { records, used };
        ledger.forget(milliseconds(now))?;
        Ok(ledger)
    }

    /// Uses a token up for a migration. Durable on return; the same again, for the same migration, is no second use.
    ///
    /// # Errors
    /// [`Unusable`]. Where that is [`Unusable::Record`] it may be used up or not.
    pub fn use_up(&self, token: &MigrationToken, migration: MigrationId, now: SystemTime) -> Result<(), Unusable> {
        let (id, migration) = (token.id().to_string(), migration.to_string());
        self.forget(milliseconds(now))?;
        // Held until it is durable: of two who come with the same token one is refused.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match used.get(&id) {
            Some(earlier) if earlier.migration == migration => return Ok(()),
            Some(earlier) => {
                return Err(Unusable::Used { token: token.id(), migration: earlier.migration.clone() });
            }
            None if used.len() >= MAX_USED => return Err(Unusable::TooMany),
            None => {}
        }
        let entry = UsedToken { migration, not_after_ms: token.window().not_after_ms };
        // Remembered first: where it is not known whether it was written, it is used up.
        used.insert(id.clone(), entry.clone());
        Ok(self.records.put(&id, &entry)?)
    }

    /// Forgets those that are over, for longer than a clock is set back by.
    fn forget(&self, now_ms: u64) -> Result<(), RecordError> {
        let kept_ms = u64::try_from(LONGEST_MIGRATION.as_millis()).unwrap_or(u64::MAX);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |entry: &UsedToken| entry.not_after_ms.saturating_add(kept_ms) < now_ms;
        let over: Vec<_> = used.iter().filter(|(_, entry)| is_over(entry)).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.records.remove(&id)?;
            used.remove(&id);
        }
        Ok(())
    }
}

/// Most tokens that are remembered: a few MiB of files. Operators issue them, so nobody else can fill it.
pub const MAX_USED: usize = 10_000;
