//! What is wrong with a history. Pure functions, each for one promise:
//!
//! * [`owners`]: no two nodes acknowledge one volume's requests at the same time, and none does so after its successor.
//! * [`contents`]: what was acknowledged is read back, and nothing that was not written is.
//! * [`leases`]: sessions are opened, renewed, and ended in an order that everybody's view agrees with; no lease outlasts its
//!   session, and nothing is acknowledged without one.
//! * [`lineage`]: what a volume holds after a failover. [`linear`]: whether there is such an order, by search. [`epochs`]: which epoch a connection belongs to.

pub mod contents;
pub mod epochs;
pub mod leases;
pub mod lineage;
pub mod linear;
pub mod owners;
#[cfg(test)]
mod tests;

use std::fmt;

use anyhow::Result;

use super::history::{Record, setting};
use epochs::Epochs;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// When, by the history's clock.
    pub at_ns: u64,
    /// What has happened.
    pub what: String,
}

/// What a cluster promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// At most one node acknowledges requests of a volume at any time.
    OneWriter,
    /// What was acknowledged is there, and nothing else.
    Contents,
    /// A failover says exactly what is lost.
    LossReport,
    /// Every request is answered, and with no error but that of a node that may not answer.
    Answers,
    /// Sessions and leases are as if they were changed by one at a time.
    Leases,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneWriter => "one writer",
            Self::Contents => "contents",
            Self::LossReport => "loss report",
            Self::Answers => "answers",
            Self::Leases => "leases",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {} ns): {}", self.promise, self.at_ns, self.what)
    }
}

/// All that is wrong with a history.
///
/// # Errors
/// It is not one.
pub fn check(records: &[Record]) -> Result<Vec<Violation>> {
    let setting = setting(records)?;
    let epochs = Epochs::of(records);
    let mut violations = owners::check(records, &epochs);
    violations.extend(contents::check(setting, records, &epochs));
    violations.extend(leases::check(setting, records));
    violations.sort_by_key(|violation| violation.at_ns);
    Ok(violations)
}
