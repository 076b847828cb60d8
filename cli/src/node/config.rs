//! The file `sterna.toml` of a data directory, parsed into what the node is run with.
//!
//! Nothing is guessed: a key that is not known, a value that cannot be, and two that contradict each other are errors that
//! name the key, the value, and what to do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sterna_consensus::MetadataConfig;
use sterna_migrator::hooks::Hooks;
use sterna_migrator::token::Demand;
use sterna_nbd_server::tls::TlsFiles;
use sterna_storage_node::volume::StorageOptions;
use sterna_types::ByteSize;

mod bucket;
mod values;

use super::nbd_access::{AccessList, InvalidRule, Rule};
pub use bucket::{BucketConfig, CredentialsSource};

use bucket::BucketSection;
use values::{Age, Bounded, Bounds, Size, Wrong, set, set_time};

/// What a node is run with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// How volumes are served.
    pub nbd: NbdConfig,
    /// How they are kept.
    pub storage: StorageConfig,
    /// How other nodes are met.
    pub cluster: ClusterConfig,
    /// Where chunks and roots are kept besides.
    pub bucket: Option<BucketConfig>,
    /// The migrator beside the node.
    pub migrator: MigratorConfig,
}

/// The migrator beside the node.
#[derive(Clone, Debug, Default)]
pub struct MigratorConfig {
    /// Where it listens to those of other hosts; `None` where VMs neither come nor leave.
    pub listen: Option<SocketAddr>,
    /// Where each VM that comes gets a directory of its own; `None` for one in the migrator's.
    pub vms: Option<PathBuf>,
    /// Whether VMs need a token to leave and to come.
    pub tokens: Demand,
    /// What is called at the steps of a migration.
    pub hooks: Hooks,
}

/// How other nodes are met.
#[derive(Clone, Copy, Debug)]
pub struct ClusterConfig {
    /// Where this node listens to them; `None` for one that is alone.
    pub listen: Option<SocketAddr>,
    /// How patient it is with them.
    pub metadata: MetadataConfig,
    /// How long certificates are valid that this node signs.
    pub certificate_lifetime: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self { listen: None, metadata: MetadataConfig::default(), certificate_lifetime: CERTIFICATE_LIFETIME }
    }
}

