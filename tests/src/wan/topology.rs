//! Which sites there are and what lies between them: from a TOML file, or from a test. What is wrong is refused here.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::namespace::Prefix;
use super::settings::{Change, Settings};

/// A wan that may be started.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(super) prefix: Option<Prefix>,
    pub(super) mtu: u16,
    pub(super) offload: Offload,
    pub(super) seed: u64,
    pub(super) sites: Vec<Site>,
    /// From each site (the outer order) to each (the inner one).
    settings: Vec<Settings>,
}

/// A place with a network of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    name: String,
    address: Ipv4Addr,
    prefix_length: u8,
}

/// Whether the sites' TCP hands over packets of up to 64 KiB, which are treated as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// A site does while all that leaves it is fast (500 Mbit/s) and loses nothing.
    #[default]
    Auto,
    /// Each does.
    On,
    /// None does: all packets are of the MTU's size.
    Off,
}

impl Topology {
    /// Reads a file's text.
    ///
    /// # Errors
    /// It is not TOML, has a field that is not known, or says something that cannot be; the message says what and where.
    pub fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let sites = file.sites.iter().zip(1..).map(|(site, number)| site.parse(number)).collect::<Result<Vec<_>>>()?;
        let mut topology = Self::between(sites, Settings::default().with(&file.defaults))?;
        topology.read_paths(&file.paths)?;
        let mtu = file.mtu.unwrap_or(MTU);
        ensure!((LEAST_MTU..=MOST_MTU).contains(&mtu), "mtu = {mtu}: it is from {LEAST_MTU} to {MOST_MTU}");
        Ok(Self { prefix: file.prefix, mtu, offload: file.offload, seed: file.seed.unwrap_or(SEED), ..topology })
    }

    /// These sites, with the same settings in each direction. Their addresses are 10.77.1.1/24, 10.77.2.1/24 and so on.
    ///
    /// # Errors
    /// There are fewer than two sites or more than 16, or one's name is not one.
    pub fn of(names: &[&str], settings: Settings) -> Result<Self> {
        let sites = names.iter().zip(1..).map(|(name, number)| Site::new(name, number)).collect::<Result<Vec<_>>>()?;
        Self::between(sites, settings)
    }

    fn between(sites: Vec<Site>, settings: Settings) -> Result<Self> {
        ensure!(
            (LEAST_SITES..=MOST_SITES).contains(&sites.len()),
            "there are {} sites: a wan has from {LEAST_SITES} to {MOST_SITES}",
            sites.len()
        );
        for (index, site) in sites.iter().enumerate() {
            for other in &sites[..index] {
                ensure!(site.name != other.name, "the site '{}' is there twice", site.name);
                let overlap = site.has(other.network()) || other.has(site.network());
                ensure!(!overlap, "the networks {} of '{}' and {} of '{}' overlap", site, site.name, other, other.name);
            }
        }
        let settings = vec![settings; sites.len() * sites.len()];
        Ok(Self { prefix: None, mtu: MTU, offload: Offload::Auto, seed: SEED, sites, settings })
    }

    /// The same with namespaces that are named so. Without it they are unique to the process and the wan.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// The same with packets of this kind.
    #[must_use]
    pub fn with_offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// How the namespaces' names begin, where it is said.
    pub fn prefix(&self) -> Option<&Prefix> {
        self.prefix.as_ref()
    }

    /// The sites, in the file's order.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// What is set of the direction from one site to another, by their places.
    pub(super) fn settings(&self, from: usize, to: usize) -> Settings {
        self.settings[from * self.sites.len() + to]
    }

    /// The place of the site of this name.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn place(&self, name: &str) -> Result<usize> {
        let names = || self.sites.iter().map(Site::name).collect::<Vec<_>>().join(", ");
        let place = self.sites.iter().position(|site| site.name == name);
        place.with_context(|| format!("there is no site '{name}': the sites are {}", names()))
    }

    /// What is said of both directions first, so that what is said of one counts whatever the order is.
    fn read_paths(&mut self, paths: &[FilePath]) -> Result<()> {
        let mut seen = HashSet::new();
        let mut apply = |from: &str, to: &str, kind: &str, change: &Change| -> Result<()> {
            let ends = (self.place(from)?, self.place(to)?);
            ensure!(ends.0 != ends.1, "a path leads from '{from}' to itself");
            ensure!(seen.insert((ends, kind == "both")), "the path from '{from}' to '{to}' is there twice");
            let settings = &mut self.settings[ends.0 * self.sites.len() + ends.1];
            *settings = settings.with(change);
            Ok(())
        };
        for path in paths {
            match (&path.between, &path.from, &path.to) {
                (Some([one, other]), None, None) => {
                    apply(one, other, "both", &path.change())?;
                    apply(other, one, "both", &path.change())?;
                }
                (None, Some(_), Some(_)) => {}
                _ => bail!("a path has either `between = [\"A\", \"B\"]`, or `from = \"A\"` and `to = \"B\"`"),
            }
        }
        for path in paths {
            if let (Some(from), Some(to)) = (&path.from, &path.to) {
                apply(from, to, "one", &path.change())?;
            }
        }
        Ok(())
    }
}

