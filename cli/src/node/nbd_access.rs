//! Which client over TCP may attach which volume, by the DNS names in its certificate (`[nbd.access]` in `sterna.toml`).
//!
//! What the list does not give, nobody over TCP gets, or gets to see. The socket `nbd.sock` is another matter: whoever its
//! permission lets in has all volumes.

use sterna_nbd_server::{Client, ExportMode};
use sterna_types::VolumeName;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList(Vec<Rule>);

/// Some volumes, and who may attach them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    volumes: Pattern,
    read_write: Vec<String>,
    read_only: Vec<String>,
}

/// One volume, or all whose names begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    One(VolumeName),
    Beginning(String),
}

/// What a rule cannot be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// No volume can be called like that.
    #[error("'{0}' is neither a volume's name nor the beginning of one with '*' behind it")]
    Volumes(String),
    /// It is no DNS name as certificates have them.
    #[error("'{0}' is not the DNS name of a client: it takes 1 to 253 of a-z, 0-9, '-', '_' and '.'")]
    Client(String),
}

impl Rule {
    /// Gives the volumes that `volumes` stands for (a name, or the beginning of names and a `*`) to clients of these names.
    ///
    /// # Errors
    /// [`InvalidRule`].
    pub fn new(volumes: &str, read_write: Vec<String>, read_only: Vec<String>) -> Result<Self, InvalidRule> {
        let invalid = || InvalidRule::Volumes(volumes.to_owned());
        let volumes = match volumes.strip_suffix('*') {
            // What a name can begin with is a name itself.
            Some(beginning) if beginning.is_empty() || beginning.parse::<VolumeName>().is_ok() => {
                Pattern::Beginning(beginning.to_owned())
            }
            Some(_) => return Err(invalid()),
            None => Pattern::One(volumes.parse().map_err(|_| invalid())?),
        };
        if let Some(client) = read_write.iter().chain(&read_only).find(|client| !is_dns_name(client)) {
            return Err(InvalidRule::Client(client.clone()));
        }
        Ok(Self { volumes, read_write, read_only })
    }

    fn mode(&self, names: &[String], volume: &VolumeName) -> Option<ExportMode> {
        let is_meant = match &self.volumes {
            Pattern::One(name) => name == volume,
            Pattern::Beginning(beginning) => volume.as_str().starts_with(beginning),
        };
        let has = |clients: &[String]| is_meant && names.iter().any(|name| clients.contains(name));
        if has(&self.read_write) {
            Some(ExportMode::ReadWrite)
        } else {
            has(&self.read_only).then_some(ExportMode::ReadOnly)
        }
    }
}

impl AccessList {
    /// A list of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether it gives nobody anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How a client may attach a volume: as the most generous of the rules says; `None` for not at all.
    pub fn mode(&self, client: &Client, volume: &VolumeName) -> Option<ExportMode> {
        let names = match client {
            Client::Local => return Some(ExportMode::ReadWrite),
            Client::Unknown { .. } => return None,
            Client::Certified { names, .. } => names,
        };
        let modes: Vec<_> = self.0.iter().filter_map(|rule| rule.mode(names, volume)).collect();
        let writes = modes.contains(&ExportMode::ReadWrite).then_some(ExportMode::ReadWrite);
        writes.or_else(|| modes.first().copied())
    }
}

/// Whether a certificate can have it. A name with '*' is none: it would be nobody's in particular.
fn is_dns_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&text.len()) && text.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(volumes: &str, read_write: &[&str], read_only: &[&str]) -> Result<Rule, InvalidRule> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Rule::new(volumes, owned(read_write), owned(read_only))
    }

    fn client(names: &[&str]) -> Client {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Client::Certified { address: ([192, 0, 2, 1], 1).into(), names }
    }

    #[test]
    fn a_client_gets_what_the_list_gives_to_one_of_its_names_and_nothing_else() {
        let list = AccessList::new(vec![
            rule("web-*", &["h1.example"], &["backup.example"]).expect("a rule"),
            rule("web-1", &["h2.example"], &[]).expect("a rule"),
            rule("*", &[], &["h2.example"]).expect("a rule"),
        ]);
        let mode = |names: &[&str], volume: &str| list.mode(&client(names), &volume.parse().expect("a name"));
        assert_eq!(mode(&["h1.example"], "web-1"), Some(ExportMode::ReadWrite));
        assert_eq!(mode(&["h1.example"], "db-1"), None);
        assert_eq!(mode(&["backup.example"], "web-2"), Some(ExportMode::ReadOnly));
        assert_eq!(mode(&["other.example", "backup.example"], "web-2"), Some(ExportMode::ReadOnly));
        assert_eq!(mode(&["h2.example"], "web-1"), Some(ExportMode::ReadWrite));
        assert_eq!(mode(&["h2.example"], "web-2"), Some(ExportMode::ReadOnly));
        for nobody in [&[][..], &["h1"], &["h1.example.org"], &["*.example"], &["x.h1.example"]] {
            assert_eq!(mode(nobody, "web-1"), None, "{nobody:?}");
        }
        let volume = "db-1".parse().expect("a name");
        assert_eq!(list.mode(&Client::Local, &volume), Some(ExportMode::ReadWrite));
        assert_eq!(list.mode(&Client::Unknown { address: ([192, 0, 2, 1], 1).into() }, &volume), None);
    }

    #[test]
    fn a_rule_that_can_never_hold_is_refused() {
        for volumes in ["", "Web", "we*b", "web-**", "-*", "a b"] {
            assert_eq!(rule(volumes, &[], &[]), Err(InvalidRule::Volumes(volumes.to_owned())));
        }
        for name in ["", "H1.example", "*.example", "a b", "ä"] {
            assert_eq!(rule("web", &[], &[name]), Err(InvalidRule::Client(name.to_owned())));
        }
    }
}
