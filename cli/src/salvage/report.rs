//! What a salvage says: lines and a table for people, or values for programs.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sterna_storage_node::salvage::{Extracted, FoundVolume, LostRange, NamedSnapshot, Salvage};
use sterna_types::Root;

use super::choice::{Chosen, name_of};
use crate::console::output::Output;
use crate::console::table::Table;

/// What was found, on its way out.
pub(super) struct Report {
    output: Output,
    /// For people; printed at the end.
    table: Table,
}

impl Report {
    pub(super) fn new(output: Output) -> Self {
        Self { output, table: Table::new(HEADER) }
    }

    /// Something that was not as one would want it, and is no loss yet.
    pub(super) fn note(&mut self, what: &str) -> Result<()> {
        self.output.result(&json!({ "note": what }), format!("note: {what}"))
    }

    pub(super) fn damages(&mut self, salvage: &Salvage) -> Result<()> {
        for damage in salvage.damages() {
            let damage = damage.to_string();
            self.output.result(&json!({ "damage": damage }), format!("damage: {damage}"))?;
        }
        salvage.volumes().iter().try_for_each(|volume| self.journal(volume))
    }

    fn journal(&mut self, volume: &FoundVolume) -> Result<()> {
        let (name, journal) = (name_of(volume), &volume.journal);
        let mut whats: Vec<String> = journal.damages.iter().map(ToString::to_string).collect();
        if let Some(durable) = journal.durable_once {
            let (first, last) = (journal.last.0.saturating_add(1), durable.0);
            whats.push(format!("records {first} to {last} of its journal, or some of them, are lost"));
        }
        if volume.lost_a_newer_one {
            whats.push("a newer state of it was sealed, and its map is lost".to_owned());
        }
        if journal.is_damaged() && journal.strays > 0 {
            whats.push(format!("{} records behind the damage are taken with --past-damage", journal.strays));
        }
        for what in whats {
            let value = json!({ "damage": what, "volume": volume.id.0 });
            self.output.result(&value, format!("damage: volume '{name}': {what}"))?;
        }
        Ok(())
    }

    pub(super) fn snapshot(
        &mut self,
        volume: &FoundVolume,
        snapshot: &NamedSnapshot,
        name: &str,
        examined: &Extracted,
    ) -> Result<()> {
        self.row(name, snapshot.size.bytes().to_string(), "", "", examined);
        let value = json!({ "snapshot": name, "volume": volume.id.0, "size": snapshot.size.bytes().0,
            "root": snapshot.root.to_string(), "data_bytes": examined.data_bytes, "lost": ranges(examined) });
        self.for_programs(&value)
    }

    /// A root that no volume has.
    pub(super) fn unclaimed(&mut self, root: Root) -> Result<()> {
        let value = json!({ "unclaimed_root": root.to_string() });
        self.output.result(&value, format!("a root that no volume has: {root}"))
    }

    /// A volume, and what of it is here, where anything says what it was.
    pub(super) fn volume(&mut self, volume: &FoundVolume, examined: Option<&Extracted>) -> Result<()> {
        let version = volume.newest.and_then(|newest| volume.versions.get(newest));
        let size = volume.size.map_or_else(|| "?".to_owned(), |size| size.bytes().to_string());
        let generation = version.map_or_else(|| "?".to_owned(), |version| version.generation.to_string());
        let records = volume.journal.records.to_string();
        match examined {
            Some(examined) => self.row(&name_of(volume), size, &generation, &records, examined),
            None => self.table.row([name_of(volume), size, generation, records, "?".to_owned(), "all".to_owned()]),
        }
        let versions = volume.versions.iter().map(|version| {
            json!({ "root": version.root.to_string(), "generation": version.generation, "epoch": version.epoch.number(),
                "size": version.size.bytes().0, "sealed_through": version.sealed_through.0,
                "source": version.source.to_string() })
        });
        let versions: Vec<Value> = versions.collect();
        self.for_programs(&json!({ "volume": volume.id.0, "name": volume.name.as_ref().map(ToString::to_string),
            "size": volume.size.map(|size| size.bytes().0), "newest": volume.newest, "versions": versions,
            "journal_records": volume.journal.records, "journal_last": volume.journal.last.0,
            "journal_strays": volume.journal.strays, "incomplete": volume.is_incomplete(),
            "data_bytes": examined.map(|examined| examined.data_bytes), "lost": examined.map(ranges) }))
    }

    fn row(&mut self, name: &str, size: String, generation: &str, records: &str, examined: &Extracted) {
        let lost = match examined.lost_bytes() {
            0 => "-".to_owned(),
            lost => format!("{lost} bytes in {} ranges", examined.lost.len()),
        };
        let data = examined.data_bytes.to_string();
        self.table.row([name.to_owned(), size, generation.to_owned(), records.to_owned(), data, lost]);
    }

    /// An image that was written.
    pub(super) fn written(&mut self, chosen: &Chosen, to: &Path, extracted: &Extracted) -> Result<()> {
        let (name, size) = (&chosen.name, chosen.contents.size.bytes());
        let value = json!({ "written": name, "to": to.to_string_lossy(), "size": size.0,
            "data_bytes": extracted.data_bytes, "through": extracted.through.map(|through| through.0),
            "incomplete": chosen.is_incomplete, "lost": ranges(extracted) });
        let mut text = format!("{name}: {size}, {} bytes of data, to {}", extracted.data_bytes, to.display());
        for lost in extracted.lost.iter().take(SHOWN_RANGES) {
            text.push_str(&format!("\n  lost ({}): {}", lost.cause, lost.range));
        }
        if extracted.lost.len() > SHOWN_RANGES {
            let more = extracted.lost.len() - SHOWN_RANGES;
            text.push_str(&format!("\n  and {more} more, {} bytes in all: --json has them", extracted.lost_bytes()));
        }
        self.output.result(&value, text)
    }

    /// Prints the table, if there is one, and hands on all that was printed.
    pub(super) fn end(&mut self) -> Result<()> {
        let table = std::mem::replace(&mut self.table, Table::new(HEADER));
        if !self.is_json() && !table.is_empty() {
            self.output.line(table)?;
        }
        self.flush()
    }

    /// Hands on what was printed so far.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.output.flush()
    }

    /// Whether a program reads it.
    pub(super) fn is_json(&self) -> bool {
        self.output.is_json()
    }

    fn for_programs(&mut self, value: &Value) -> Result<()> {
        if self.is_json() { self.output.value(value) } else { Ok(()) }
    }
}

fn ranges(extracted: &Extracted) -> Value {
    let range = |lost: &LostRange| json!({ "offset": lost.range.start().0, "length": lost.range.length(), "cause": lost.cause.to_string() });
    extracted.lost.iter().map(range).collect()
}

const HEADER: [&str; 6] = ["VOLUME", ">SIZE", ">GENERATION", ">UNSEALED", ">DATA", "LOST"];
/// More lines than this nobody reads.
const SHOWN_RANGES: usize = 100;
