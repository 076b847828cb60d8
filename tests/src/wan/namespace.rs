//! A site's network namespace, as `ip netns` knows them; and those that a run which was killed has left.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::process::{self, Command};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;

use super::device;
use crate::tool::Tool;

/// How the names of a wan's namespaces begin: `PREFIX-SITE`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(String);

/// A text is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a prefix: it has up to 32 lower-case letters, digits and '-', a letter first and no '-' last")]
pub struct BadPrefix(String);

/// The name of a site's namespace.
pub fn namespace_name(prefix: &Prefix, site: &str) -> String {
    format!("{prefix}-{site}")
}

/// A namespace that we have made. Dropping it removes its name; the namespace itself lives as long as processes in it do.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    is_there: bool,
}

/// Namespaces with the same prefix that were there already.
#[derive(Debug)]
pub struct Leftovers {
    /// Those of a wan that is running.
    pub in_use: Vec<String>,
    /// Those that a wan which was killed has left.
    pub idle: Vec<String>,
}

/// Runs something in a namespace, on a thread of its own. Sockets that are made in it stay in the namespace, whoever uses them.
///
/// # Errors
/// There is no such namespace, or we may not enter it.
///
/// # Panics
/// Where `body` does.
pub fn inside<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(Path::new(DIRECTORY).join(namespace));
    let file = file.with_context(|| format!("cannot open the namespace '{namespace}'"))?;
    let entered = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            io::Result::Ok(body())
        });
        thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    });
    entered.with_context(|| format!("cannot enter the namespace '{namespace}'"))
}

/// A command that runs a program in a namespace.
pub fn command_inside(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

impl Prefix {
    /// One that no other wan has while this process lives.
    pub fn unique() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("{TESTS}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Namespace {
    pub(super) fn create(name: String) -> Result<Self> {
        Tool::new("ip").args(["netns", "add", &name]).succeed().with_context(|| format!("cannot make '{name}'"))?;
        Ok(Self { name, is_there: true })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Removes it, and says if that fails.
    pub(super) fn remove(mut self) -> Result<()> {
        self.is_there = false;
        delete(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.is_there
            && let Err(error) = delete(&self.name)
        {
            eprintln!("{error:#}");
        }
    }
}

impl Leftovers {
    /// Looks for namespaces with this prefix.
    ///
    /// # Errors
    /// The directory of namespaces cannot be read.
    pub fn of(prefix: &Prefix) -> Result<Self> {
        let is_ours = |name: &String| {
            let site = name.strip_prefix(prefix.0.as_str()).and_then(|rest| rest.strip_prefix('-'));
            // No site's name has a '-': what does belongs to a longer prefix.
            site.is_some_and(|site| !site.is_empty() && !site.contains('-'))
        };
        // A device goes with the process that has opened it.
        let is_in_use = |name: &String| inside(name, device::is_there).unwrap_or(false);
        let (in_use, idle) = all()?.into_iter().filter(is_ours).partition(is_in_use);
        Ok(Self { in_use, idle })
    }

    /// Removes those that no running wan has; their names.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn remove(self) -> Result<Vec<String>> {
        self.idle.iter().try_for_each(|name| delete(name))?;
        Ok(self.idle)
    }
}

/// Removes what tests that were killed have left: the namespaces of processes that are no more.
pub(super) fn remove_those_of_the_dead() -> Result<()> {
    let is_dead = |name: &String| {
        let id = name.strip_prefix(TESTS).and_then(|rest| rest.split('-').next());
        id.and_then(|id| id.parse::<u32>().ok()).is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
    };
    // Another test may be faster.
    all()?.iter().filter(|name| is_dead(name)).try_for_each(|name| delete(name))
}

fn all() -> Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {DIRECTORY}"))?,
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("cannot read {DIRECTORY}"))?;
    names.sort();
    Ok(names)
}

/// That it is gone already is no error.
///
/// Connections that were closed in it with bytes that are still to be sent would go on trying for minutes, and hold those bytes
/// and the namespace meanwhile: they are told not to.
fn delete(name: &str) -> Result<()> {
    // One that cannot be entered has no connections.
    let _ = inside(name, || fs::write("/proc/sys/net/ipv4/tcp_orphan_retries", "1"));
    let ended = Tool::new("ip").args(["netns", "delete", name]).run()?;
    if !ended.status.success() && Path::new(DIRECTORY).join(name).exists() {
        anyhow::bail!("cannot remove the namespace '{name}': {}", ended.stderr.trim_end());
    }
    Ok(())
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_one = text.len() <= MOST_PREFIX_BYTES
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.chars().all(|character| matches!(character, 'a'..='z' | '0'..='9' | '-'));
        if is_one { Ok(Self(text.to_owned())) } else { Err(BadPrefix(text.to_owned())) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = BadPrefix;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where `ip netns` keeps names.
const DIRECTORY: &str = "/var/run/netns";
/// How unique prefixes begin; the process's id follows.
const TESTS: &str = "wan-test-";
const MOST_PREFIX_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_checked_and_unique_ones_differ() {
        for text in ["", "-a", "a-", "A", "a/b", "a b", "1a", &"a".repeat(33)] {
            assert_eq!(text.parse::<Prefix>(), Err(BadPrefix(text.to_owned())));
        }
        let (one, other) = (Prefix::unique(), Prefix::unique());
        assert_ne!(one, other);
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