impl Site {
    fn new(name: &str, number: u8) -> Result<Self> {
        let site = Self { name: name.to_owned(), address: Ipv4Addr::new(10, 77, number, 1), prefix_length: 24 };
        site.checked()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of its device. More of the same network can be added to the device by hand.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its network, with the length of its prefix in bits.
    pub(super) fn network_with_length(&self) -> String {
        format!("{}/{}", self.network(), self.prefix_length)
    }

    /// Whether this address is one of its network.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.network()
    }

    fn network(&self) -> Ipv4Addr {
        self.address & self.mask()
    }

    fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(self.prefix_length)))
    }

    fn checked(self) -> Result<Self> {
        let Self { name, address, prefix_length } = &self;
        let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.len() <= MOST_NAME_BYTES
            && name.chars().all(|character| character.is_ascii_lowercase() || character.is_ascii_digit());
        ensure!(
            is_name,
            "'{name}' is not a site's name: it has from 1 to {MOST_NAME_BYTES} lower-case letters and digits, a letter first"
        );
        ensure!(
            (LEAST_PREFIX..=MOST_PREFIX).contains(prefix_length),
            "the prefix of '{self}' is {prefix_length} bits long: it is from {LEAST_PREFIX} to {MOST_PREFIX}"
        );
        let is_host = *address != self.network() && *address != self.network() | !self.mask();
        ensure!(is_host, "'{self}' is a network's first or last address, and none of a site");
        let is_usable = !address.is_loopback() && !address.is_multicast() && !address.is_unspecified();
        ensure!(is_usable, "'{self}' is not an address that a site can have: choose one of 10.0.0.0/8");
        Ok(self)
    }
}

