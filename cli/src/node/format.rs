//! The file `format` of a data directory: what wrote it, and which node it belongs to.
//!
//! It is text, so that people can read it. The first line is the magic and the version; the lines of version 1 are these,
//! in this order:
//!
//! ```text
//! STERNA-NODE 1
//! cluster 0123456789abcdef0123456789abcdef
//! node ams-1
//! site ams
//! ```

use std::fmt;

use sterna_types::{ClusterId, NodeName, SiteName};

/// Which node a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The node.
    pub(crate) node: NodeName,
    /// Where the node stands.
    pub(crate) site: SiteName,
}

/// A text that is not the file `format` of a data directory that this program can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidFormat {
    /// It is something else.
    #[error("it does not begin with '{MAGIC} ' and a version")]
    Magic,
    /// A later version of the program wrote it.
    #[error(
        "it has version {found}, and this program knows versions up to {VERSION}: use the program that wrote it, or a later one"
    )]
    Newer {
        /// The version.
        found: u32,
    },
    /// A line is not what it has to be.
    #[error("line {line} is not '{key} ' and a {key}'s name or id")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What should be there.
        key: &'static str,
    },
    /// It breaks off, or goes on.
    #[error("it does not end behind its last line")]
    End,
}

impl Identity {
    /// The identity that the file says.
    ///
    /// # Errors
    /// [`InvalidFormat`]. Of a newer version nothing but the first line is looked at.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidFormat> {
        let mut lines = text.split('\n');
        let version = lines.next().and_then(|first| first.strip_prefix(MAGIC)?.strip_prefix(' '));
        let version: u32 = version.and_then(|digits| digits.parse().ok()).ok_or(InvalidFormat::Magic)?;
        match version {
            VERSION => {}
            0 => return Err(InvalidFormat::Magic),
            found => return Err(InvalidFormat::Newer { found }),
        }
        let mut value = |line: usize, key: &'static str| {
            let found = lines.next().and_then(|text| text.strip_prefix(key)?.strip_prefix(' '));
            found.ok_or(InvalidFormat::Line { line, key })
        };
        let (cluster, node, site) = (value(2, CLUSTER)?, value(3, NODE)?, value(4, SITE)?);
        let identity = Self {
            cluster: cluster.parse().map_err(|_| InvalidFormat::Line { line: 2, key: CLUSTER })?,
            node: node.parse().map_err(|_| InvalidFormat::Line { line: 3, key: NODE })?,
            site: site.parse().map_err(|_| InvalidFormat::Line { line: 4, key: SITE })?,
        };
        if (lines.next(), lines.next()) == (Some(""), None) { Ok(identity) } else { Err(InvalidFormat::End) }
    }
}

impl fmt::Display for Identity {
    /// The file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node, site } = self;
        write!(f, "{MAGIC} {VERSION}\n{CLUSTER} {cluster}\n{NODE} {node}\n{SITE} {site}\n")
    }
}

const MAGIC: &str = "STERNA-NODE";
const VERSION: u32 = 1;
const CLUSTER: &str = "cluster";
const NODE: &str = "node";
const SITE: &str = "site";

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let (node, site) = ("ams-1".parse().expect("a name"), "ams".parse().expect("a name"));
        Identity { cluster: ClusterId::from_bytes([0xc5; 16]), node, site }
    }

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let text = "STERNA-NODE 1\ncluster c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5\nnode ams-1\nsite ams\n";
        assert_eq!(Identity::parse(text), Ok(identity()));
        assert_eq!(identity().to_string(), text);
    }

    #[test]
    fn every_part_of_the_file_is_needed() {
        let text = identity().to_string();
        for end in 0..text.len() {
            assert!(Identity::parse(&text[..end]).is_err(), "{:?} was taken for a format file", &text[..end]);
        }
        assert_eq!(Identity::parse(&format!("{text}more\n")), Err(InvalidFormat::End));
        assert_eq!(Identity::parse(&text.replace("ams-1", "Ams")), Err(InvalidFormat::Line { line: 3, key: NODE }));
    }

    #[test]
    fn a_newer_version_is_told_from_something_else() {
        assert_eq!(Identity::parse("STERNA-NODE 2\nwhatever"), Err(InvalidFormat::Newer { found: 2 }));
        for other in ["", "STERNA-NODE", "STERNA-NODE 0\n", "STERNA-NODE one\n", "PK 1\n"] {
            assert_eq!(Identity::parse(other), Err(InvalidFormat::Magic));
        }
    }
}
