//! Every file says at its top what it is for.

use crate::{
    finding::Finding,
    repo::{File, Repo},
};

/// Finds Rust files below a `src`, and crate roots anywhere, that do not open with a `//!` comment.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    repo.files_ending(".rs").filter(|file| needs_header(&file.path) && !has_header(file)).map(finding).collect()
}

fn needs_header(path: &str) -> bool {
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    name == "lib.rs" || name == "main.rs" || directories.split('/').any(|directory| directory == "src")
}

fn has_header(file: &File) -> bool {
    let first = file.text.lines().find(|line| !line.trim().is_empty());
    first.is_some_and(|line| line.starts_with("//!"))
}

fn finding(file: &File) -> Finding {
    let mend = "say in its first lines what it is for; a crate root also has the module map and what it is not";
    Finding::failure(&file.path, 1, "the file does not open with a `//!` comment", mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_crate_roots_need_a_header() {
        let repo = Repo::with_files(&[
            ("a/src/lib.rs", "//! Good.\n"),
            ("a/src/b/c.rs", "\n//! Good.\n"),
            ("a/src/d.rs", "use x;\n//! Late.\n"),
            ("a/src/e.rs", ""),
            ("a/examples/main.rs", "fn main() {}\n"),
            ("a/build.rs", "fn main() {}\n"),
        ]);
        let paths: Vec<_> = check(&repo).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["a/src/d.rs", "a/src/e.rs", "a/examples/main.rs"]);
    }
}
