//! A command as it is sent: with a name for this very request where it has to be carried out once, and how long it is when it is
//! written down.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::text_form::as_text;

/// A command, and optionally a name for this very request, so that it is carried out once however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The same again when the request is repeated because its answer was lost. The outcomes of the last
    /// [`MAX_ANSWERED_REQUESTS`](crate::limits::MAX_ANSWERED_REQUESTS) requests with an id are remembered.
    pub id: Option<RequestId>,
    /// What is asked.
    pub command: Command,
}

impl Request {
    /// A bound for the bytes that this request takes as JSON, found without writing it.
    pub(crate) fn bytes_at_most(&self) -> usize {
        let (base, listed) = match &self.command {
            Command::PublishRoots(publications) => {
                (SHORT_REQUEST_BYTES_AT_MOST, publications.len() * PUBLICATION_BYTES_AT_MOST)
            }
            Command::RenewSession { .. } => (SHORT_REQUEST_BYTES_AT_MOST, 0),
            Command::ReportReplicas { reports, .. } => {
                let snapshots: usize = reports.iter().map(|report| report.snapshots.len()).sum();
                (SHORT_REQUEST_BYTES_AT_MOST, reports.len() * REPORT_BYTES_AT_MOST + snapshots * NAME_BYTES_AT_MOST)
            }
            Command::BeginHandoff { volumes, .. }
            | Command::AbortHandoff { volumes, .. }
            | Command::DeclineHandoff { volumes, .. } => {
                (SHORT_REQUEST_BYTES_AT_MOST, volumes.len() * HANDOFF_BYTES_AT_MOST)
            }
            Command::CommitHandoff { volumes, .. } => {
                (SHORT_REQUEST_BYTES_AT_MOST, volumes.len() * RECEIVED_BYTES_AT_MOST)
            }
            Command::ChangeInSync { add, remove, .. } => {
                (REQUEST_BYTES_AT_MOST, (add.len() + remove.len()) * NODE_BYTES_AT_MOST)
            }
            Command::FinishHydration { snapshots, .. } => (REQUEST_BYTES_AT_MOST, snapshots.len() * NAME_BYTES_AT_MOST),
            _ => (REQUEST_BYTES_AT_MOST, 0),
        };
        base + listed
    }
}

/// The name of one request: 16 random bytes chosen by the client, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not a [`RequestId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a request's id: it takes 32 hexadecimal digits")]
pub struct InvalidRequestId {
    /// What was given.
    pub text: String,
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| InvalidRequestId { text: text.to_owned() })
    }
}

as_text!(RequestId);

/// No request without roots is longer as JSON: a handful of names of 63 bytes, a hash, and the names of the fields.
pub(crate) const REQUEST_BYTES_AT_MOST: usize = 1024;
/// Nor is one that has nothing but an id, two numbers of 20 digits, and the names of the fields. Many of these share an entry.
const SHORT_REQUEST_BYTES_AT_MOST: usize = 160;
/// No publication is longer as JSON: five numbers of 20 digits, a hash of 64, and the names of the fields.
const PUBLICATION_BYTES_AT_MOST: usize = 288;
/// Nor a report, but for the names of its snapshots.
const REPORT_BYTES_AT_MOST: usize = 320;
/// Nor a handoff of one volume: two numbers.
const HANDOFF_BYTES_AT_MOST: usize = 64;
/// Nor a volume that was given: five numbers, a hash.
const RECEIVED_BYTES_AT_MOST: usize = 304;
/// Nor the id of a node, with a comma.
const NODE_BYTES_AT_MOST: usize = 21;
/// Nor a name of 63 bytes, with quotes and a comma.
const NAME_BYTES_AT_MOST: usize = 66;
