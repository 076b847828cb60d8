//! The network that clients of a guest are in, at both of its hosts: one bridge with a client on it, and a leg into each host's namespace.
//! It is not what is measured: it has no delay and no limit.

use anyhow::Result;
use sterna_tests::tool::Tool;

/// Such a network. Dropping it removes it.
pub(super) struct Lan {
    namespace: String,
}

impl Lan {
    /// One that reaches into these namespaces, each of which gets a tap for a guest.
    pub(super) fn between(hosts: &[&str]) -> Result<Self> {
        let lan = Self { namespace: format!("sterna-lan-{}", std::process::id()) };
        let own = lan.namespace.as_str();
        ip(&["netns", "add", own])?;
        ip(&["-n", own, "link", "add", "lan", "type", "bridge"])?;
        ip(&["-n", own, "addr", "add", &format!("{CLIENT}/24"), "dev", "lan"])?;
        ip(&["-n", own, "link", "set", "lan", "up"])?;
        for (number, host) in hosts.iter().enumerate() {
            let leg = format!("leg{number}");
            ip(&["-n", own, "link", "add", &leg, "type", "veth", "peer", "name", "leg", "netns", host])?;
            ip(&["-n", own, "link", "set", &leg, "master", "lan", "up"])?;
            ip(&["-n", host, "link", "add", "lan", "type", "bridge"])?;
            ip(&["-n", host, "tuntap", "add", TAP, "mode", "tap"])?;
            for port in ["leg", TAP] {
                ip(&["-n", host, "link", "set", port, "master", "lan", "up"])?;
            }
            ip(&["-n", host, "link", "set", "lan", "up"])?;
        }
        Ok(lan)
    }

    /// The namespace of the client.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Its legs go with it.
        let _ = ip(&["netns", "delete", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    Tool::new("ip").args(arguments).succeed()?;
    Ok(())
}

/// The tap of a guest, in each host's namespace.
pub(super) const TAP: &str = "guest";

/// Where the client is.
const CLIENT: &str = "10.99.0.1";

/// Where the guest is.
pub(super) const GUEST: &str = "10.99.0.2";
