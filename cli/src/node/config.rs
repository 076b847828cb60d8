//! The file `sterna.toml` of a data directory, parsed into what the node is run with.
//!
//! Nothing is guessed: a key that is not known, a value that cannot be, and two that contradict each other are errors that
//! name the key, the value, and what to do.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sterna_nbd_server::tls::TlsFiles;
use sterna_storage_node::volume::StorageOptions;
use sterna_types::ByteSize;

/// What a node is run with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// How volumes are served.
    pub(crate) nbd: NbdConfig,
    /// How they are kept.
    pub(crate) storage: StorageConfig,
}

/// How volumes are served.
#[derive(Clone, Debug, Default)]
pub(crate) struct NbdConfig {
    /// TCP addresses. Those that other machines can reach are here only with `tls`.
    pub(crate) listen: Vec<SocketAddr>,
    /// Threads that serve connections; 0 for one per processor.
    pub(crate) lanes: u16,
    /// The server's identity; clients have to use TLS where there is one.
    pub(crate) tls: Option<TlsFiles>,
}

/// How volumes are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageConfig {
    /// What the engine is run with.
    pub(crate) options: StorageOptions,
    /// Memory for the index of chunks.
    pub(crate) index_cache_bytes: usize,
    /// Volumes that are sealed at the same time.
    pub(crate) seals_at_once: u8,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { options: StorageOptions::default(), index_cache_bytes: 64 << 20, seals_at_once: 2 }
    }
}

/// Why a configuration cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is not TOML, or has a key or a kind of value that is not known. The message shows the place.
    #[error("{path} cannot be used: {what}", path = path.display())]
    Syntax { path: PathBuf, what: String },
    /// A value cannot be.
    #[error("{path}: {key} = {value} cannot be: {remedy}", path = path.display())]
    Value { path: PathBuf, key: &'static str, value: String, remedy: &'static str },
}

impl Config {
    /// Reads the file `sterna.toml` at `path`, in the data directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// The configuration that `text` is, as that of the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            what: error.to_string().trim().to_owned(),
        })?;
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
    lanes: u16,
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
    limit: Option<Size>,
    seals_at_once: Option<u8>,
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

impl ConfigFile {
    fn nbd(&self, directory: &Path) -> Result<NbdConfig, Wrong> {
        let NbdSection { listen, lanes, tls } = &self.nbd;
        if let Some(open) = listen.iter().find(|address| tls.is_none() && !address.ip().is_loopback()) {
            let remedy = "other machines can reach it, so set [nbd.tls], or take a loopback address";
            return Err(Wrong { key: "nbd.listen", value: format!("\"{open}\""), remedy });
        }
        if *lanes > MAX_LANES {
            return Err(Wrong { key: "nbd.lanes", value: lanes.to_string(), remedy: "take 0 to 256" });
        }
        let tls = tls.as_ref().map(|tls| TlsFiles {
            certificate: directory.join(&tls.certificate),
            key: directory.join(&tls.key),
            client_ca: tls.client_ca.as_ref().map(|path| directory.join(path)),
        });
        Ok(NbdConfig { listen: listen.clone(), lanes: *lanes, tls })
    }

    fn storage(&self) -> Result<StorageConfig, Wrong> {
        let mut config = StorageConfig::default();
        let options = &mut config.options;
        set(&mut options.seal_after_bytes, self.journal.seal_after, SEAL_AFTER)?;
        set(&mut options.journal_limit_bytes, self.journal.limit, JOURNAL_LIMIT)?;
        set(&mut options.reserve_bytes, self.space.reserve, RESERVE)?;
        set(&mut options.segment_cache_bytes, self.memory.segment_cache, SEGMENT_CACHE)?;
        set(&mut options.node_cache_bytes, self.memory.node_cache, NODE_CACHE)?;
        set_memory(&mut config.index_cache_bytes, self.memory.index_cache, INDEX_CACHE)?;
        if config.options.journal_limit_bytes / 2 < config.options.seal_after_bytes {
            let value = ByteSize(config.options.journal_limit_bytes).to_string();
            let remedy = "take at least twice journal.seal_after, so that writers need not wait for each seal";
            return Err(Wrong { key: "journal.limit", value, remedy });
        }
        if let Some(seals) = self.journal.seals_at_once {
            if !(1..=MAX_SEALS).contains(&seals) {
                return Err(Wrong { key: "journal.seals_at_once", value: seals.to_string(), remedy: "take 1 to 64" });
            }
            config.seals_at_once = seals;
        }
        Ok(config)
    }
}

