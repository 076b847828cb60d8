//! What has happened in a run: a line for each thing, so that whoever reads them knows what to look for; and a digest of them and of
//! all that was done to the disk, which is the same for the same seed.

use std::fmt;

use blake3::{Hash, Hasher};
use serde::{Deserialize, Serialize};

/// The story of a run. Written down it is its lines, and its digest is that of the lines alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Story {
    lines: Vec<String>,
    digest: Hasher,
}

impl From<Vec<String>> for Story {
    fn from(lines: Vec<String>) -> Self {
        let mut story = Self::default();
        lines.into_iter().for_each(|line| story.tell(line));
        story
    }
}

impl From<Story> for Vec<String> {
    fn from(story: Story) -> Self {
        story.lines
    }
}

impl Story {
    /// Goes on with a line.
    pub fn tell(&mut self, line: impl Into<String>) {
        let line = line.into();
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        self.lines.push(line);
    }

    /// Goes on with something that only programs look at.
    pub fn note(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// What has happened, from the beginning.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What is the same in each run of the same seed.
    pub fn digest(&self) -> Hash {
        self.digest.finalize()
    }
}

/// The last lines: what came long before is rarely why.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.lines.len().saturating_sub(SHOWN_LINES);
        if first > 0 {
            writeln!(f, "  … {first} lines before")?;
        }
        (first..).zip(&self.lines[first..]).try_for_each(|(number, line)| writeln!(f, "  {:4} {line}", number + 1))
    }
}

const SHOWN_LINES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_all_lines_and_the_text_has_the_last() {
        let told = |lines: std::ops::Range<u32>| {
            let mut story = Story::default();
            lines.for_each(|line| story.tell(format!("line {line}")));
            story
        };
        assert_eq!(told(0..100).digest(), told(0..100).digest());
        assert_ne!(told(0..100).digest(), told(1..100).digest());
        let text = told(0..100).to_string();
        assert!(
            text.contains("40 lines before") && text.contains("  100 line 99") && !text.contains("line 39\n"),
            "{text}"
        );
    }
}
