//! Functions that fit on a screen. clippy counts their lines; this sees to it that clippy is not told to look away.

use crate::{
    finding::Finding,
    repo::Repo,
    source::{Source, is_test_file},
};

/// Finds exceptions from clippy's limit, and a limit that is not ours.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !repo.file(CONFIGURATION).is_some_and(|file| file.text.lines().any(|line| line.trim() == THRESHOLD)) {
        let what = format!("the line `{THRESHOLD}` is missing");
        findings.push(Finding::failure(CONFIGURATION, 1, what, "restore it; the limit is in CONTRIBUTING.md"));
    }
    for file in repo.files_ending(".rs").filter(|file| !is_test_file(&file.path)) {
        for (number, line) in Source::parse(&file.text).production {
            if line.contains(LINT) {
                let mend =
                    "remove the exception and split the function: the parent holds the branches, the leaves work";
                findings.push(Finding::failure(&file.path, number, "a function is let off its length", mend));
            }
        }
    }
    findings
}

const CONFIGURATION: &str = "clippy.toml";
const THRESHOLD: &str = "too-many-lines-threshold = 70";
/// As it stands in `allow(…)` and `expect(…)`, alone or among others.
const LINT: &str = concat!("clippy::", "too_many_lines");

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_found(path: &str, text: &str) -> Vec<usize> {
        let repo = Repo::with_files(&[(CONFIGURATION, THRESHOLD), (path, text)]);
        check(&repo).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn an_exception_is_found_in_production_code_only() {
        let allowed = format!("\n#[allow({LINT})]\nfn a() {{}}\n");
        assert_eq!(lines_found("a/src/b.rs", &allowed), [2]);
        assert_eq!(lines_found("a/src/b.rs", &format!("#[expect(\n    dead_code,\n    {LINT},\n)]")), [3]);
        assert_eq!(lines_found("a/tests/b.rs", &allowed), [0; 0]);
        assert_eq!(lines_found("a/src/b.rs", &format!("#[cfg(test)]\nmod tests {{{allowed}}}\n")), [0; 0]);
    }

    #[test]
    fn another_threshold_is_found() {
        let repo = Repo::with_files(&[(CONFIGURATION, "too-many-lines-threshold = 700\n")]);
        assert_eq!(check(&repo).len(), 1);
    }
}