/// Its address, with the length of its network's prefix.
impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prefix: Option<Prefix>,
    mtu: Option<u16>,
    #[serde(default)]
    offload: Offload,
    seed: Option<u64>,
    #[serde(default)]
    defaults: Change,
    sites: Vec<FileSite>,
    #[serde(default)]
    paths: Vec<FilePath>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSite {
    name: String,
    address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePath {
    between: Option<[String; 2]>,
    from: Option<String>,
    to: Option<String>,
    // Serde cannot deny unknown fields where a struct is flattened.
    delay: Option<super::Delay>,
    rate: Option<super::Rate>,
    loss: Option<super::Loss>,
    queue: Option<super::Size>,
}

impl FileSite {
    fn parse(&self, number: u8) -> Result<Site> {
        let Some(text) = &self.address else { return Site::new(&self.name, number) };
        let parsed = text.split_once('/').and_then(|(address, length)| {
            Some(Site { name: self.name.clone(), address: address.parse().ok()?, prefix_length: length.parse().ok()? })
        });
        let what = || format!("'{text}' is not an address of the site '{}': write one such as 10.77.1.1/24", self.name);
        parsed.with_context(what)?.checked()
    }
}

impl FilePath {
    fn change(&self) -> Change {
        Change { delay: self.delay, rate: self.rate, loss: self.loss, queue: self.queue }
    }
}

/// Every two sites have two links, each with a queue.
pub(super) const MOST_SITES: usize = 16;
const LEAST_SITES: usize = 2;
const MOST_NAME_BYTES: usize = 15;
const LEAST_PREFIX: u8 = 8;
const MOST_PREFIX: u8 = 30;
const MTU: u16 = 1500;
/// The least that IPv4 allows and the most that a TUN device does.
const LEAST_MTU: u16 = 576;
const MOST_MTU: u16 = 9000;
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const SITES: &str = "[[sites]]\nname = \"ams\"\n[[sites]]\nname = \"nyc\"\n[[sites]]\nname = \"syd\"\n";

    fn parse(more: &str) -> Result<Topology> {
        Topology::parse(&format!("{SITES}{more}"))
    }

    fn message(text: &str) -> String {
        format!("{:#}", Topology::parse(text).unwrap_err())
    }

    #[test]
    fn sites_have_addresses_by_themselves_and_paths_what_is_said_of_them() {
        let paths = "[defaults]\ndelay = \"1ms\"\n\
                     [[paths]]\nfrom = \"nyc\"\nto = \"ams\"\nrate = \"10M\"\n\
                     [[paths]]\nbetween = [\"ams\", \"nyc\"]\ndelay = \"40ms\"\nrate = \"1G\"\n";
        let topology = parse(paths).unwrap();
        assert_eq!(topology.sites()[2].to_string(), "10.77.3.1/24");
        let shown = |from, to| {
            let Settings { delay, rate, .. } = topology.settings(from, to);
            format!("{delay} {rate}")
        };
        assert_eq!(shown(0, 1), "40ms 1G");
        assert_eq!(shown(1, 0), "40ms 10M", "what is said of one direction counts more, whatever the order");
        assert_eq!(shown(1, 2), "1ms unlimited");
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_and_why() {
        for (text, told) in [
            ("sites = []", "there are 0 sites"),
            ("speed = 1", "unknown field `speed`"),
            ("[[sites]]\nname = \"a\"\nadress = \"x\"", "unknown field `adress`"),
            ("[[sites]]\nname = \"A\"", "'A' is not a site's name"),
            ("[[sites]]\nname = \"a-b\"", "'a-b' is not a site's name"),
            ("[[sites]]\nname = \"a\"\naddress = \"10.0.0\"", "'10.0.0' is not an address of the site 'a'"),
            (
                "[[sites]]\nname = \"a\"\naddress = \"10.0.0.0/24\"",
                "'10.0.0.0/24' is a network's first or last address",
            ),
            ("[[sites]]\nname = \"a\"\naddress = \"10.0.0.1/31\"", "31 bits"),
            ("[[sites]]\nname = \"a\"\naddress = \"127.0.0.1/24\"", "not an address that a site can have"),
            ("[[sites]]\nname = \"a\"\n[[sites]]\nname = \"a\"", "'a' is there twice"),
        ] {
            let message = message(text);
            assert!(message.contains(told), "'{told}' is not in: {message}");
        }
        let overlapping = "[[sites]]\nname = \"a\"\n[[sites]]\nname = \"b\"\naddress = \"10.77.0.5/16\"";
        assert!(message(overlapping).contains("overlap"));
        let many = (0..17).map(|number| format!("[[sites]]\nname = \"s{number}\"\n")).collect::<String>();
        assert!(message(&many).contains("there are 17 sites: a wan has from 2 to 16"));
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for (path, told) in [
            ("between = [\"ams\", \"ber\"]", "there is no site 'ber': the sites are ams, nyc, syd"),
            ("between = [\"ams\", \"ams\"]", "from 'ams' to itself"),
            ("from = \"ams\"", "either `between"),
            ("between = [\"ams\", \"nyc\"]\nfrom = \"ams\"\nto = \"nyc\"", "either `between"),
            ("between = [\"ams\", \"nyc\"]\n[[paths]]\nbetween = [\"nyc\", \"ams\"]", "is there twice"),
            ("between = [\"ams\", \"nyc\"]\ndelay = \"fast\"", "'fast' is not a delay: write a number"),
            ("between = [\"ams\", \"nyc\"]\njitter = \"1ms\"", "unknown field `jitter`"),
        ] {
            let message = format!("{:#}", parse(&format!("[[paths]]\n{path}")).unwrap_err());
            assert!(message.contains(told), "'{told}' is not in: {message}");
        }
        let message = format!("{:#}", Topology::parse(&format!("mtu = 70\n{SITES}")).unwrap_err());
        assert!(message.contains("mtu = 70: it is from 576 to 9000"), "{message}");
    }
}
