//! Whether a migration may begin at a host, as its migrator and its node ask.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use sterna_runtime::clock::wall_time;
use sterna_runtime::work::blocking;
use sterna_transport::{Credentials, Tls};
use sterna_types::ByteRate;

use super::ledger::{Ledger, Unusable};
use super::{Claim, Demand, InvalidToken, SignedToken, TokenRefusal};
use crate::peer::MigrationId;
use crate::records::RecordError;

/// Who lets migrations begin at a host. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Admission {
    tls: Tls,
    demand: Demand,
    ledger: Arc<Ledger>,
}

/// Why a migration may not begin. Nothing was done for it, and its token is used up only where [`NotAdmitted::Unusable`] says so.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// There is no token.
    #[error(
        "this takes a migration token: give one with --token FILE ('sterna vm token' issues it), or an operator's identity with --identity \
         FILE, which issues one for this migration; [migrator] tokens = \"optional\" in sterna.toml, at both hosts, has it done without"
    )]
    Missing,
    /// What is given is none.
    #[error(transparent)]
    Invalid(#[from] InvalidToken),
    /// It does not allow this.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// It was used before, or cannot be now.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl Admission {
    /// The one of the host whose node shows itself with `tls`. It remembers what was used below the migrator's directory.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(migrator: &Path, tls: Tls, demand: Demand) -> Result<Self, RecordError> {
        let ledger = Arc::new(Ledger::open(migrator.join("tokens"), wall_time())?);
        Ok(Self { tls, demand, ledger })
    }

    /// Lets a migration begin, by its token, which is empty where there is none. It is used up by that, durably, whatever becomes of the
    /// migration; the same migration may ask again. Returns how fast its memory may be sent at most, while the VM runs.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    ///
    /// # Cancel safety
    /// Dropped, the token may be used up or not.
    pub async fn admit(
        &self,
        given: &[u8],
        claim: &Claim<'_>,
        migration: MigrationId,
    ) -> Result<Option<ByteRate>, NotAdmitted> {
        let now = wall_time();
        let signed = verified(given, self.demand, claim, &self.tls.credentials(), now);
        let Some(signed) =
            signed.inspect_err(|error| tracing::warn!(%migration, vm = ?claim.vm, %error, "a migration is refused"))?
        else {
            return Ok(claim.rate);
        };
        let rate = claim.rate.or(signed.token().max_rate());
        let (id, signer) = (signed.token().id(), signed.signer().clone());
        let ledger = Arc::clone(&self.ledger);
        let used = blocking(move || ledger.use_up(signed.token(), migration, now)).await;
        used.expect("writing a record does not panic")?;
        tracing::info!(%migration, vm = ?claim.vm, token = %id, %signer, "a migration has a token");
        Ok(rate)
    }
}

/// The token, where there is one, once it is known that it allows what is claimed. Whether it was used before is not looked at: at a storage
/// node the epochs of the volumes say so, once they have moved.
///
/// # Errors
/// [`NotAdmitted`], but for [`NotAdmitted::Unusable`].
pub fn verified(
    given: &[u8],
    demand: Demand,
    claim: &Claim<'_>,
    own: &Credentials,
    now: SystemTime,
) -> Result<Option<SignedToken>, NotAdmitted> {
    if given.is_empty() {
        return match demand {
            Demand::Required => Err(NotAdmitted::Missing),
            Demand::Optional => Ok(None),
        };
    }
    let signed = SignedToken::from_bytes(given)?;
    signed.check(claim, own, now)?;
    Ok(Some(signed))
}
