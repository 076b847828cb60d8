//! What a salvage prints: lines and a table for people, or JSON, one value per line.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sterna_storage_node::salvage::{Extracted, FoundVolume, Salvage};

use super::choice::{Chosen, name_of};
use super::go_on;

/// Where it is printed, and how.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    /// The table, its header first.
    rows: Vec<[String; COLUMNS]>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, rows: Vec::new() }
    }

    /// Something that was not as one would want it, and is no loss yet.
    pub(super) fn note(&self, what: &str) {
        self.line(&json!({ "note": what }), &format!("note: {what}"));
    }

    pub(super) fn damages(&self, salvage: &Salvage) {
        for damage in salvage.damages() {
            let damage = damage.to_string();
            self.line(&json!({ "damage": damage }), &format!("damage: {damage}"));
        }
        for volume in salvage.volumes() {
            self.journal(volume);
        }
    }

    fn journal(&self, volume: &FoundVolume) {
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
            self.line(&value, &format!("damage: volume '{name}': {what}"));
        }
    }

    /// All volumes, and roots that none of them has; whether something is lost.
    pub(super) fn list(&mut self, salvage: &Salvage, past_damage: bool, check_data: bool) -> Result<bool> {
        let mut lost = false;
        for volume in salvage.volumes() {
            let examined = match volume.contents(past_damage) {
                Some(contents) => Some(salvage.examine(&contents, check_data, &mut go_on)?),
                None => None,
            };
            lost |= volume.is_incomplete() || examined.as_ref().is_some_and(|examined| !examined.lost.is_empty());
            self.volume(volume, examined.as_ref());
            for snapshot in &volume.snapshots {
                let examined = salvage.examine(&snapshot.into(), check_data, &mut go_on)?;
                lost |= !examined.lost.is_empty();
                let name = format!("{}@{}", name_of(volume), snapshot.name);
                self.row(&name, snapshot.size.bytes().to_string(), "", "", &examined);
                let value = json!({ "snapshot": name, "volume": volume.id.0, "size": snapshot.size.bytes().0,
                    "root": snapshot.root.to_string(), "data_bytes": examined.data_bytes, "lost": ranges(&examined) });
                self.json_line(&value);
            }
        }
        for root in salvage.unclaimed() {
            self.line(&json!({ "unclaimed_root": root.to_string() }), &format!("a root that no volume has: {root}"));
        }
        Ok(lost)
    }

    fn volume(&mut self, volume: &FoundVolume, examined: Option<&Extracted>) {
        let version = volume.newest.and_then(|newest| volume.versions.get(newest));
        let size = volume.size.map_or_else(|| "?".to_owned(), |size| size.bytes().to_string());
        let generation = version.map_or_else(|| "?".to_owned(), |version| version.generation.to_string());
        let records = volume.journal.records.to_string();
        match examined {
            Some(examined) => self.row(&name_of(volume), size, &generation, &records, examined),
            None => self.rows.push([name_of(volume), size, generation, records, "?".to_owned(), "all".to_owned()]),
        }
        let versions = volume.versions.iter().map(|version| {
            json!({ "root": version.root.to_string(), "generation": version.generation, "epoch": version.epoch.number(),
                "size": version.size.bytes().0, "sealed_through": version.sealed_through.0,
                "source": version.source.to_string() })
        });
        let versions: Vec<Value> = versions.collect();
        self.json_line(&json!({ "volume": volume.id.0, "name": volume.name.as_ref().map(ToString::to_string),
            "size": volume.size.map(|size| size.bytes().0), "newest": volume.newest, "versions": versions,
            "journal_records": volume.journal.records, "journal_last": volume.journal.last.0,
            "journal_strays": volume.journal.strays, "incomplete": volume.is_incomplete(),
            "data_bytes": examined.map(|examined| examined.data_bytes), "lost": examined.map(ranges) }));
    }

    fn row(&mut self, name: &str, size: String, generation: &str, records: &str, examined: &Extracted) {
        let lost = match examined.lost_bytes() {
            0 => "-".to_owned(),
            lost => format!("{lost} bytes in {} ranges", examined.lost.len()),
        };
        let data = examined.data_bytes.to_string();
        self.rows.push([name.to_owned(), size, generation.to_owned(), records.to_owned(), data, lost]);
    }

    /// An image that was written.
    pub(super) fn written(&self, chosen: &Chosen, to: &Path, extracted: &Extracted) {
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
        self.line(&value, &text);
    }

    /// Prints the table.
    pub(super) fn end(&self) {
        if self.json || self.rows.is_empty() {
            return;
        }
        let header = HEADER.map(str::to_owned);
        let rows = || [&header].into_iter().chain(&self.rows);
        let widths: [usize; COLUMNS] =
            std::array::from_fn(|column| rows().map(|row| row[column].chars().count()).max().unwrap_or_default());
        for row in rows() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    fn line(&self, value: &Value, text: &str) {
        if self.json { println!("{value}") } else { println!("{text}") }
    }

    fn json_line(&self, value: &Value) {
        if self.json {
            println!("{value}");
        }
    }
}

fn ranges(extracted: &Extracted) -> Value {
    let range = |lost: &sterna_storage_node::salvage::LostRange| json!({ "offset": lost.range.start().0, "length": lost.range.length(), "cause": lost.cause.to_string() });
    extracted.lost.iter().map(range).collect()
}

const COLUMNS: usize = 6;
const HEADER: [&str; COLUMNS] = ["VOLUME", "SIZE", "GENERATION", "UNSEALED", "DATA", "LOST"];
/// More lines than this nobody reads.
const SHOWN_RANGES: usize = 100;
