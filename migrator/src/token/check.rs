//! Whether a token allows what is about to be done. A pure function: the time is given to it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sterna_transport::{Credentials, Identity, UntrustedStatement};
use sterna_types::{ByteRate, ClusterId, Epoch, SiteName, VmName, VolumeId};

use super::signed::{PURPOSE, may_issue};
use super::{LONGEST_MIGRATION, SignedToken, Volumes, milliseconds};

/// What is about to be done, as it is known where the token is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The VM; nothing where it is not known: storage nodes know volumes.
    pub vm: Option<&'a VmName>,
    /// All of its volumes, in their epochs of now.
    pub volumes: &'a Volumes,
    /// The site where they are.
    pub from: &'a SiteName,
    /// The site where they are to go.
    pub to: &'a SiteName,
    /// How fast memory is to be sent; nothing where that is as the token has it.
    pub rate: Option<ByteRate>,
    /// How far it is.
    pub stage: Stage,
}

/// How far a migration is when its token is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done: the window has to be open.
    Beginning,
    /// It has begun within the window, as those have seen to where it began, and may go on for [`LONGEST_MIGRATION`] after it.
    UnderWay,
}

/// Why a token does not allow what is about to be done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// It is of another cluster.
    #[error("the migration token is for cluster {found}, and this is {own}: have one issued here")]
    OtherCluster {
        /// The token's.
        found: ClusterId,
        /// That of whoever looks.
        own: ClusterId,
    },
    /// It was not signed by whom it says, or they are not to be believed.
    #[error("the migration token is not accepted: {0}")]
    Untrusted(#[from] UntrustedStatement),
    /// Whoever has signed it may not.
    #[error(
        "the migration token is signed by {signer}, and has to be by an administrator of role 'operator' or 'admin'"
    )]
    NotAnOperator {
        /// Who has.
        signer: Identity,
    },
    /// Its window has not begun.
    #[error("the migration token is not valid yet: its window begins in {} s, by the clock here", .wait.as_secs())]
    NotValidYet {
        /// For how long it is not.
        wait: Duration,
    },
    /// Its window has ended.
    #[error("the migration token has expired: its window ended {} s ago, by the clock here; have another one issued", .ago.as_secs())]
    Expired {
        /// For how long it has.
        ago: Duration,
    },
    /// It is for another VM.
    #[error("the migration token is for VM '{allowed}', and '{asked}' is to move: give the token of that one")]
    OtherVm {
        /// The token's.
        allowed: VmName,
        /// The one that is to move.
        asked: VmName,
    },
    /// It moves from elsewhere.
    #[error(
        "the migration token is for a VM at site '{allowed}', and this one is at '{asked}': have one issued for where it is"
    )]
    OtherSource {
        /// The token's.
        allowed: SiteName,
        /// Where it is.
        asked: SiteName,
    },
    /// It moves to elsewhere.
    #[error(
        "the migration token is for a move to site '{allowed}', and not to '{asked}': give that site, or have one issued for this one"
    )]
    OtherDestination {
        /// The token's.
        allowed: SiteName,
        /// Where it is to go.
        asked: SiteName,
    },
    /// A volume is to move that it does not name.
    #[error(
        "volume {volume} is to move, and the migration token does not name it: have one issued for the VM as it is now"
    )]
    UnknownVolume {
        /// Which.
        volume: VolumeId,
    },
    /// It names a volume that is not to move.
    #[error("the migration token names volume {volume}, which is not to move: have one issued for the VM as it is now")]
    MissingVolume {
        /// Which.
        volume: VolumeId,
    },
    /// A volume has had another owner since, or never was in that epoch.
    #[error(
        "the migration token is for epoch {allowed} of volume {volume}, which is in epoch {now}: it has moved since, so have another one issued"
    )]
    OtherEpoch {
        /// Which.
        volume: VolumeId,
        /// The token's epoch.
        allowed: Epoch,
        /// The volume's.
        now: Epoch,
    },
    /// It is to go faster.
    #[error("the migration token allows {allowed} at most, and {asked} is asked for: give a lower --rate")]
    TooFast {
        /// The token's rate.
        allowed: ByteRate,
        /// The one that is asked for.
        asked: ByteRate,
    },
}

