//! Deliberate faults of the product, and what finds them: `tests/mutations.toml` lists them, `scripts/mutations` puts each into a
//! copy of the tree by itself (`docs/reliability.md`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// What the product does with it.
    pub name: String,
    /// What looks for it.
    #[serde(default)]
    pub by: By,
    /// Where it is put, from the root.
    pub file: PathBuf,
    /// What stands there, once.
    pub find: String,
    /// What stands there with it.
    pub replace: String,
}

/// What looks for a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The model of sessions, ownership and handoff.
    #[default]
    Model,
    /// Seeds of a site.
    Sites,
    /// Seeds of a cluster.
    Clusters,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutation: Vec<Mutation>,
}

/// How a fault was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Where: the bounds of the model, or the seed.
    pub found_in: String,
    /// What does not hold with it.
    pub violated: String,
    /// How it comes to that.
    pub steps: Vec<String>,
}

/// Those that are listed in the tree at `root`.
///
/// # Errors
/// The list cannot be read.
pub fn listed(root: &Path) -> Result<Vec<Mutation>> {
    let path = root.join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let list: List = toml::from_str(&text).with_context(|| format!("{} is no list", path.display()))?;
    Ok(list.mutation)
}

impl Mutation {
    /// The text of its file with it.
    ///
    /// # Errors
    /// What it replaces is not there once, or is the same.
    pub fn put_into(&self, text: &str) -> Result<String> {
        let Self { name, file, find, replace, .. } = self;
        let count = text.matches(find).count();
        ensure!(count == 1, "'{name}': what it replaces is {count} times in {}, and not once", file.display());
        ensure!(find != replace, "'{name}' changes nothing");
        Ok(text.replacen(find, replace, 1))
    }

    /// Puts it into a copy of the tree at `copy`, has it looked for there, and takes it out again; `None` where nothing is found.
    ///
    /// # Errors
    /// It cannot be put there, or does not compile, or what looks for it does not come to an end.
    pub fn try_in(&self, copy: &Path) -> Result<Option<Caught>> {
        let path = copy.join(&self.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, self.put_into(&text)?)?;
        let caught = look(copy, self.by).with_context(|| format!("with '{}'", self.name));
        fs::write(&path, text)?;
        caught
    }
}

/// Builds what looks for faults as it is in the copy, and has it look.
fn look(copy: &Path, by: By) -> Result<Option<Caught>> {
    let (program, what): (_, &[&str]) = match by {
        By::Model => ("model", &[]),
        By::Sites => ("sim", &["--first", "--of", "sites"]),
        By::Clusters => ("sim", &["--first", "--of", "clusters"]),
    };
    let args = ["build", "--workspace", "--all-features", "--locked", "--quiet", "--bin", program];
    let built = Command::new("cargo").current_dir(copy).args(args).stdin(Stdio::null()).output()?;
    ensure!(built.status.success(), "it does not compile:\n{}", String::from_utf8_lossy(&built.stderr));
    // Beside this program: the copy is built where everything is.
    let program = std::env::current_exe()?.with_file_name(program);
    let found = tempfile::NamedTempFile::new()?;
    let mut looks = Command::new(program);
    looks.args(what).arg("--json").arg(found.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let looked = looks.status()?;
    let all: Value = serde_json::from_reader(&found).context("it says nothing")?;
    let all = all.as_array().context("a list of what was looked at")?;
    let Some(violated) = all.iter().find(|looked| !looked["violation"].is_null()) else {
        ensure!(looked.success(), "it ends with {looked}, and has found nothing");
        return Ok(None);
    };
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let Some(steps) = violated["violation"]["steps"].as_array() else { bail!("a violation has steps: {violated}") };
    Ok(Some(Caught {
        found_in: text(&violated["name"])?,
        violated: text(&violated["violation"]["property"])?,
        steps: steps.iter().map(text).collect::<Result<_>>()?,
    }))
}

const LIST: &str = "tests/mutations.toml";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_that_is_listed_can_be_put_where_it_belongs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = listed(root).unwrap();
        assert!(all.len() >= 15, "{}", all.len());
        for mutation in &all {
            let text = fs::read_to_string(root.join(&mutation.file)).unwrap();
            assert_ne!(mutation.put_into(&text).unwrap(), text);
        }
        assert_eq!(all.iter().map(|mutation| &mutation.name).collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_fault_that_fits_nowhere_or_twice_is_refused() {
        let text = |text: &str| text.to_owned();
        let mutation =
            Mutation { name: text("a"), by: By::Model, file: "b.rs".into(), find: text("one"), replace: text("two") };
        assert_eq!(mutation.put_into("one, two").unwrap(), "two, two");
        assert!(mutation.put_into("three").is_err() && mutation.put_into("one one").is_err());
        assert!(Mutation { replace: text("one"), ..mutation }.put_into("one").is_err());
    }
}
