//! Notes to oneself, and tests switched off: what was left for later and is easily left for good.

use crate::{finding::Finding, repo::Repo};

/// Finds them in Rust files and in scripts.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|file| is_code(&file.path)) {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(marker) = MARKERS.iter().find(|marker| contains_word(line, marker)) {
                let mend = "do it now, or open an issue and remove the marker";
                findings.push(Finding::failure(&file.path, number, format!("`{marker}` is left in the code"), mend));
            }
            if file.path.ends_with(".rs") && line.contains(IGNORED) {
                let mend = "make the test pass, or remove it; what needs a machine of its own is named `heavy_…`";
                findings.push(Finding::failure(&file.path, number, "a test is switched off", mend));
            }
        }
    }
    findings
}

fn is_code(path: &str) -> bool {
    [".rs", ".sh", ".py"].iter().any(|suffix| path.ends_with(suffix))
        || path.starts_with("scripts/")
        || path.starts_with(".ci/")
}

/// Whether `word` stands in `line` and is not part of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

/// Put together here, so that this file does not find itself.
const MARKERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const IGNORED: &str = concat!("#[", "ignore");

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Repo::with_files(&[(path, text)])).len()
    }

    #[test]
    fn markers_are_found_in_code_and_scripts_but_not_in_prose() {
        for marker in MARKERS {
            assert_eq!(found("a/src/b.rs", &format!("// {marker}: later\n")), 1);
            assert_eq!(found("scripts/b", &format!("# {marker}\n")), 1);
            assert_eq!(found("docs/b.md", &format!("{marker}\n")), 0);
        }
    }

    #[test]
    fn longer_words_are_not_markers() {
        assert_eq!(found("scripts/b", &format!("mktemp build.{0}{0}\n", MARKERS[2])), 0);
        assert_eq!(found("a/src/b.rs", "let mastodon = 1;\n"), 0);
    }

    #[test]
    fn switched_off_tests_are_found() {
        assert_eq!(found("a/src/b.rs", &format!("{IGNORED}]\n{IGNORED} = \"slow\"]\n")), 2);
    }
}
