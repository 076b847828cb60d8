//! What it takes to have at another site what a volume holds: bytes on the way, and what guests feel of it.
//!
//! Three sites on an emulated network. The metadata is led from the third, so that between the two that are measured there is nothing but
//! chunks, and what is counted is every byte of every IP packet between them, in both directions, less what is sent while nothing is
//! propagated.
//!
//! * [`bytes`]: one changed block, a large image, one like another, and the way back after a day's work.
//! * [`waits`]: what writes at the owner and reads of what is missing wait for meanwhile, and whether limits hold.
//! * [`sequential`]: what somebody is given who reads on and on.

mod bytes;
mod large;
mod sequential;
mod waits;

use anyhow::Result;

use crate::facts::Facts;
use crate::stage::Stage;

/// What is measured, and how much of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often what is short is measured; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How much of the large image is used, in MB; it has half as much again in all. 0 leaves it out.
    #[arg(long, default_value_t = 6600, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    used_mb: u64,
    /// Only what has this in its name: block, large, similar, return, write, limit, read, sequential.
    #[arg(long)]
    only: Option<String>,
}

/// Measures all of it. Needs root.
///
/// # Errors
/// The network or the cluster does not come to be, or something does not arrive.
pub(crate) fn measure(measure: &Measure) -> Result<Facts> {
    let mut facts = Facts::new("what a volume's other site costs; three sites on an emulated network");
    type Part = fn(&Measure, &Stage<'_>, &mut Facts) -> Result<()>;
    let parts: [(&str, Part); 8] = [
        ("block", |measure, stage, facts| bytes::block(stage, measure.rounds, facts)),
        ("large", |measure, stage, facts| bytes::large(stage, measure.used_mb, facts)),
        ("similar", |_, stage, facts| bytes::similar(stage, facts)),
        ("return", |_, stage, facts| bytes::way_back(stage, facts)),
        ("write", |measure, stage, facts| waits::write(stage, measure.rounds, facts)),
        ("limit", |_, stage, facts| waits::limit(stage, facts)),
        ("read", |measure, stage, facts| waits::read(stage, measure.rounds, facts)),
        ("sequential", |measure, stage, facts| sequential::sequential(stage, measure.rounds, facts)),
    ];
    for (name, part) in parts {
        if measure.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let directory = tempfile::tempdir()?;
        part(measure, &Stage::start(directory.path())?, &mut facts)?;
    }
    Ok(facts)
}
