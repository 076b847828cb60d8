//! Paths of one developer's machine, which mean nothing on another.

use crate::{finding::Finding, repo::Repo};

/// Finds them in every text file.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &repo.files {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(prefix) = PREFIXES.iter().find(|prefix| names_path_under(line, prefix)) {
                let mend = "use a path relative to the repository, or $STERNA_CACHE";
                findings.push(Finding::failure(&file.path, number, format!("a machine's path, `{prefix}…`"), mend));
            }
        }
    }
    findings
}

/// Whether an absolute path in `line` starts with `prefix`. One that goes on from a name, a variable or a dot does not.
fn names_path_under(line: &str, prefix: &str) -> bool {
    let goes_on = |character: char| character.is_alphanumeric() || "_-.~})*/".contains(character);
    line.match_indices(prefix).any(|(at, _)| !line[..at].ends_with(goes_on))
}

/// Put together here, so that this file does not find itself.
const PREFIXES: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_found_and_relative_ones_are_not() {
        for prefix in PREFIXES {
            for line in [format!("cd {prefix}x"), format!("\"{prefix}x\""), prefix.to_owned(), format!("A={prefix}x")] {
                assert_eq!(check(&Repo::with_files(&[("a", &line)])).len(), 1, "{line}");
            }
            for line in
                [format!("target{prefix}x"), format!("$DIR{prefix}x"), format!(".{prefix}x"), "/workspace/".into()]
            {
                assert_eq!(check(&Repo::with_files(&[("a", &line)])).len(), 0, "{line}");
            }
        }
    }
}
