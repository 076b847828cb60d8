//! Names of volumes, snapshots, sites, nodes and VMs: what an administrator types, an export is called, and a log line shows.
//!
//! A name has 1 to 63 characters: lower-case letters, digits, `-`, `_` and `.`, the first a letter or digit. So it needs
//! no quoting in a shell, a path, a URI or a metric, and two names that look alike are alike.

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_NAME_BYTES;

/// A text that is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a {what}'s name: it takes 1 to {MAX_NAME_BYTES} of a-z, 0-9, '-', '_' and '.', the first a letter or digit"
)]
pub struct InvalidName {
    /// What was to be named.
    pub what: &'static str,
    /// What was given.
    pub text: String,
}

fn is_name(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= MAX_NAME_BYTES
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|c| plain(c) || matches!(c, b'-' | b'_' | b'.'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(InvalidName { what: $what, text: text.to_owned() }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a volume, unique in its cluster; also the name of its NBD export.
    VolumeName,
    "volume"
);
name!(
    /// The name of a snapshot, unique among those of its volume.
    SnapshotName,
    "snapshot"
);
name!(
    /// The name of a site, such as `ams`.
    SiteName,
    "site"
);
name!(
    /// The name of a node, such as `ams-1`.
    NodeName,
    "node"
);
name!(
    /// The name of a VM, unique in its cluster, such as `web-1`.
    VmName,
    "VM"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_needs_no_quoting_anywhere() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "web-1.root_disk", longest.as_str()] {
            assert_eq!(good.parse::<VolumeName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", ".", "..", "A", "a b", "a/b", "ä", "a\0", too_long.as_str()] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad} was taken for a name");
        }
    }

    #[test]
    fn an_error_says_what_was_to_be_named() {
        let error = "No!".parse::<NodeName>().expect_err("a name with an exclamation mark");
        assert!(error.to_string().starts_with("'No!' is not a node's name"), "{error}");
    }
}
