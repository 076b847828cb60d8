//! The arrows between the workspace's crates, which go one way.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{finding::Finding, repo::Repo};

/// What `cargo metadata` says about the workspace's own crates.
///
/// # Errors
/// If cargo cannot be run, or a manifest cannot be read.
pub(crate) fn cargo_metadata(repo: &Repo) -> Result<Value> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).current_dir(&repo.root).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    serde_json::from_slice(&output.stdout).context("cargo metadata prints something else than JSON")
}

/// Finds arrows that may not be, and crates that nobody has given a place.
///
/// # Errors
/// If `metadata` is not what `cargo metadata` prints.
pub(crate) fn check(repo: &Repo, metadata: &Value) -> Result<Vec<Finding>> {
    let root = Path::new(metadata["workspace_root"].as_str().context("metadata without a workspace_root")?);
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().context("metadata without packages")? {
        let manifest = package["manifest_path"].as_str().context("a package without a manifest_path")?;
        let manifest = relative(root, manifest).with_context(|| format!("{manifest} is outside the workspace"))?;
        let from = manifest.trim_end_matches("/Cargo.toml");
        let Some(allowed) = allowed(from) else {
            findings.push(Finding::failure(&manifest, 1, format!("the crate `{from}` has no layer"), MEND_UNKNOWN));
            continue;
        };
        for arrow in arrows(root, package)? {
            let may_be = allowed.contains(&arrow.to.as_str()) || (arrow.is_dev && arrow.to == "types");
            if !may_be {
                let what = format!("`{from}` may not depend on `{}`", arrow.to);
                findings.push(Finding::failure(&manifest, line_of(repo, &manifest, &arrow), what, MEND_ARROW));
            }
        }
    }
    Ok(findings)
}

/// A dependency on another crate of the repository.
struct Arrow {
    /// The directory of the crate that is depended on.
    to: String,
    /// Its name in the manifest.
    name: String,
    /// Whether only tests have it.
    is_dev: bool,
}

fn arrows(root: &Path, package: &Value) -> Result<Vec<Arrow>> {
    let dependencies = package["dependencies"].as_array().context("a package without dependencies")?;
    let arrow = |dependency: &Value| {
        let path = dependency["path"].as_str()?;
        Some(Arrow {
            to: relative(root, path).unwrap_or_else(|| path.to_owned()),
            name: dependency["name"].as_str()?.to_owned(),
            is_dev: dependency["kind"] == "dev",
        })
    };
    Ok(dependencies.iter().filter_map(arrow).collect())
}

/// The crates that the one in the directory `from` may depend on; `None` for a crate that is not known here.
fn allowed(from: &str) -> Option<&'static [&'static str]> {
    match from {
        "runtime" | "entropy" => Some(&[]),
        "types" => Some(&["runtime"]),
        "proto" | "nbd-server" => Some(&["types"]),
        "transport" => Some(&["runtime", "types"]),
        "consensus" | "storage-node" | "migrator" => Some(&["proto", "runtime", "transport", "types"]),
        "bucket" => Some(&["runtime", "storage-node", "types"]),
        "cli" => Some(&[
            "runtime",
            "types",
            "proto",
            "transport",
            "consensus",
            "storage-node",
            "bucket",
            "migrator",
            "nbd-server",
        ]),
        "tests" | "benches" | "sim" => Some(&[
            "runtime",
            "entropy",
            "types",
            "proto",
            "transport",
            "consensus",
            "storage-node",
            "bucket",
            "migrator",
            "nbd-server",
            "cli",
            "tests",
            "benches",
        ]),
        _ => None,
    }
}

fn relative(root: &Path, path: &str) -> Option<String> {
    Path::new(path).strip_prefix(root).ok()?.to_str().map(str::to_owned)
}

fn line_of(repo: &Repo, manifest: &str, arrow: &Arrow) -> usize {
    let is_named = |line: &str| line.trim_start().starts_with(&arrow.name);
    repo.file(manifest).and_then(|file| file.text.lines().position(is_named)).map_or(1, |at| at + 1)
}

const MEND_ARROW: &str =
    "move what both need into a lower crate, or invert the call with a trait; CONTRIBUTING.md has the layers";
const MEND_UNKNOWN: &str = "decide what it may depend on, and write it into layers.rs and CONTRIBUTING.md";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(from: &str, to: &str, kind: Value) -> Vec<String> {
        let metadata = json!({
            "workspace_root": "/r",
            "packages": [{
                "manifest_path": format!("/r/{from}/Cargo.toml"),
                "dependencies": [
                    { "name": "serde", "kind": null },
                    { "name": format!("sterna-{to}"), "kind": kind, "path": format!("/r/{to}") },
                ],
            }],
        });
        let manifest = format!("[dependencies]\nserde = {{}}\nsterna-{to} = {{}}\n");
        let repo = Repo::with_files(&[(&format!("{from}/Cargo.toml"), &manifest)]);
        check(&repo, &metadata).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arrows_down_are_allowed() {
        for (from, to) in [("proto", "types"), ("storage-node", "proto"), ("cli", "nbd-server"), ("tests", "cli")] {
            assert!(found(from, to, Value::Null).is_empty(), "{from} -> {to}");
        }
    }

    #[test]
    fn arrows_up_and_sideways_are_refused() {
        let pairs = [
            ("types", "proto"),
            ("nbd-server", "proto"),
            ("migrator", "storage-node"),
            ("cli", "tests"),
            ("proto", "cli"),
        ];
        for (from, to) in pairs {
            let findings = found(from, to, Value::Null);
            assert_eq!(findings.len(), 1, "{from} -> {to}");
            assert!(findings[0].starts_with(&format!("{from}/Cargo.toml:3: `{from}` may not depend on `{to}`")));
        }
    }

    #[test]
    fn build_dependencies_count_like_any_other() {
        assert_eq!(found("types", "proto", json!("build")).len(), 1);
    }

    #[test]
    fn tests_of_any_crate_may_use_types_and_nothing_else() {
        assert!(found("types", "types", json!("dev")).is_empty());
        assert_eq!(found("nbd-server", "tests", json!("dev")).len(), 1);
    }

    #[test]
    fn a_crate_without_a_layer_is_refused() {
        let findings = found("utils", "types", Value::Null);
        assert!(findings[0].contains("`utils` has no layer"), "{findings:?}");
    }
}
