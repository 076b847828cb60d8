//! What QEMU is asked about a VM, and what it answers. What it says beyond that is passed over.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::qmp::{Commands, MigrationInfo, QmpError, VmStatus};

/// What tells whether a VM can leave.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// QEMU's version.
    pub(super) version: Version,
    /// Whether the guest runs.
    pub(super) status: VmStatus,
    /// A migration that is underway or over, and why there can be none.
    pub(super) migration: MigrationInfo,
    /// The jobs of QEMU's block layer.
    pub(super) jobs: Vec<Job>,
    /// What QEMU itself serves to others.
    pub(super) exports: Vec<BlockExport>,
    /// The block devices, of the guest and others.
    pub(super) devices: Vec<BlockDevice>,
    /// All nodes of the block layer, those below others too.
    pub(super) nodes: Vec<BlockNode>,
}

impl Facts {
    /// Asks for them.
    pub(super) async fn gather(qmp: &Commands) -> Result<Self, QmpError> {
        Ok(Self {
            version: Version::ask(qmp).await?,
            status: qmp.query_status().await?,
            migration: qmp.query_migrate().await?,
            jobs: qmp.ask_for("query-jobs", Value::Null).await?,
            exports: qmp.ask_for("query-block-exports", Value::Null).await?,
            devices: qmp.ask_for("query-block", Value::Null).await?,
            nodes: qmp.ask_for("query-named-block-nodes", json!({ "flat": true })).await?,
        })
    }
}

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

impl Version {
    /// The first two numbers. Those who differ only in the third take each other's machines.
    pub(super) fn series(self) -> (u32, u32) {
        (self.major, self.minor)
    }

    /// This QEMU's.
    pub(super) async fn ask(qmp: &Commands) -> Result<Self, QmpError> {
        #[derive(Deserialize)]
        struct Answer {
            qemu: Version,
        }
        let answer: Answer = qmp.ask_for("query-version", Value::Null).await?;
        Ok(answer.qemu)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[major, minor, micro]) => Ok(Self { major, minor, micro }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, micro } = self;
        write!(f, "{major}.{minor}.{micro}")
    }
}

/// A job of the block layer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

/// A node that QEMU serves to others.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BlockExport {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) node_name: String,
    #[serde(default)]
    pub(super) shutting_down: bool,
}

/// A block device.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BlockDevice {
    /// The name of a `-drive`; empty for a device that was given a node.
    #[serde(default)]
    device: String,
    /// The guest's device, by its id or its path; nothing for what the guest does not have.
    qdev: Option<String>,
    /// Whether its medium can be taken out.
    pub(super) removable: bool,
    /// The node on top; nothing for a drive without a medium.
    pub(super) inserted: Option<BlockNode>,
}

impl BlockDevice {
    /// Whether the guest has it.
    pub(super) fn is_of_guest(&self) -> bool {
        self.qdev.is_some()
    }

    /// Whether it is flash memory with firmware in it. What that has is part of the guest's memory, and migrates with it.
    pub(super) fn is_firmware(&self) -> bool {
        self.path().rsplit('/').next().is_some_and(|name| name.contains(".flash"))
    }

    /// The shortest that tells people which it is.
    pub(super) fn name(&self) -> &str {
        let path = self.path();
        match path.strip_prefix(WITH_ID) {
            Some(id) => id,
            None if path.starts_with('/') && !self.device.is_empty() => &self.device,
            None => path,
        }
    }

    fn path(&self) -> &str {
        let qdev = self.qdev.as_deref().unwrap_or_default();
        qdev.strip_suffix("/virtio-backend").unwrap_or(qdev)
    }
}

/// A node of the block layer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BlockNode {
    #[serde(rename = "node-name", default)]
    pub(super) name: String,
    /// Its driver.
    #[serde(rename = "drv")]
    pub(super) driver: String,
    /// What it is made of at the bottom, as a path, a URI or as `json:` and its options.
    pub(super) file: String,
    /// Where it has from what it does not have itself. Nodes on top of it do not say so.
    pub(super) backing_file: Option<String>,
    pub(super) cache: Cache,
}

/// How a node caches.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cache {
    /// Whether flushes end here, without any effect.
    pub(super) no_flush: bool,
}

/// What the guest has of memory, in bytes, with what was plugged in.
pub(super) async fn memory_bytes(qmp: &Commands) -> Result<u64, QmpError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Answer {
        base_memory: u64,
        plugged_memory: Option<u64>,
    }
    let answer: Answer = qmp.ask_for("query-memory-size-summary", Value::Null).await?;
    Ok(answer.base_memory + answer.plugged_memory.unwrap_or(0))
}

/// A property of one of QEMU's objects.
pub(super) async fn property<T: DeserializeOwned>(qmp: &Commands, path: &str, name: &str) -> Result<T, QmpError> {
    qmp.ask_for("qom-get", json!({ "path": path, "property": name })).await
}

/// Below this are the devices that were given an id, by it.
const WITH_ID: &str = "/machine/peripheral/";
