//! The file `sterna.toml` of a data directory, parsed into what the node is run with.
//!
//! Nothing is guessed: a key that is not known, a value that cannot be, and two that contradict each other are errors that
//! name the key, the value, and what to do.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sterna_nbd_server::tls::TlsFiles;
use sterna_storage_node::volume::StorageOptions;
use sterna_types::ByteSize;

/// What a node is run with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// How volumes are served.
    pub nbd: NbdConfig,
    /// How they are kept.
    pub storage: StorageConfig,
}

/// How volumes are served.
#[derive(Clone, Debug, Default)]
pub struct NbdConfig {
    /// TCP addresses. Those that other machines can reach are here only with `tls`.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections; 0 for one per processor.
    pub lanes: u16,
    /// The server's identity; clients have to use TLS where there is one.
    pub tls: Option<TlsFiles>,
}

/// How volumes are kept.
#[derive(Clone, Copy, Debug)]
pub struct StorageConfig {
    /// What the engine is run with.
    pub options: StorageOptions,
    /// Memory for the index of chunks.
    pub index_cache_bytes: usize,
    /// Volumes that are sealed at the same time.
    pub seals_at_once: u8,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { options: StorageOptions::default(), index_cache_bytes: 64 << 20, seals_at_once: 2 }
    }
}

/// Why a configuration cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not TOML, or has a key or a kind of value that is not known. The message shows the place.
    #[error("{path} cannot be used: {what}", path = path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A value cannot be.
    #[error("{path}: {key} = {value} cannot be: {remedy}", path = path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which setting, with its section.
        key: &'static str,
        /// What it is set to.
        value: String,
        /// What it can be.
        remedy: &'static str,
    },
}

impl Config {
    /// Reads the file `sterna.toml` at `path`, in the data directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes, path)
    }

    /// The configuration that `bytes` are, as those of the file at `path`, which is not looked at.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] and [`ConfigError::Value`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ConfigError> {
        let unusable = |what: String| ConfigError::Syntax { path: path.to_owned(), what };
        let text = std::str::from_utf8(bytes)
            .map_err(|error| unusable(format!("byte {} is not part of a text in UTF-8", error.valid_up_to())))?;
        let file: ConfigFile = toml::from_str(text).map_err(|error| unusable(error.to_string().trim().to_owned()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let settings = file.nbd(directory).and_then(|nbd| Ok(Self { nbd, storage: file.storage()? }));
        settings.map_err(|Wrong { key, value, remedy }| ConfigError::Value {
            path: path.to_owned(),
            key,
            value,
            remedy,
        })
    }
}

