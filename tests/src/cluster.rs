//! Several nodes on this machine that have joined each other, each with a site, a directory and a port of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::node::Node;
use crate::wan::Wan;

/// A cluster. Its nodes are killed when it is dropped.
pub struct Cluster {
    directory: PathBuf,
    options: Options,
    /// In the order in which they joined.
    pub nodes: Vec<Node>,
    addresses: Vec<SocketAddr>,
}

/// What makes a cluster different from others.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Lines of all nodes' `sterna.toml`, each with the section that it belongs to.
    pub settings: Vec<(&'static str, String)>,
    /// The network that they are in; without it they are all on this machine's loopback addresses.
    pub wan: Option<Arc<Wan>>,
    /// How long sessions last, where that is not what it is by itself.
    pub session: Option<Duration>,
    /// Whether VMs come and go: nodes have an address for a migrator beside them.
    pub migrators: bool,
    /// What the nodes log; without it `info`.
    pub log: Option<&'static str>,
}

impl Cluster {
    /// A cluster of one node, at the first of these sites, and of one more node at each of the others; all of them run, and vote.
    ///
    /// # Errors
    /// A node does not come to be ready, or they do not agree in time.
    pub fn start(directory: &Path, sites: &[&str]) -> Result<Self> {
        Self::start_with(directory, sites, "")
    }