/// Between which sizes a setting has to be.
#[derive(Clone, Copy)]
struct Bounds {
    key: &'static str,
    least: u64,
    most: u64,
    remedy: &'static str,
}

fn set(setting: &mut u64, given: Option<Size>, bounds: Bounds) -> Result<(), Wrong> {
    let Some(Size(size)) = given else { return Ok(()) };
    if !(bounds.least..=bounds.most).contains(&size.0) {
        return Err(Wrong { key: bounds.key, value: format!("\"{size}\""), remedy: bounds.remedy });
    }
    *setting = size.0;
    Ok(())
}

fn set_memory(setting: &mut usize, given: Option<Size>, bounds: Bounds) -> Result<(), Wrong> {
    let mut bytes = *setting as u64;
    set(&mut bytes, given, bounds)?;
    let too_large = || Wrong { key: bounds.key, value: bytes.to_string(), remedy: bounds.remedy };
    *setting = usize::try_from(bytes).map_err(|_| too_large())?;
    Ok(())
}

const SEAL_AFTER: Bounds =
    Bounds { key: "journal.seal_after", least: 1 << 20, most: 16 << 30, remedy: "take \"1M\" to \"16G\"" };
/// Not less than a few files of a journal.
const JOURNAL_LIMIT: Bounds =
    Bounds { key: "journal.limit", least: 64 << 20, most: 64 << 30, remedy: "take \"64M\" to \"64G\"" };
const RESERVE: Bounds =
    Bounds { key: "space.reserve", least: 16 << 20, most: 1 << 40, remedy: "take \"16M\" to \"1T\"" };
const SEGMENT_CACHE: Bounds = memory("memory.segment_cache");
const NODE_CACHE: Bounds = memory("memory.node_cache");
const INDEX_CACHE: Bounds = memory("memory.index_cache");
const MAX_LANES: u16 = 256;
const MAX_SEALS: u8 = 64;

const fn memory(key: &'static str) -> Bounds {
    Bounds { key, least: 1 << 20, most: 1 << 40, remedy: "take \"1M\" to \"1T\"" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::template::TEMPLATE;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/data/sterna.toml")).map_err(|error| error.to_string())
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
        assert_eq!(text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(), 9);
        let config = parse(&text).expect("the template's defaults");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn settings_arrive() {
        let text = "[nbd]\nlisten = [\"127.0.0.1:10809\", \"0.0.0.0:1\"]\nlanes = 3\n[nbd.tls]\ncertificate = \"a.crt\"\n\
                    key = \"/b.key\"\n[journal]\nseal_after = \"2M\"\nlimit = \"64M\"\nseals_at_once = 5\n\
                    [space]\nreserve = \"20M\"\n[memory]\nsegment_cache = \"3M\"\nnode_cache = \"4M\"\nindex_cache = \"5M\"\n";
        let config = parse(text).expect("a configuration");
        assert_eq!((config.nbd.listen.len(), config.nbd.lanes), (2, 3));
        let tls = config.nbd.tls.expect("TLS");
        assert_eq!((tls.certificate, tls.key), (PathBuf::from("/data/a.crt"), PathBuf::from("/b.key")));
        let options = config.storage.options;
        assert_eq!((options.seal_after_bytes, options.journal_limit_bytes), (2 << 20, 64 << 20));
        assert_eq!((options.reserve_bytes, options.segment_cache_bytes), (20 << 20, 3 << 20));
        assert_eq!((options.node_cache_bytes, config.storage.index_cache_bytes), (4 << 20, 5 << 20));
        assert_eq!(config.storage.seals_at_once, 5);
    }

    #[test]
    fn a_refusal_names_the_key_the_value_and_the_remedy() {
        let cases = [
            ("[nbd]\nlanes = 257\n", ["nbd.lanes", "257", "take 0 to 256"]),
            ("[nbd]\nlisten = [\"10.0.0.1:10809\"]\n", ["nbd.listen", "10.0.0.1:10809", "[nbd.tls]"]),
            ("[journal]\nlimit = \"63M\"\n", ["journal.limit", "63 MiB", "\"64M\" to"]),
            ("[journal]\nseal_after = \"129M\"\n", ["journal.limit", "256 MiB", "twice journal.seal_after"]),
            ("[journal]\nseals_at_once = 0\n", ["journal.seals_at_once", "0", "1 to 64"]),
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
}
