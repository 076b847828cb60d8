//! What happened to sessions and leases, told such that a program can judge it: events of the target [`TARGET`] at the level
//! DEBUG, each with the time by [`BootTime`], which is the same for all processes of one machine.
//!
//! | event | said | fields |
//! |---|---|---|
//! | `asks` | before something is proposed | `what`, `of`, `session`, `at_ns` |
//! | `hears` | when that has been answered | the same, `outcome`, and `asked_ns` of the event before |
//! | `lasts` | before a lease is prolonged | `session`, `until_ns`, `at_ns` |
//! | `decided` | when this node applies it | `index` in the log, `what`, `of`, `session`, `outcome`, `at_ns` |
//!
//! `of` is the node whose session it is, and `session` the number of that. Nothing depends on these events; tests read them
//! (`docs/faults.md`).

use sterna_runtime::BootTime;
use sterna_types::NodeId;

use crate::node::ProposeError;
use crate::state::command::Command;
use crate::state::outcome::Outcome;
use crate::state::refusal::Refusal;

/// What the events are told apart from others by.
pub const TARGET: &str = "sterna::lease";

/// A proposal about a session that is on its way.
#[derive(Debug)]
pub(crate) struct Asked {
    what: &'static str,
    of: NodeId,
    session: u64,
    at: BootTime,
}

impl Asked {
    /// Says that `command` is about to be proposed; `None` where it is not about a session.
    pub(crate) fn tell(command: &Command) -> Option<Self> {
        let (what, of, session) = about(command)?;
        let at = BootTime::now();
        tracing::debug!(target: TARGET, what, of = of.0, session, at_ns = at.nanoseconds(), "asks");
        Some(Self { what, of, session, at })
    }

    /// Says what has come of it.
    pub(crate) fn hear(self, answer: Result<&Outcome, &ProposeError>) {
        let Self { what, of, session, at } = self;
        let (outcome, session) = match answer {
            Ok(Outcome::Session { number, .. }) => ("done", number.0),
            Ok(_) => ("done", session),
            Err(ProposeError::Refused(_)) => ("refused", session),
            Err(_) => ("unknown", session),
        };
        let (asked_ns, at_ns) = (at.nanoseconds(), BootTime::now().nanoseconds());
        tracing::debug!(target: TARGET, what, of = of.0, session, outcome, asked_ns, at_ns, "hears");
    }
}

/// Says that a lease is prolonged.
pub(super) fn lasts(session: u64, until: BootTime) {
    let (until_ns, at_ns) = (until.nanoseconds(), BootTime::now().nanoseconds());
    tracing::debug!(target: TARGET, session, until_ns, at_ns, "lasts");
}

/// Says what this node has applied, if that is about a session.
pub(crate) fn decided(index: u64, command: &Command, answer: &Result<Outcome, Refusal>) {
    let Some((what, of, session)) = about(command) else { return };
    let (outcome, session) = match answer {
        Ok(Outcome::Session { number, .. }) => ("done", number.0),
        Ok(_) => ("done", session),
        Err(_) => ("refused", session),
    };
    // The time is looked at only where somebody listens.
    let at = || BootTime::now().nanoseconds();
    tracing::debug!(target: TARGET, index, what, of = of.0, session, outcome, at_ns = at(), "decided");
}

/// What a command does to a session, whose, and which; 0 where it makes a new one.
fn about(command: &Command) -> Option<(&'static str, NodeId, u64)> {
    match command {
        Command::OpenSession { node, .. } => Some(("open", *node, 0)),
        Command::RenewSession { node, number } => Some(("renew", *node, number.0)),
        Command::CloseSession { node, number, .. } => Some(("close", *node, number.0)),
        Command::LapseSession { node, number, .. } => Some(("lapse", *node, number.0)),
        _ => None,
    }
}