/// A value that cannot be.
struct Wrong {
    key: &'static str,
    value: String,
    remedy: &'static str,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    nbd: NbdSection,
    journal: JournalSection,
    space: SpaceSection,
    memory: MemorySection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NbdSection {
    listen: Vec<SocketAddr>,
    lanes: Option<i64>,
    tls: Option<TlsSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JournalSection {
    seal_after: Option<Size>,
    seal_age: Option<Age>,
    limit: Option<Size>,
    seals_at_once: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SpaceSection {
    reserve: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MemorySection {
    segment_cache: Option<Size>,
    node_cache: Option<Size>,
    index_cache: Option<Size>,
}

/// A size as people write it.
#[derive(Clone, Copy, Debug)]
struct Size(ByteSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A time as people write it.
#[derive(Clone, Copy, Debug)]
struct Age {
    milliseconds: u64,
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = UNITS.iter().find_map(|(name, milliseconds)| (*name == unit).then_some(*milliseconds));
        let milliseconds =
            factor.zip(number.parse::<u64>().ok()).and_then(|(factor, number)| number.checked_mul(factor));
        let invalid = || format!("'{text}' is not a time: give a number with ms, s or min behind it");
        milliseconds.map(|milliseconds| Self { milliseconds }).ok_or_else(invalid)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl ConfigFile {
    fn nbd(&self, directory: &Path) -> Result<NbdConfig, Wrong> {
        let NbdSection { listen, lanes, tls } = &self.nbd;
        if let Some(open) = listen.iter().find(|address| tls.is_none() && !address.ip().is_loopback()) {
            let remedy = "other machines can reach it, so set [nbd.tls], or take a loopback address";
            return Err(Wrong { key: "nbd.listen", value: format!("\"{open}\""), remedy });
        }
        if listen.len() > MAX_ADDRESSES {
            let value = format!("{} addresses", listen.len());
            return Err(Wrong { key: "nbd.listen", value, remedy: "take at most 64" });
        }
        let mut config = NbdConfig::default();
        set(&mut config.lanes, *lanes, LANES)?;
        config.tls = tls.as_ref().map(|tls| TlsFiles {
            certificate: directory.join(&tls.certificate),
            key: directory.join(&tls.key),
            client_ca: tls.client_ca.as_ref().map(|path| directory.join(path)),
        });
        config.listen.clone_from(listen);
        Ok(config)
    }

    fn storage(&self) -> Result<StorageConfig, Wrong> {
        let mut config = StorageConfig::default();
        let options = &mut config.options;
        set(&mut options.seal_after_bytes, self.journal.seal_after, SEAL_AFTER)?;
        let mut seal_age_ms = u64::try_from(options.seal_age.as_millis()).unwrap_or(u64::MAX);
        set(&mut seal_age_ms, self.journal.seal_age, SEAL_AGE)?;
        options.seal_age = Duration::from_millis(seal_age_ms);
        set(&mut options.journal_limit_bytes, self.journal.limit, JOURNAL_LIMIT)?;
        set(&mut options.reserve_bytes, self.space.reserve, RESERVE)?;
        set(&mut options.segment_cache_bytes, self.memory.segment_cache, SEGMENT_CACHE)?;
        set(&mut options.node_cache_bytes, self.memory.node_cache, NODE_CACHE)?;
        set(&mut config.index_cache_bytes, self.memory.index_cache, INDEX_CACHE)?;
        if config.options.journal_limit_bytes / 2 < config.options.seal_after_bytes {
            let value = ByteSize(config.options.journal_limit_bytes).to_string();
            let remedy = "take at least twice journal.seal_after, so that writers need not wait for each seal";
            return Err(Wrong { key: "journal.limit", value, remedy });
        }
        set(&mut config.seals_at_once, self.journal.seals_at_once, SEALS_AT_ONCE)?;
        Ok(config)
    }
}

/// A value that has bounds.
trait Bounded: Copy {
    /// In bytes, in milliseconds, or as it is; `None` where it is below all of them.
    fn number(self) -> Option<u64>;
    /// As it is written.
    fn shown(self) -> String;
}

impl Bounded for Size {
    fn number(self) -> Option<u64> {
        Some(self.0.0)
    }

    fn shown(self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl Bounded for Age {
    fn number(self) -> Option<u64> {
        Some(self.milliseconds)
    }

    fn shown(self) -> String {
        let largest = UNITS.iter().find(|(_, milliseconds)| self.milliseconds.is_multiple_of(*milliseconds));
        let (unit, milliseconds) = largest.unwrap_or(&UNITS[UNITS.len() - 1]);
        format!("\"{}{unit}\"", self.milliseconds / milliseconds)
    }
}

impl Bounded for i64 {
    fn number(self) -> Option<u64> {
        u64::try_from(self).ok()
    }

    fn shown(self) -> String {
        self.to_string()
    }
}

/// Between which values a setting has to be.
#[derive(Clone, Copy)]
struct Bounds {
    key: &'static str,
    least: u64,
    most: u64,
    remedy: &'static str,
}

fn set<T: TryFrom<u64>>(setting: &mut T, given: Option<impl Bounded>, bounds: Bounds) -> Result<(), Wrong> {
    let Some(given) = given else { return Ok(()) };
    let is_allowed = |number: &u64| (bounds.least..=bounds.most).contains(number);
    let allowed = given.number().filter(is_allowed).and_then(|number| T::try_from(number).ok());
    *setting = allowed.ok_or_else(|| Wrong { key: bounds.key, value: given.shown(), remedy: bounds.remedy })?;
    Ok(())
}

/// The units of times, in milliseconds, the largest first.
const UNITS: [(&str, u64); 3] = [("min", 60_000), ("s", 1000), ("ms", 1)];

const LANES: Bounds = Bounds { key: "nbd.lanes", least: 0, most: 256, remedy: "take 0 to 256" };
const SEAL_AFTER: Bounds =
    Bounds { key: "journal.seal_after", least: 1 << 20, most: 16 << 30, remedy: "take \"1M\" to \"16G\"" };
/// Not so short that nothing comes together, nor so long that what is published is of no use.
const SEAL_AGE: Bounds =
    Bounds { key: "journal.seal_age", least: 100, most: 600_000, remedy: "take \"100ms\" to \"10min\"" };
/// Not less than a few files of a journal.
const JOURNAL_LIMIT: Bounds =
    Bounds { key: "journal.limit", least: 64 << 20, most: 64 << 30, remedy: "take \"64M\" to \"64G\"" };
const SEALS_AT_ONCE: Bounds = Bounds { key: "journal.seals_at_once", least: 1, most: 64, remedy: "take 1 to 64" };
/// Chunks take no more than half of it. The rest is for the databases, which allocate logs of 48 MiB beforehand whenever a
/// node starts; where they found the disk full, the node would end.
const RESERVE: Bounds =
    Bounds { key: "space.reserve", least: 128 << 20, most: 1 << 40, remedy: "take \"128M\" to \"1T\"" };
const SEGMENT_CACHE: Bounds = memory("memory.segment_cache");
const NODE_CACHE: Bounds = memory("memory.node_cache");
const INDEX_CACHE: Bounds = memory("memory.index_cache");
/// More than a machine has networks.
const MAX_ADDRESSES: usize = 64;

const fn memory(key: &'static str) -> Bounds {
    Bounds { key, least: 1 << 20, most: 1 << 40, remedy: "take \"1M\" to \"1T\"" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::template::TEMPLATE;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text.as_bytes(), Path::new("/data/sterna.toml")).map_err(|error| error.to_string())
    }

    /// What was wrong, for a text that has to be refused.
    fn refused(text: &str) -> String {
        parse(text).expect_err(&format!("{text} was accepted"))
    }

    #[test]
    fn what_init_writes_sets_nothing() {
        let config = parse(TEMPLATE).expect("the template");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn what_init_shows_are_the_defaults() {
        let sections = TEMPLATE.split_once("#[nbd.tls]").expect("a section about TLS");
        let rest = sections.1.split_once("[journal]").expect("a section about the journal").1;
        let shown = format!("{}[journal]{rest}", sections.0);
        let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
        let uncommented = |line: &str| if is_setting(line) { line[1..].to_owned() } else { line.to_owned() };
        let text = shown.lines().map(uncommented).collect::<Vec<_>>().join("\n");
        assert_eq!(text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(), 10);
        let config = parse(&text).expect("the template's defaults");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn settings_arrive() {
        let text = "[nbd]\nlisten = [\"127.0.0.1:10809\", \"0.0.0.0:1\"]\nlanes = 3\n[nbd.tls]\ncertificate = \"a.crt\"\n\
                    key = \"/b.key\"\n[journal]\nseal_after = \"2M\"\nseal_age = \"100ms\"\nlimit = \"64M\"\nseals_at_once = 5\n\
                    [space]\nreserve = \"200M\"\n[memory]\nsegment_cache = \"3M\"\nnode_cache = \"4M\"\nindex_cache = \"5M\"\n";
        let config = parse(text).expect("a configuration");
        assert_eq!((config.nbd.listen.len(), config.nbd.lanes), (2, 3));
        let tls = config.nbd.tls.expect("TLS");
        assert_eq!((tls.certificate, tls.key), (PathBuf::from("/data/a.crt"), PathBuf::from("/b.key")));
        let options = config.storage.options;
        assert_eq!((options.seal_after_bytes, options.journal_limit_bytes), (2 << 20, 64 << 20));
        assert_eq!((options.reserve_bytes, options.segment_cache_bytes), (200 << 20, 3 << 20));
        assert_eq!((options.node_cache_bytes, config.storage.index_cache_bytes), (4 << 20, 5 << 20));
        assert_eq!((options.seal_age, config.storage.seals_at_once), (Duration::from_millis(100), 5));
    }

    #[test]
    fn a_refusal_names_the_key_the_value_and_the_remedy() {
        let cases = [
            ("[nbd]\nlanes = 257\n", ["nbd.lanes", "257", "take 0 to 256"]),
            ("[nbd]\nlanes = 65537\n", ["nbd.lanes", "65537", "take 0 to 256"]),
            ("[nbd]\nlanes = -1\n", ["nbd.lanes", "-1", "take 0 to 256"]),
            ("[nbd]\nlisten = [\"10.0.0.1:10809\"]\n", ["nbd.listen", "10.0.0.1:10809", "[nbd.tls]"]),
            ("[journal]\nlimit = \"63M\"\n", ["journal.limit", "63 MiB", "\"64M\" to"]),
            ("[journal]\nseal_after = \"513M\"\n", ["journal.limit", "1 GiB", "twice journal.seal_after"]),
            ("[journal]\nseal_after = \"1K\"\n", ["journal.seal_after", "1 KiB", "\"1M\" to \"16G\""]),
            ("[journal]\nseal_age = \"99ms\"\n", ["journal.seal_age", "\"99ms\"", "\"100ms\" to \"10min\""]),
            ("[journal]\nseal_age = \"601s\"\n", ["journal.seal_age", "\"601s\"", "\"100ms\" to \"10min\""]),
            ("[journal]\nseal_age = \"1h\"\n", ["seal_age", "'1h' is not a time", "ms, s or min"]),
            ("[journal]\nseal_age = 5\n", ["seal_age = 5", "line 2", "expected a string"]),
            ("[journal]\nseals_at_once = 300\n", ["journal.seals_at_once", "300", "1 to 64"]),
            ("[journal]\nseals_at_once = 0\n", ["journal.seals_at_once", "0", "1 to 64"]),
            ("[space]\nreserve = \"0\"\n", ["space.reserve", "0 bytes", "\"128M\" to \"1T\""]),
            ("[memory]\nsegment_cache = \"1\"\n", ["memory.segment_cache", "1 bytes", "\"1M\" to"]),
            ("[memory]\nnode_cache = \"2T\"\n", ["memory.node_cache", "2 TiB", "\"1M\" to"]),
            ("[memory]\nindex_cache = \"2T\"\n", ["memory.index_cache", "2 TiB", "\"1M\" to \"1T\""]),
            ("[memory]\nindex_cache = \"2X\"\n", ["index_cache", "'2X' is not a size", "give bytes"]),
            ("[memory]\nindex_cash = \"2M\"\n", ["index_cash", "unknown field", "`index_cache`"]),
            ("[nbd]\nlisten = \"here\"\n", ["listen", "here", "sequence"]),
            ("[nbd.tls]\nkey = \"k\"\n", ["nbd.tls", "missing field", "`certificate`"]),
            ("[nbd\n", ["[nbd", "line 1", "/data/sterna.toml"]),
        ];
        for (text, parts) in cases {
            let error = refused(text);
            for part in parts {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let bytes = b"[nbd]\n\xff";
        let error = Config::parse(bytes, Path::new("/data/sterna.toml")).expect_err("no text").to_string();
        assert!(error.contains("/data/sterna.toml") && error.contains("byte 6 "), "{error}");
    }

    #[test]
    fn more_addresses_than_anybody_has_are_refused() {
        let error = refused(&format!("[nbd]\nlisten = [{}]\n", "\"127.0.0.1:0\", ".repeat(65)));
        assert!(
            error.contains("nbd.listen") && error.contains("65 addresses") && error.contains("at most 64"),
            "{error}"
        );
    }
}
