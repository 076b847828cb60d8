//! What an administrator chooses for a volume: how durable a flush is, also while that many copies cannot be had, and who may attach it
//! where.

use std::fmt;
use std::str::FromStr;

use super::text_form::as_text;
use crate::limits::MAX_SYNC_COPIES;

/// What an acknowledged flush has survived, written `local` or `sync:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// It is on the owner's disk.
    #[default]
    Local,
    /// It is on the disks of so many nodes, the owner among them.
    Sync(SyncCopies),
}

/// How many nodes hold a flush: 2 to [`MAX_SYNC_COPIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncCopies(u8);

impl SyncCopies {
    /// So many nodes; `None` outside of 2 to [`MAX_SYNC_COPIES`].
    pub const fn new(copies: u8) -> Option<Self> {
        if copies >= 2 && copies <= MAX_SYNC_COPIES { Some(Self(copies)) } else { None }
    }

    /// How many nodes, the owner among them.
    pub const fn count(self) -> u8 {
        self.0
    }
}

impl Durability {
    /// How many nodes hold an acknowledged flush, the owner among them.
    pub const fn copies(self) -> u8 {
        match self {
            Self::Local => 1,
            Self::Sync(copies) => copies.count(),
        }
    }
}

/// A text that is not a [`Durability`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a durability: give 'local', or 'sync:N' with N from 2 to {MAX_SYNC_COPIES}")]
pub struct InvalidDurability {
    /// What was given.
    pub text: String,
}

impl FromStr for Durability {
    type Err = InvalidDurability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let copies = |digits: &str| match digits.as_bytes() {
            [digit @ b'0'..=b'9'] => SyncCopies::new(digit - b'0'),
            _ => None,
        };
        match text.strip_prefix("sync:") {
            None if text == "local" => Ok(Self::Local),
            digits => {
                digits.and_then(copies).map(Self::Sync).ok_or_else(|| InvalidDurability { text: text.to_owned() })
            }
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Sync(copies) => write!(f, "sync:{}", copies.count()),
        }
    }
}

/// What flushes do while fewer nodes hold them than `sync:N` asks for, written `wait` or `continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DegradedPolicy {
    /// They wait until enough nodes are in sync.
    #[default]
    Wait,
    /// They are acknowledged once those that are in sync have them, were it the owner alone.
    Continue,
}

/// A text that is not a [`DegradedPolicy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' does not say what flushes do while copies are missing: give 'wait' or 'continue'")]
pub struct InvalidDegradedPolicy {
    /// What was given.
    pub text: String,
}

impl FromStr for DegradedPolicy {
    type Err = InvalidDegradedPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wait" => Ok(Self::Wait),
            "continue" => Ok(Self::Continue),
            _ => Err(InvalidDegradedPolicy { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for DegradedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Continue => "continue",
        })
    }
}

/// What happens when a client writes to a volume at a node that does not own it, written `manual` or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AttachPolicy {
    /// The write is refused: somebody has to move the volume first.
    #[default]
    Manual,
    /// The node asks for a handoff, and the write waits for it.
    Auto,
}

/// A text that is not an [`AttachPolicy`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an attach policy: give 'manual' or 'auto'")]
pub struct InvalidAttachPolicy {
    /// What was given.
    pub text: String,
}

impl FromStr for AttachPolicy {
    type Err = InvalidAttachPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "manual" => Ok(Self::Manual),
            "auto" => Ok(Self::Auto),
            _ => Err(InvalidAttachPolicy { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for AttachPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Auto => "auto",
        })
    }
}

as_text!(Durability, DegradedPolicy, AttachPolicy);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_reads_back_as_it_was_written() {
        for text in ["local", "sync:2", "sync:7"] {
            assert_eq!(text.parse::<Durability>().unwrap().to_string(), text);
        }
        assert_eq!(["local", "sync:2", "sync:7"].map(|text| text.parse::<Durability>().unwrap().copies()), [1, 2, 7]);
        for bad in ["", "Local", "sync", "sync:", "sync:0", "sync:1", "sync:8", "sync:02", "sync:+2", "sync:2 "] {
            assert!(bad.parse::<Durability>().is_err(), "{bad} was taken for a durability");
        }
    }

    #[test]
    fn what_to_do_while_copies_are_missing_reads_back_as_it_was_written() {
        for policy in [DegradedPolicy::Wait, DegradedPolicy::Continue] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("Continue".parse::<DegradedPolicy>().is_err());
    }

    #[test]
    fn an_attach_policy_reads_back_as_it_was_written() {
        for policy in [AttachPolicy::Manual, AttachPolicy::Auto] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("Auto".parse::<AttachPolicy>().is_err());
    }
}
