//! Links in the documentation: every relative one leads to a file of this repository.

use crate::{
    finding::Finding,
    repo::{File, Repo},
};

/// Checks every Markdown file.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    repo.files_ending(".md").flat_map(|file| check_file(repo, file)).collect()
}

fn check_file(repo: &Repo, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_code = false;
    for (number, line) in (1..).zip(file.text.lines()) {
        if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
            is_code = !is_code;
        } else if !is_code {
            let dead = targets(line).into_iter().filter(|target| !leads_somewhere(repo, &file.path, target));
            findings.extend(dead.map(|target| {
                let what = format!("the link to `{target}` leads nowhere");
                Finding::failure(&file.path, number, what, "correct it, or remove it")
            }));
        }
    }
    findings
}

/// Where a line's links lead: `[text](target)`, `![image](target)` and `[name]: target`.
fn targets(line: &str) -> Vec<String> {
    let line = without_code(line);
    let mut targets: Vec<String> = line.split("](").skip(1).map(inline_target).collect();
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(target.to_owned());
    }
    let without_title = |target: &String| target.split_whitespace().next().unwrap_or_default().to_owned();
    targets.iter().map(without_title).map(|target| target.trim_matches(['<', '>']).to_owned()).collect()
}

/// What comes before the parenthesis that closes the link; a target may hold pairs of them.
fn inline_target(rest: &str) -> String {
    let mut depth = 0;
    let before_end = |character: &char| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth >= 0
    };
    rest.chars().take_while(before_end).collect()
}

/// Every second piece between backticks is code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn leads_somewhere(repo: &Repo, from: &str, target: &str) -> bool {
    let path = target.split(['#', '?']).next().unwrap_or_default();
    let has_scheme = target.contains("://") || target.starts_with("mailto:");
    has_scheme || path.is_empty() || resolve(from, path).is_some_and(|path| repo.contains(&path))
}

/// The path that `target` means in the file `from`; `None` if it leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let (mut parts, target): (Vec<&str>, &str) = match target.strip_prefix('/') {
        Some(from_root) => (Vec::new(), from_root),
        None => (from.split('/').collect(), target),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &str) -> usize {
        check(&Repo::with_files(&[("README.md", ""), ("docs/b(c).md", ""), ("docs/a.md", text)])).len()
    }

    #[test]
    fn links_to_files_directories_and_other_sites_are_good() {
        let text = "[a](../README.md) [b](b(c).md#part) ![c](./../docs/) [d](https://example.org/x) [e](#here)\n\
                    [f]: ../README.md \"title\"\n[g](/README.md) [h](<a.md>) [i](mailto:a@example.org)\n";
        assert_eq!(dead(text), 0);
    }

    #[test]
    fn links_to_nothing_are_found() {
        for text in ["[a](README.md)", "x [a](a.md) [b](c.md)", "[a]: c.md", "[a](../../README.md)", "[a](../READ)"] {
            assert_eq!(dead(text), 1, "{text}");
        }
    }

    #[test]
    fn code_is_not_read() {
        assert_eq!(dead("```\n[a](no.md)\n```\n`[a](no.md)`\n"), 0);
        assert_eq!(dead("```\n```\n[a](no.md)\n"), 1);
    }
}