    /// As [`Cluster::start`], with this line among the settings of `[cluster]` in all nodes' `sterna.toml`.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(directory: &Path, sites: &[&str], setting: &'static str) -> Result<Self> {
        let settings = if setting.is_empty() { Vec::new() } else { vec![("cluster", setting.to_owned())] };
        Self::start_as(directory, sites, Options { settings, ..Options::default() })
    }

    /// As [`Cluster::start`], with each node in the namespace of its site, and with the timeouts that nodes have by themselves.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_on(wan: Arc<Wan>, directory: &Path, sites: &[&str]) -> Result<Self> {
        Self::start_as(directory, sites, Options { wan: Some(wan), ..Options::default() })
    }

    /// As [`Cluster::start`], with all that can be chosen. On a wan each node is in the namespace of its site.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_as(directory: &Path, sites: &[&str], options: Options) -> Result<Self> {
        let (first, others) = sites.split_first().context("a cluster has at least one site")?;
        let (directory, nodes, addresses) = (directory.to_owned(), Vec::new(), Vec::new());
        let mut cluster = Self { directory, options, nodes, addresses };
        cluster.add(first, &["--bootstrap".to_owned()])?;
        for site in others {
            cluster.join(site)?;
        }
        for site in others {
            cluster.nodes[0].sterna(["cluster", "node", "promote", &format!("{site}-1")]).succeed()?;
        }
        if !others.is_empty() {
            cluster.apply()?;
        }
        let voters = sites.len();
        cluster.until("all vote, have a session, and answer", |cluster| {
            let status = cluster.nodes[0].value(["cluster", "status"])?;
            let nodes = status["nodes"].as_array().context("a list of nodes")?;
            let is_well =
                |node: &&Value| node["votes"] == true && node["session"] == "live" && node["silence"].is_null();
            Ok(nodes.iter().filter(is_well).count() == voters)
        })?;
        Ok(cluster)
    }

    /// One more node, which joins by a token of the first, and runs.
    ///
    /// # Errors
    /// It is not let in, or does not come to be ready.
    pub fn join(&mut self, site: &str) -> Result<()> {
        self.join_through(0, site)
    }

    /// The same, by a token of another node.
    ///
    /// # Errors
    /// As [`Cluster::join`].
    pub fn join_through(&mut self, node: usize, site: &str) -> Result<()> {
        let token = self.token_of(node)?;
        self.add(site, &["--join".to_owned(), token])
    }

    /// The same, of this name: a site's second node.
    ///
    /// # Errors
    /// As [`Cluster::join`].
    pub fn join_as(&mut self, node: usize, site: &str, name: &str) -> Result<()> {
        let token = self.token_of(node)?;
        self.add(site, &["--join".to_owned(), token, "--name".to_owned(), name.to_owned()])
    }

    /// A new join token of the first node.
    ///
    /// # Errors
    /// The node does not make it.
    pub fn token(&self) -> Result<String> {
        self.token_of(0)
    }

    fn token_of(&self, node: usize) -> Result<String> {
        let made = self.until_some("a node gives out a token", |cluster| {
            Ok(cluster.nodes[node].value(["cluster", "token", "create"]).ok())
        })?;
        Ok(made["token"].as_str().context("a token")?.to_owned())
    }

    /// Makes the staged changes.
    ///
    /// # Errors
    /// The first node refuses them.
    pub fn apply(&self) -> Result<()> {
        let revision = self.nodes[0].value(["cluster", "changes"])?["revision"].to_string();
        self.nodes[0].sterna(["cluster", "apply", &revision]).succeed()?;
        Ok(())
    }

    /// Where a node listens to the others.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    /// Waits until something is so, and fails where that takes too long.
    ///
    /// # Errors
    /// It is not so in time, or cannot be found out.
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        self.until_some(what, |cluster| Ok(is_so(cluster)?.then_some(())))
    }

    fn until_some<T>(&self, what: &str, mut find: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = find(self)? {
                return Ok(found);
            }
            if begun.elapsed() > PATIENCE {
                let logs: Vec<_> = self.nodes.iter().map(|node| last_lines(&node.log())).collect();
                bail!("it did not come about in {PATIENCE:?} that {what}:\n{}", logs.join("\n---\n"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn add(&mut self, site: &str, cluster: &[String]) -> Result<()> {
        let (namespace, address) = match &self.options.wan {
            Some(wan) => (Some(wan.namespace(site)?), SocketAddr::from((wan.address(site)?, PORT))),
            None => (None, free_address()?),
        };
        let directory = self.directory.join(format!("{site}-{}", self.nodes.len()));
        fs::create_dir(&directory)?;
        let (listen, args) = (address.to_string(), ["--site", site, "--listen"]);
        let args = args.into_iter().chain([listen.as_str()]).chain(cluster.iter().map(String::as_str));
        let log = self.options.log.unwrap_or("info");
        let mut node = Node::init_in(namespace, &directory, args)?.log_level(log);
        let config = node.data().join("sterna.toml");
        configure(&config, &self.options)?;
        if self.options.migrators {
            let of_site = |wan: &Arc<Wan>| anyhow::Ok(SocketAddr::from((wan.address(site)?, MIGRATOR_PORT)));
            let address = self.options.wan.as_ref().map_or_else(free_address, of_site)?;
            set(&config, "#listen = \"10.77.0.1:7402\"", &format!("listen = \"{address}\""))?;
        }
        node.run()?;
        if let Some(length) = self.options.session.filter(|_| self.nodes.is_empty()) {
            node.sterna(["cluster", "session", "--length", &format!("{}ms", length.as_millis())]).succeed()?;
        }
        self.nodes.push(node);
        self.addresses.push(address);
        Ok(())
    }
}

/// The settings of a node. Near each other they have elections that suit a machine that is busy with other tests rather than the width of an ocean.
fn configure(config: &Path, options: &Options) -> Result<()> {
    let mut text = fs::read_to_string(config)?;
    if options.wan.is_none() {
        let quick = text.replace("#heartbeat = \"500ms\"", "heartbeat = \"200ms\"");
        let quick = quick.replace("#election_min = \"2s\"", "election_min = \"1s\"");
        let quick = quick.replace("#election_max = \"4s\"", "election_max = \"2s\"");
        ensure!(quick != text, "the settings have other defaults: {text}");
        text = quick;
    }
    for (section, line) in &options.settings {
        let header = format!("[{section}]\n");
        ensure!(text.contains(&header), "the settings have no section '{section}': {text}");
        text = text.replace(&header, &format!("{header}{line}\n"));
    }
    fs::write(config, text)?;
    Ok(())
}

/// Changes a line of a node's settings.
fn set(config: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(config)?;
    ensure!(text.contains(from), "the settings do not have '{from}': {text}");
    fs::write(config, text.replace(from, to))?;
    Ok(())
}

/// A port that nobody listened on a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Several elections on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of each node in a namespace of its own.
const PORT: u16 = 7400;
/// Of the migrator there.
const MIGRATOR_PORT: u16 = 7402;
const PAUSE: Duration = Duration::from_millis(50);
