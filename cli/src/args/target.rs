//! Which node a command is for: that of a directory of this machine, or one over the network.

use std::path::PathBuf;

/// The node that a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// That of this data directory, by its admin socket.
    Here(PathBuf),
    /// One over the network.
    Remote {
        /// The file of the administrator who talks to it.
        identity: PathBuf,
        /// Where it is; that of the file where nothing is said.
        address: Option<String>,
    },
}

/// Why it is not clear which node is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTarget {
    /// Nothing says so.
    #[error(
        "no node is chosen: give its data directory with --dir DIR, or in STERNA_DIR, or an administrator's file with --identity FILE"
    )]
    Nothing,
    /// An address alone.
    #[error("--remote (or STERNA_REMOTE) takes an administrator's file beside it: give it with --identity FILE")]
    NoIdentity,
    /// Two nodes.
    #[error(
        "--dir and --identity or --remote name two nodes, one here and one over the network: leave one of them out (or unset \
         STERNA_DIR, STERNA_IDENTITY and STERNA_REMOTE)"
    )]
    Both,
}

/// What was said, and whether on the command line itself: what is there goes before what is in the environment.
pub(crate) fn choose(
    dir: Option<(PathBuf, bool)>,
    identity: Option<(PathBuf, bool)>,
    remote: Option<(String, bool)>,
) -> Result<Target, NoTarget> {
    let typed_here = dir.as_ref().is_some_and(|(_, typed)| *typed);
    let typed_remote = [identity.as_ref().map(|(_, typed)| *typed), remote.as_ref().map(|(_, typed)| *typed)];
    let (is_remote, typed_remote) = (typed_remote.iter().any(Option::is_some), typed_remote.contains(&Some(true)));
    match dir {
        Some(_) if is_remote && typed_here == typed_remote => Err(NoTarget::Both),
        Some((dir, _)) if !is_remote || typed_here => Ok(Target::Here(dir)),
        None if !is_remote => Err(NoTarget::Nothing),
        _ => {
            let (identity, _) = identity.ok_or(NoTarget::NoIdentity)?;
            Ok(Target::Remote { identity, address: remote.map(|(address, _)| address) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(dir: Option<bool>, identity: Option<bool>, remote: Option<bool>) -> Result<Target, NoTarget> {
        let dir = dir.map(|typed| (PathBuf::from("/d"), typed));
        choose(dir, identity.map(|typed| (PathBuf::from("/i"), typed)), remote.map(|typed| ("r:1".to_owned(), typed)))
    }

    #[test]
    fn what_is_typed_goes_before_what_is_in_the_environment() {
        let here = Ok(Target::Here("/d".into()));
        let remote =
            |address: Option<&str>| Ok(Target::Remote { identity: "/i".into(), address: address.map(str::to_owned) });
        assert_eq!(chosen(Some(false), None, None), here);
        assert_eq!(chosen(Some(true), Some(false), Some(false)), here);
        assert_eq!(chosen(None, Some(false), None), remote(None));
        assert_eq!(chosen(Some(false), Some(true), None), remote(None));
        assert_eq!(chosen(Some(false), Some(false), Some(true)), remote(Some("r:1")));
    }

    #[test]
    fn two_nodes_or_none_are_an_error() {
        assert_eq!(chosen(None, None, None), Err(NoTarget::Nothing));
        assert_eq!(chosen(None, None, Some(true)), Err(NoTarget::NoIdentity));
        for typed in [true, false] {
            assert_eq!(chosen(Some(typed), Some(typed), None), Err(NoTarget::Both));
        }
        assert_eq!(chosen(Some(true), Some(false), Some(true)), Err(NoTarget::Both));
    }
}
