//! What is struck in the middle of a migration, and when: as soon as one of its ends has taken a step.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Victim {
    /// The migrator that the VM leaves.
    SourceMigrator,
    /// The one that it comes to.
    DestinationMigrator,
    /// The node that its volumes leave.
    SourceNode,
    /// The one that they come to.
    DestinationNode,
    /// The QEMU that it leaves.
    SourceQemu,
    /// The one that it comes to.
    DestinationQemu,
    /// The link between the two, for a while.
    Link,
    /// All processes of the host that it leaves, at once.
    SourceHost,
    /// All of the one that it comes to.
    DestinationHost,
}

impl Victim {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::SourceMigrator,
        Self::DestinationMigrator,
        Self::SourceNode,
        Self::DestinationNode,
        Self::SourceQemu,
        Self::DestinationQemu,
        Self::Link,
        Self::SourceHost,
        Self::DestinationHost,
    ];
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceMigrator => "the source's migrator",
            Self::DestinationMigrator => "the destination's migrator",
            Self::SourceNode => "the source's node",
            Self::DestinationNode => "the destination's node",
            Self::SourceQemu => "the source's QEMU",
            Self::DestinationQemu => "the destination's QEMU",
            Self::Link => "the link",
            Self::SourceHost => "the source's host",
            Self::DestinationHost => "the destination's host",
        })
    }
}

/// When it is struck: when an end has said that it is about to take this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Which end says it.
    pub is_source: bool,
    /// The step, as its log has it.
    pub step: &'static str,
}

impl Moment {
    /// All of them, in the order of a migration in which nothing goes wrong.
    pub const ALL: [Self; 9] = [
        Self { is_source: true, step: "Prepare" },
        Self { is_source: true, step: "SendMemory" },
        Self { is_source: true, step: "BringVolumes" },
        Self { is_source: true, step: "PrepareVolumes" },
        Self { is_source: true, step: "Stop" },
        Self { is_source: true, step: "Switch" },
        Self { is_source: false, step: "Record(Runs)" },
        Self { is_source: false, step: "Continue" },
        Self { is_source: true, step: "End" },
    ];
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_source { "source" } else { "destination" };
        write!(f, "{} of the {end}", self.step)
    }
}

/// A log that is read as it grows, from where it ended when this was made.
#[derive(Debug)]
pub struct Tail {
    file: File,
    text: String,
}

impl Tail {
    /// From the end of this file on.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: &PathBuf) -> Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, text: String::new() })
    }

    /// Waits until a line has all of these words.
    ///
    /// # Errors
    /// None does within this time, or the log cannot be read.
    pub fn wait_for(&mut self, words: &[&str], limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let mut bytes = Vec::new();
            self.file.read_to_end(&mut bytes)?;
            self.text.push_str(&String::from_utf8_lossy(&bytes));
            let whole = self.text.rfind('\n').map_or(0, |end| end + 1);
            if self.text[..whole].lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return Ok(());
            }
            self.text.drain(..whole);
            if begun.elapsed() > limit {
                bail!("nothing was logged with {words:?} within {limit:?}");
            }
            thread::sleep(LOOK);
        }
    }
}

/// A step takes longer than this.
const LOOK: Duration = Duration::from_micros(300);
