//! What nodes tell of sessions and volumes in their logs, as records.
//!
//! A line of such an event is `TIME DEBUG sterna::lease: EVENT key=value key="value"…`; all others are passed over.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::history::{Decision, NodeEvent, NodeRecord, What};

/// The events in the log of a node, in all of its lives. What ids volumes have is in `volumes`, in the volumes' order.
///
/// # Errors
/// An event is not one that is known. A last line that was not written to its end is.
pub fn read(node: u8, log: &str, volumes: &[u64]) -> Result<Vec<NodeRecord>> {
    let marker = format!(" {TARGET}: ");
    let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = whole.filter_map(|line| Some(line.split_once(&marker)?.1.trim_end()));
    let records =
        lines.map(|line| event(node, line, volumes).with_context(|| format!("an event of node {node}: {line}")));
    records.filter_map(Result::transpose).collect()
}

/// `None` for an event about a volume of no interest.
fn event(node: u8, line: &str, volumes: &[u64]) -> Result<Option<NodeRecord>> {
    let (name, rest) = line.split_once(' ').context("it has no fields")?;
    let fields = Fields(rest.split(' ').filter_map(|field| field.split_once('=')).collect());
    let of = || -> Result<u8> { Ok(u8::try_from(fields.number("of")?.checked_sub(1).context("nodes count from 1")?)?) };
    let volume = || -> Result<Option<u8>> {
        let id = fields.number("volume")?;
        Ok(volumes.iter().position(|known| *known == id).map(u8::try_from).transpose()?)
    };
    let event = match name {
        "asks" => NodeEvent::Asks { what: fields.what()?, of: of()?, session: fields.number("session")? },
        "hears" => NodeEvent::Hears {
            what: fields.what()?,
            of: of()?,
            session: fields.number("session")?,
            outcome: fields.outcome()?,
            asked_ns: fields.number("asked_ns")?,
        },
        "lasts" => NodeEvent::Lasts { session: fields.number("session")?, until_ns: fields.number("until_ns")? },
        "decided" => NodeEvent::Decided {
            index: fields.number("index")?,
            what: fields.what()?,
            of: of()?,
            session: fields.number("session")?,
            outcome: fields.outcome()?,
        },
        "serves" | "ends" => {
            let Some(volume) = volume()? else { return Ok(None) };
            let epoch = fields.number("epoch")?;
            if name == "serves" { NodeEvent::Serves { volume, epoch } } else { NodeEvent::Ends { volume, epoch } }
        }
        _ => bail!("it is not known"),
    };
    Ok(Some(NodeRecord { node, at_ns: fields.number("at_ns")?, event }))
}

/// What the events are told apart by.
const TARGET: &str = "sterna::lease";

struct Fields<'a>(HashMap<&'a str, &'a str>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<&str> {
        let value = self.0.get(name).with_context(|| format!("it has no field '{name}'"))?;
        Ok(value.trim_matches('"'))
    }

    fn number(&self, name: &str) -> Result<u64> {
        self.text(name)?.parse().with_context(|| format!("its field '{name}' is no number"))
    }

    fn what(&self) -> Result<What> {
        Ok(match self.text("what")? {
            "open" => What::Open,
            "renew" => What::Renew,
            "close" => What::Close,
            "lapse" => What::Lapse,
            other => bail!("nobody asks for '{other}'"),
        })
    }

    fn outcome(&self) -> Result<Decision> {
        Ok(match self.text("outcome")? {
            "done" => Decision::Done,
            "refused" => Decision::Refused,
            "unknown" => Decision::Unknown,
            other => bail!("nothing comes of anything as '{other}'"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_among_other_lines() {
        let log = "2026-11-21T21:20:48.1Z  INFO sterna_cli::node::run: hello at_ns=1\n\
                   2026-11-21T21:20:48.1Z DEBUG sterna::lease: asks what=\"open\" of=2 session=0 at_ns=5\n\
                   2026-11-21T21:20:48.1Z DEBUG sterna::lease: serves volume=9 epoch=1 at_ns=6\n\
                   2026-11-21T21:20:48.1Z DEBUG sterna::lease: serves volume=7 epoch=3 at_ns=7\n\
                   2026-11-21T21:20:48.1Z DEBUG sterna::lease: asks wh";
        let found = read(1, log, &[7]).unwrap();
        let asks = NodeEvent::Asks { what: What::Open, of: 1, session: 0 };
        let expected = [(5, asks), (7, NodeEvent::Serves { volume: 0, epoch: 3 })].map(|(at_ns, event)| NodeRecord {
            node: 1,
            at_ns,
            event,
        });
        assert_eq!(found, expected);
        assert!(read(0, "x sterna::lease: asks what=\"jump\" of=1 session=0 at_ns=5\n", &[]).is_err());
        assert!(read(0, "x sterna::lease: asks what=\"open\" session=0 at_ns=5\n", &[]).is_err());
    }
}