/// How volumes are served.
#[derive(Clone, Debug, Default)]
pub struct NbdConfig {
    /// TCP addresses; none without `tls`.
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections; 0 for one per processor.
    pub lanes: u16,
    /// The server's identity over TCP, and the authority of its clients.
    pub tls: Option<TlsFiles>,
    /// What each client may attach over TCP.
    pub access: AccessList,
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
        let bucket = || file.bucket.as_ref().map(|section| section.config(directory)).transpose();
        let settings = file.nbd(directory).and_then(|nbd| {
            let (storage, cluster, bucket) = (file.storage()?, file.cluster()?, bucket()?);
            Ok(Self { nbd, storage, cluster, bucket, migrator: file.migrator(directory)? })
        });
        settings.map_err(|Wrong { key, value, remedy }| ConfigError::Value {
            path: path.to_owned(),
            key,
            value,
            remedy,
        })
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    nbd: NbdSection,
    cluster: ClusterSection,
    journal: JournalSection,
    space: SpaceSection,
    memory: MemorySection,
    bucket: Option<BucketSection>,
    migrator: MigratorSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MigratorSection {
    listen: Option<SocketAddr>,
    vms: Option<PathBuf>,
    tokens: Demand,
    hooks: HooksSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HooksSection {
    prepare: Option<PathBuf>,
    switch: Option<PathBuf>,
    finish: Option<PathBuf>,
    timeout: Option<Age>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NbdSection {
    listen: Vec<SocketAddr>,
    lanes: Option<i64>,
    tls: Option<TlsSection>,
    access: BTreeMap<String, AccessSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AccessSection {
    read_write: Vec<String>,
    read_only: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClusterSection {
    listen: Option<SocketAddr>,
    heartbeat: Option<Age>,
    election_min: Option<Age>,
    election_max: Option<Age>,
    snapshot: Option<Age>,
    patience: Option<Age>,
    certificate_lifetime: Option<Age>,
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

impl ConfigFile {
    fn nbd(&self, directory: &Path) -> Result<NbdConfig, Wrong> {
        let NbdSection { listen, lanes, tls, access } = &self.nbd;
        if listen.len() > MAX_ADDRESSES {
            let value = format!("{} addresses", listen.len());
            return Err(Wrong { key: "nbd.listen", value, remedy: "take at most 64" });
        }
        if let Some(open) = listen.iter().find(|_| tls.is_none()) {
            let remedy = "clients over TCP have to show who they are, so set [nbd.tls] and [nbd.access], or have them use nbd.sock";
            return Err(Wrong { key: "nbd.listen", value: format!("\"{open}\""), remedy });
        }
        let mut config = NbdConfig::default();
        set(&mut config.lanes, *lanes, LANES)?;
        config.tls = tls.as_ref().map(|tls| TlsFiles {
            certificate: directory.join(&tls.certificate),
            key: directory.join(&tls.key),
            client_ca: Some(directory.join(&tls.client_ca)),
        });
        config.listen.clone_from(listen);
        let rule = |(volumes, clients): (&String, &AccessSection)| {
            Rule::new(volumes, clients.read_write.clone(), clients.read_only.clone())
        };
        let rules = access.iter().map(rule).collect::<Result<_, _>>();
        let wrong = |error: InvalidRule| {
            let remedy = "take \"VOLUME\" or \"BEGINNING*\" = { read_write = [\"client.example\"], read_only = [] }";
            Wrong { key: "nbd.access", value: error.to_string(), remedy }
        };
        config.access = AccessList::new(rules.map_err(wrong)?);
        Ok(config)
    }

    /// Paths begin in `directory`.
    fn migrator(&self, directory: &Path) -> Result<MigratorConfig, Wrong> {
        let MigratorSection { listen, vms, tokens, hooks } = &self.migrator;
        if let Some(address) = listen.filter(|address| address.ip().is_unspecified() || address.port() == 0) {
            let remedy = "other migrators are told it, so take an address of this machine, and a port";
            return Err(Wrong { key: "migrator.listen", value: format!("\"{address}\""), remedy });
        }
        let in_directory = |path: &Option<PathBuf>| path.as_ref().map(|path| directory.join(path));
        let mut patience = Hooks::default().patience;
        set_time(&mut patience, hooks.timeout, HOOK_TIMEOUTS)?;
        let HooksSection { prepare, switch, finish, .. } = hooks;
        let [prepare, switch, finish] = [prepare, switch, finish].map(in_directory);
        let hooks = Hooks { prepare, switch, finish, patience };
        Ok(MigratorConfig { listen: *listen, vms: in_directory(vms), tokens: *tokens, hooks })
    }

    fn cluster(&self) -> Result<ClusterConfig, Wrong> {
        let section = &self.cluster;
        let mut config = ClusterConfig { listen: section.listen, ..ClusterConfig::default() };
        if let Some(address) = section.listen.filter(|address| address.ip().is_unspecified() || address.port() == 0) {
            let remedy = "other nodes are told it, so take an address of this machine, and a port";
            return Err(Wrong { key: "cluster.listen", value: format!("\"{address}\""), remedy });
        }
        let metadata = &mut config.metadata;
        set_time(&mut metadata.heartbeat, section.heartbeat, HEARTBEAT)?;
        set_time(&mut metadata.election_min, section.election_min, ELECTION_MIN)?;
        set_time(&mut metadata.election_max, section.election_max, ELECTION_MAX)?;
        set_time(&mut metadata.snapshot, section.snapshot, SNAPSHOT)?;
        set_time(&mut metadata.patience, section.patience, PATIENCE)?;
        set_time(&mut config.certificate_lifetime, section.certificate_lifetime, LIFETIME)?;
        let metadata = &config.metadata;
        let shown = |time: Duration| Age::from(time).shown();
        if metadata.election_min < 2 * metadata.heartbeat {
            let remedy = "take at least twice cluster.heartbeat, so that one that is lost elects nobody";
            return Err(Wrong { key: "cluster.election_min", value: shown(metadata.election_min), remedy });
        }
        if metadata.election_max <= metadata.election_min {
            let remedy = "take more than cluster.election_min, so that not all want to lead at once";
            return Err(Wrong { key: "cluster.election_max", value: shown(metadata.election_max), remedy });
        }
        Ok(config)
    }

    fn storage(&self) -> Result<StorageConfig, Wrong> {
        let mut config = StorageConfig::default();
        let options = &mut config.options;
        set(&mut options.seal_after_bytes, self.journal.seal_after, SEAL_AFTER)?;
        set_time(&mut options.seal_age, self.journal.seal_age, SEAL_AGE)?;
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

/// Not so long that the sessions of a cluster lapse before it has a new leader.
const HEARTBEAT: Bounds = times("cluster.heartbeat", 10, 10_000, "take \"10ms\" to \"10s\"");
const ELECTION_MIN: Bounds = times("cluster.election_min", 50, 60_000, "take \"50ms\" to \"1min\"");
const ELECTION_MAX: Bounds = times("cluster.election_max", 100, 120_000, "take \"100ms\" to \"2min\"");
const SNAPSHOT: Bounds = times("cluster.snapshot", 100, 600_000, "take \"100ms\" to \"10min\"");
/// Not so short that a node cannot be off for a night, but for tests.
const LIFETIME: Bounds = times("cluster.certificate_lifetime", 10_000, 157_680_000_000, "take \"10s\" to \"1825d\"");
const HOOK_TIMEOUTS: Bounds = times("migrator.hooks.timeout", 100, 600_000, "take \"100ms\" to \"10min\"");
/// A node may be off for a month: its certificate is renewed when two thirds of this have passed.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const PATIENCE: Bounds = times("cluster.patience", 0, 600_000, "take \"0ms\" to \"10min\"");
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

const fn times(key: &'static str, least: u64, most: u64, remedy: &'static str) -> Bounds {
    Bounds { key, least, most, remedy }
}

const fn memory(key: &'static str) -> Bounds {
    Bounds { key, least: 1 << 20, most: 1 << 40, remedy: "take \"1M\" to \"1T\"" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::template::{TEMPLATE, template};

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
        assert_eq!(text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(), 17);
        let config = parse(&text.replace("listen = \"10.77.0.1:7400\"", "")).expect("the template's defaults");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_node_that_others_reach_listens_where_it_was_told_to() {
        let address = "10.77.0.3:7400".parse().expect("an address");
        let config = parse(&template(Some(address))).expect("the template with an address");
        assert_eq!(config.cluster.listen, Some(address));
    }

    #[test]
    fn settings_arrive() {
        let text = "[nbd]\nlisten = [\"127.0.0.1:10809\", \"0.0.0.0:1\"]\nlanes = 3\n[nbd.tls]\ncertificate = \"a.crt\"\n\
                    key = \"/b.key\"\nclient_ca = \"c.crt\"\n[nbd.access]\n\"web-*\" = { read_write = [\"h1.example\"] }\n[journal]\nseal_after = \"2M\"\nseal_age = \"100ms\"\nlimit = \"64M\"\nseals_at_once = 5\n\
                    [space]\nreserve = \"200M\"\n[memory]\nsegment_cache = \"3M\"\nnode_cache = \"4M\"\nindex_cache = \"5M\"\n";
        let config = parse(text).expect("a configuration");
        assert_eq!((config.nbd.listen.len(), config.nbd.lanes), (2, 3));
        let tls = config.nbd.tls.expect("TLS");
        assert_eq!((tls.certificate, tls.key), (PathBuf::from("/data/a.crt"), PathBuf::from("/b.key")));
        assert_eq!(tls.client_ca, Some(PathBuf::from("/data/c.crt")));
        let rule = Rule::new("web-*", vec!["h1.example".to_owned()], Vec::new()).expect("a rule");
        assert_eq!(config.nbd.access, AccessList::new(vec![rule]));
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
            (
                "[cluster]\nlisten = \"0.0.0.0:7400\"\n",
                ["cluster.listen", "0.0.0.0:7400", "an address of this machine"],
            ),
            ("[cluster]\nheartbeat = \"1min\"\n", ["cluster.heartbeat", "\"1min\"", "\"10ms\" to \"10s\""]),
            ("[cluster]\nheartbeat = \"1500ms\"\n", ["cluster.election_min", "2s", "twice cluster.heartbeat"]),
            ("[cluster]\nelection_max = \"2s\"\n", ["cluster.election_max", "2s", "more than"]),
            ("[journal]\nlimit = \"63M\"\n", ["journal.limit", "63 MiB", "\"64M\" to"]),
            ("[journal]\nseal_after = \"513M\"\n", ["journal.limit", "1 GiB", "twice journal.seal_after"]),
            ("[journal]\nseal_after = \"1K\"\n", ["journal.seal_after", "1 KiB", "\"1M\" to \"16G\""]),
            ("[journal]\nseal_age = \"99ms\"\n", ["journal.seal_age", "\"99ms\"", "\"100ms\" to \"10min\""]),
            ("[journal]\nseal_age = \"601s\"\n", ["journal.seal_age", "\"601s\"", "\"100ms\" to \"10min\""]),
            ("[journal]\nseal_age = \"1h\"\n", ["journal.seal_age", "\"1h\"", "\"100ms\" to \"10min\""]),
            ("[journal]\nseal_age = \"1w\"\n", ["seal_age", "'1w' is not a time", "ms, s, min, h or d"]),
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
            ("[nbd.tls]\ncertificate = \"c\"\nkey = \"k\"\n", ["nbd.tls", "missing field", "`client_ca`"]),
            ("[nbd]\nlisten = [\"127.0.0.1:10809\"]\n", ["nbd.listen", "127.0.0.1:10809", "[nbd.tls]"]),
            ("[nbd.access]\n\"We*\" = {}\n", ["nbd.access", "'We*'", "BEGINNING*"]),
            (
                "[nbd.access]\nweb = { read_only = [\"*\"] }\n",
                ["nbd.access", "'*' is not the DNS name", "client.example"],
            ),
            ("[nbd.access]\nweb = { write = [] }\n", ["write", "unknown field", "`read_write`"]),
            ("[migrator]\ntokens = \"no\"\n", ["tokens", "unknown variant `no`", "`required` or `optional`"]),
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
