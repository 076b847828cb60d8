//! Files that one can read in one go: production lines per file, and lines per inline test module.

use crate::{
    finding::Finding,
    repo::{File, Repo},
    source::{Source, is_test_file},
};

/// Judges every Rust file's size.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    repo.files_ending(".rs").flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let source = Source::parse(&file.text);
    let mut findings = Vec::new();
    if is_test_file(&file.path) {
        let lines = file.text.lines().count();
        if lines > TEST_FILE_LIMIT {
            let what = format!("{lines} lines of tests, the limit is {TEST_FILE_LIMIT}");
            findings.push(Finding::failure(&file.path, 1, what, "split it by subject"));
        }
    } else {
        findings.extend(check_production(&file.path, source.production.len()));
    }
    for module in source.test_modules.iter().filter(|module| module.length > INLINE_TESTS_LIMIT) {
        let what = format!("an inline test module of {} lines, the limit is {INLINE_TESTS_LIMIT}", module.length);
        findings.push(Finding::failure(&file.path, module.line, what, "move it to its own tests.rs"));
    }
    findings
}

fn check_production(path: &str, lines: usize) -> Option<Finding> {
    const MEND: &str = "move one type, or one concern, to a file of its own";
    if lines > FILE_LIMIT {
        Some(Finding::failure(path, 1, format!("{lines} production lines, the limit is {FILE_LIMIT}"), MEND))
    } else if lines > FILE_GOAL {
        Some(Finding::warning(path, 1, format!("{lines} production lines, the goal is {FILE_GOAL}"), MEND))
    } else {
        None
    }
}

/// Production lines that a file should stay below, and may not exceed.
const FILE_GOAL: usize = 400;
const FILE_LIMIT: usize = 800;
/// Lines of a file that is all test.
const TEST_FILE_LIMIT: usize = 1200;
/// Lines of a test module beside what it tests.
const INLINE_TESTS_LIMIT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity::{self, Failure, Warning};

    fn severities(path: &str, text: &str) -> Vec<Severity> {
        check(&Repo::with_files(&[(path, text)])).iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn production_files_are_warned_about_above_400_lines_and_refused_above_800() {
        assert_eq!(severities("a/src/b.rs", &"x\n".repeat(400)), []);
        assert_eq!(severities("a/src/b.rs", &"x\n".repeat(401)), [Warning]);
        assert_eq!(severities("a/src/b.rs", &"x\n".repeat(800)), [Warning]);
        assert_eq!(severities("a/src/b.rs", &"x\n".repeat(801)), [Failure]);
    }

    #[test]
    fn test_files_are_refused_above_1200_lines() {
        assert_eq!(severities("a/src/b/tests.rs", &"x\n".repeat(1200)), []);
        assert_eq!(severities("a/src/b/tests.rs", &"x\n".repeat(1201)), [Failure]);
    }

    #[test]
    fn inline_test_modules_are_refused_above_200_lines_and_are_not_production() {
        let with_tests = |lines: usize| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    x\n".repeat(lines - 3));
        assert_eq!(severities("a/src/b.rs", &("x\n".repeat(300) + &with_tests(200))), []);
        assert_eq!(severities("a/src/b.rs", &with_tests(201)), [Failure]);
    }
}
