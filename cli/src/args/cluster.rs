//! `sterna cluster`: the nodes, tokens for new ones, and who decides.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use sterna_transport::{AdministratorName, Role};
use sterna_types::{NodeName, SiteName};

use super::values::Limit;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the node, its cluster, how the other nodes answer, and what this one holds.
    Status,
    /// Tokens by which new nodes join.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Stage a change of what a node is there for. Nothing happens before `sterna cluster apply`.
    Node {
        #[command(subcommand)]
        command: NodeChangeCommand,
    },
    /// Show how long nodes' sessions last, or set it.
    Session(SessionSettings),
    /// Show how much may be sent from each site to each other one, and how much the node has sent and received; or set a limit.
    ///
    /// What somebody waits for is counted and never held back: the rest makes room for it. The nodes of a site that have sessions share
    /// a limit equally.
    Link(LinkSettings),
    /// Show what would be left if a site were switched off now: which volumes would stop, where each could go on, and what would be lost.
    Without {
        /// The site.
        site: SiteName,
    },
    /// Certificates for administrators who talk to nodes over the network.
    Admin {
        #[command(subcommand)]
        command: AdministratorCommand,
    },
    /// Show who decides, what is staged, and what that would make of it.
    Changes,
    /// Make the staged changes, as they were shown under this revision.
    Apply {
        /// The revision that `sterna cluster changes` has shown.
        revision: u64,
    },
    /// Give up the staged changes.
    Discard,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token by which one node can join. It is a secret, and is shown once.
    Create(CreateToken),
    /// List the tokens, without their secrets.
    List,
    /// Take a token back.
    Revoke {
        /// The token's id, as listed.
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateToken {
    /// The only site at which it lets a node in; without it any, also a new one.
    #[arg(long)]
    pub(crate) site: Option<SiteName>,

    /// How long it can be used: 30min, 1h, 7d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub(crate) expires: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SessionSettings {
    /// How long a session lasts after each renewal: 5s, 1500ms, 2min; 1 s to 10 min. The shorter, the sooner others may take over
    /// what a node that is cut off owns, and the shorter the cuts that its clients survive.
    #[arg(long, value_name = "TIME", value_parser = session_length)]
    pub(crate) length: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LinkSettings {
    /// The site that sends.
    #[arg(requires = "to")]
    pub(crate) from: Option<SiteName>,

    /// The site that receives.
    #[arg(requires = "limit")]
    pub(crate) to: Option<SiteName>,

    /// How much at most, in bits in a second: 50Mbit, 1Gbit; or 'none'.
    #[arg(long, value_name = "RATE", requires = "to")]
    pub(crate) limit: Option<Limit>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdministratorCommand {
    /// Make a key and a certificate, for commands with --identity FILE. Nothing but its expiry ends a certificate.
    Create(CreateAdministrator),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateAdministrator {
    /// Who it is for; the name stands in the nodes' logs.
    pub(crate) name: AdministratorName,

    /// What it lets them do: 'viewer' looks, 'operator' works with volumes, 'admin' does everything.
    #[arg(long)]
    pub(crate) role: Role,

    /// How long it is valid: 12h, 30d, at most 365d.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = administrator_lifetime)]
    pub(crate) lifetime: Duration,

    /// The file to make, with key, certificate and the node's address. It is a secret, and may not be there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeChangeCommand {
    /// It is to vote.
    Promote(OneNode),
    /// It is to listen only.
    Demote(OneNode),
    /// It is to be given no more volumes.
    Drain(OneNode),
    /// It is to be given volumes again.
    Undrain(OneNode),
    /// It is to go for good. It may own nothing.
    Remove(OneNode),
    /// A node is to go for good, and another one to have its voice: for one that lost its disk.
    Replace {
        /// The node that goes.
        node: NodeName,
        /// The node that takes its place; it has joined already.
        by: NodeName,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneNode {
    /// Its name.
    pub(crate) node: NodeName,
}

/// A text that is not how long a token or a certificate lasts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a time: give a number with s, min, h or d behind it, at most {days}d")]
pub(super) struct InvalidLifetime {
    text: String,
    days: u64,
}

fn lifetime(text: &str) -> Result<Duration, InvalidLifetime> {
    lifetime_up_to(LONGEST_TOKEN, text)
}

fn administrator_lifetime(text: &str) -> Result<Duration, InvalidLifetime> {
    lifetime_up_to(LONGEST_ADMINISTRATOR, text)
}

pub(super) fn lifetime_up_to(longest: Duration, text: &str) -> Result<Duration, InvalidLifetime> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = UNITS.iter().find_map(|(name, seconds)| (*name == unit).then_some(*seconds));
    let seconds = seconds.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let allowed = seconds.filter(|seconds| (1..=longest.as_secs()).contains(seconds));
    let days = longest.as_secs() / DAY_SECONDS;
    allowed.map(Duration::from_secs).ok_or_else(|| InvalidLifetime { text: text.to_owned(), days })
}

/// A text that is not how long a session lasts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not how long a session can last: give a number with ms, s or min behind it, from 1s to 10min")]
struct InvalidSessionLength {
    text: String,
}

fn session_length(text: &str) -> Result<Duration, InvalidSessionLength> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let ms = SESSION_UNITS.iter().find_map(|(name, ms)| (*name == unit).then_some(*ms));
    let ms = ms.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let allowed =
        ms.map(Duration::from_millis).filter(|length| SHORTEST_SESSION <= *length && *length <= LONGEST_SESSION);
    allowed.ok_or_else(|| InvalidSessionLength { text: text.to_owned() })
}

const SESSION_UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("min", 60_000)];
/// As the metadata bounds it.
const SHORTEST_SESSION: Duration = Duration::from_secs(1);
const LONGEST_SESSION: Duration = Duration::from_secs(600);
/// Nobody can take a certificate back, so none lasts for longer than a year.
pub(crate) const LONGEST_ADMINISTRATOR: Duration = Duration::from_secs(365 * DAY_SECONDS);
const LONGEST_TOKEN: Duration = Duration::from_secs(30 * DAY_SECONDS);
const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("d", DAY_SECONDS)];
const DAY_SECONDS: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_consensus::state::session::SessionLength;

    #[test]
    fn a_session_lasts_as_long_as_is_said() {
        for (text, ms) in [("1s", 1_000), ("1500ms", 1_500), ("15s", 15_000), ("10min", 600_000)] {
            let length = Duration::from_millis(ms);
            assert_eq!(session_length(text), Ok(length), "{text}");
            assert!(SessionLength::try_from(length).is_ok(), "{text} is refused by the metadata");
        }
        for bad in ["", "15", "999ms", "0s", "601s", "11min", "1h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(session_length(bad).is_err(), "{bad} was taken for how long a session lasts");
        }
    }

    #[test]
    fn a_token_lasts_as_long_as_is_said() {
        for (text, seconds) in [("1s", 1), ("30min", 1_800), ("2h", 7_200), ("30d", 30 * DAY_SECONDS)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0s", "1", "1m", "31d", "-1h", "1.5h", "99999999999999999999d"] {
            assert!(lifetime(bad).is_err(), "{bad} was taken for a time");
        }
        assert_eq!(administrator_lifetime("365d"), Ok(LONGEST_ADMINISTRATOR));
        assert!(administrator_lifetime("366d").is_err_and(|error| error.to_string().contains("at most 365d")));
    }
}
