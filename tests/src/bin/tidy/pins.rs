//! Dependencies: named once, in the root manifest, each with one exact version and a reason; crates only refer to them.

use crate::{
    finding::Finding,
    manifest::{Entry, entries},
    repo::Repo,
};

/// Checks the root manifest, and that of every crate.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|file| file.path == ROOT || file.path.ends_with("/Cargo.toml")) {
        let entries = entries(&file.text);
        let found = match (file.path == ROOT, has_workspace(&file.text)) {
            (true, _) => check_root(&entries),
            (false, true) => check_standalone(&file.path, &entries),
            (false, false) => check_member(&file.path, &entries),
        };
        findings.extend(found);
    }
    findings
}

fn check_root(entries: &[Entry]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in entries.iter().filter(|entry| entry.section.starts_with("workspace.dependencies")) {
        if entry.is_in_dependency_of_own_table() {
            let what = format!("`{}` has a table of its own", entry.section);
            findings.push(Finding::failure(ROOT, entry.line, what, "write the dependency in one line"));
            continue;
        }
        if !entry.is_exact() {
            findings.push(unpinned(ROOT, entry));
        }
        if !entry.is_explained {
            let what = format!("`{}` does not say what it is for", entry.key);
            findings.push(Finding::failure(ROOT, entry.line, what, "write it in a comment directly above"));
        }
    }
    findings
}

/// A crate with a workspace of its own, such as `fuzz`, cannot refer to the root's list.
fn check_standalone(path: &str, entries: &[Entry]) -> Vec<Finding> {
    entries
        .iter()
        .filter(|entry| entry.is_dependency() && !entry.is_exact())
        .map(|entry| unpinned(path, entry))
        .collect()
}

fn check_member(path: &str, entries: &[Entry]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in entries {
        let is_own = entry.is_dependency() && !entry.is_inherited();
        if is_own || entry.is_in_dependency_of_own_table() {
            let what = format!("`{}` is not taken from the workspace", entry.key);
            let mend = "write `NAME = { workspace = true }` and put the version into the root Cargo.toml";
            findings.push(Finding::failure(path, entry.line, what, mend));
        }
    }
    let has_lints = |entry: &Entry| match entry.section.as_str() {
        "lints" => entry.key == "workspace" && entry.value == "true",
        _ => entry.key == "lints.workspace" && entry.value == "true",
    };
    let has_own =
        |entry: &Entry| (&*entry.section, &*entry.key, &*entry.value) == ("lints.rust", "unsafe_code", "\"deny\"");
    if path == WITH_UNSAFE {
        if !entries.iter().any(has_own) {
            let mend = "write `unsafe_code = \"deny\"` under `[lints.rust]`, so that each exception gives its reason";
            findings.push(Finding::failure(path, 1, "unsafe code is not denied", mend));
        }
    } else if !entries.iter().any(has_lints) {
        let mend = "add `[lints]` with `workspace = true`";
        findings.push(Finding::failure(path, 1, "the crate does not take the workspace's lints", mend));
    }
    findings
}

/// The one crate that may have unsafe code, and so lints of its own: what it is for is a function that C calls.
const WITH_UNSAFE: &str = "entropy/Cargo.toml";

fn unpinned(path: &str, entry: &Entry) -> Finding {
    let what = format!("`{}` is not pinned to one version", entry.key);
    Finding::failure(path, entry.line, what, "write `=x.y.z`")
}

fn has_workspace(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "[workspace]")
}

const ROOT: &str = "Cargo.toml";

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        check(&Repo::with_files(&[(path, text)])).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn the_root_pins_and_explains() {
        let good = "[workspace.dependencies]\n# Ours.\na = { path = \"a\" }\n# Why.\nb = \"=1.0.0\"\nc = \"=2.0.0\"\n";
        assert_eq!(found("Cargo.toml", good), []);
        let bad = found("Cargo.toml", "[workspace.dependencies]\nb = \"1.0.0\"\n");
        assert_eq!(bad.len(), 2, "{bad:?}");
        assert_eq!(found("Cargo.toml", "[workspace.dependencies.b]\nversion = \"=1.0.0\"\n").len(), 1);
    }

    #[test]
    fn members_refer_to_the_root() {
        let lints = "[lints]\nworkspace = true\n";
        let good = "[dependencies]\na = { workspace = true, features = [\"x\"] }\nb.workspace = true\n";
        assert_eq!(found("a/Cargo.toml", &format!("{good}{lints}")), []);
        let bad = format!("[dev-dependencies]\na = \"=1.0.0\"\n[dependencies.b]\nworkspace = true\n{lints}");
        let lines: Vec<_> = found("a/Cargo.toml", &bad).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn members_take_the_lints() {
        assert_eq!(found("a/Cargo.toml", "[package]\nname = \"a\"\n").len(), 1);
        assert_eq!(found("a/Cargo.toml", "lints.workspace = true\n"), []);
        let denied = "[lints.rust]\nunsafe_code = \"deny\"\n";
        assert_eq!(found(WITH_UNSAFE, denied), []);
        assert_eq!(found(WITH_UNSAFE, "[package]\nname = \"a\"\n").len(), 1);
        assert_eq!(found("a/Cargo.toml", denied).len(), 1);
    }

    #[test]
    fn a_workspace_of_its_own_pins_by_itself() {
        let good = "[workspace]\n[dependencies]\na = \"=1.0.0\"\nb = { path = \"../b\" }\n";
        assert_eq!(found("fuzz/Cargo.toml", good), []);
        assert_eq!(found("fuzz/Cargo.toml", "[workspace]\n[dependencies]\na = \"1\"\n").len(), 1);
    }
}