impl SignedToken {
    /// Whether it allows what is claimed, at the moment `now`, for one who is of the cluster of `own` and trusts its authorities. Whether it
    /// was used before is not looked at.
    ///
    /// # Errors
    /// [`TokenRefusal`]: the first reason there is, those of the signature before those of what was signed.
    pub fn check(&self, claim: &Claim<'_>, own: &Credentials, now: SystemTime) -> Result<(), TokenRefusal> {
        let cluster = own.cluster();
        for found in [self.token.cluster, self.signer().cluster] {
            if found != cluster {
                return Err(TokenRefusal::OtherCluster { found, own: cluster });
            }
        }
        // Where it may have begun a while ago, the certificate was to be valid then.
        let signed_at = match claim.stage {
            Stage::Beginning => now,
            Stage::UnderWay => now.min(UNIX_EPOCH + Duration::from_millis(self.token.window.not_after_ms)),
        };
        let Self { payload, certificate, signature, .. } = self;
        certificate.verify_statement(own.authorities(), PURPOSE, payload, signature, signed_at)?;
        if !may_issue(&self.signer().subject) {
            return Err(TokenRefusal::NotAnOperator { signer: self.signer().clone() });
        }
        self.check_time(claim.stage, milliseconds(now))?;
        self.check_way(claim)?;
        self.check_volumes(claim.volumes)
    }

    fn check_time(&self, stage: Stage, now_ms: u64) -> Result<(), TokenRefusal> {
        let window = self.token.window;
        if let Some(wait) = window.not_before_ms.checked_sub(now_ms).filter(|wait| *wait > 0) {
            return Err(TokenRefusal::NotValidYet { wait: Duration::from_millis(wait) });
        }
        let ago = Duration::from_millis(now_ms.saturating_sub(window.not_after_ms));
        let allowed = match stage {
            Stage::Beginning => Duration::ZERO,
            Stage::UnderWay => LONGEST_MIGRATION,
        };
        if ago > allowed { Err(TokenRefusal::Expired { ago }) } else { Ok(()) }
    }

    fn check_way(&self, claim: &Claim<'_>) -> Result<(), TokenRefusal> {
        let token = &self.token;
        if let Some(asked) = claim.vm.filter(|asked| **asked != token.vm) {
            return Err(TokenRefusal::OtherVm { allowed: token.vm.clone(), asked: asked.clone() });
        }
        if *claim.from != token.from {
            return Err(TokenRefusal::OtherSource { allowed: token.from.clone(), asked: claim.from.clone() });
        }
        if *claim.to != token.to {
            return Err(TokenRefusal::OtherDestination { allowed: token.to.clone(), asked: claim.to.clone() });
        }
        match (token.max_rate, claim.rate) {
            (Some(allowed), Some(asked)) if asked > allowed => Err(TokenRefusal::TooFast { allowed, asked }),
            _ => Ok(()),
        }
    }

    fn check_volumes(&self, volumes: &Volumes) -> Result<(), TokenRefusal> {
        let allowed = &self.token.volumes;
        if let Some(&volume) = volumes.keys().find(|volume| !allowed.contains_key(volume)) {
            return Err(TokenRefusal::UnknownVolume { volume });
        }
        for (&volume, &allowed) in allowed {
            match volumes.get(&volume) {
                None => return Err(TokenRefusal::MissingVolume { volume }),
                Some(&now) if now != allowed => return Err(TokenRefusal::OtherEpoch { volume, allowed, now }),
                Some(_) => {}
            }
        }
        Ok(())
    }
}
