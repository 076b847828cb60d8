//! The NBD contract names, for each thing that it promises, the tests that hold it to it. Here: they exist.

use std::collections::BTreeSet;

use crate::{
    finding::Finding,
    repo::{File, Repo},
};

/// Checks the tables of `docs/nbd.md` whose last column is headed by something with "test" in it.
pub(crate) fn check(repo: &Repo) -> Vec<Finding> {
    let Some(contract) = repo.file(CONTRACT) else { return Vec::new() };
    let functions = functions(repo);
    let rows = rows(contract);
    if rows.is_empty() {
        let mend = "head the last column of the contract's table \"Tests\"";
        return vec![Finding::failure(CONTRACT, 1, "there is no table whose last column names tests", mend)];
    }
    rows.iter().flat_map(|(line, cell)| check_row(*line, cell, &functions)).collect()
}

fn check_row(line: usize, cell: &str, functions: &BTreeSet<&str>) -> Vec<Finding> {
    let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        let mend = "write one, and name it in backticks in the last column";
        return vec![Finding::failure(CONTRACT, line, "no test is named for this row", mend)];
    }
    let function = |name: &str| name.rsplit("::").next().unwrap_or_default().trim_end_matches("()").to_owned();
    let missing = names.into_iter().filter(|name| !functions.contains(function(name).as_str()));
    let mend = "correct the name, or write the test";
    missing.map(|name| Finding::failure(CONTRACT, line, format!("there is no test `{name}`"), mend)).collect()
}

/// The last cell of every row that should name tests, with its line number.
fn rows(contract: &File) -> Vec<(usize, String)> {
    let mut rows = Vec::new();
    // Of the table that the line belongs to: whether its last column names tests.
    let mut names_tests = None;
    for (line, text) in (1..).zip(contract.text.lines()) {
        match (last_cell(text), names_tests) {
            (None, _) => names_tests = None,
            (Some(header), None) => names_tests = Some(header.to_lowercase().contains("test")),
            (Some(cell), Some(true)) if !is_rule(&cell) => rows.push((line, cell)),
            (Some(_), Some(_)) => {}
        }
    }
    rows
}

/// The last cell of a table's line; an escaped `\|` does not end one.
fn last_cell(line: &str) -> Option<String> {
    let row = line.trim().strip_prefix('|')?.replace("\\|", "\u{0}");
    let row = row.strip_suffix('|').unwrap_or(&row);
    row.rsplit('|').next().map(|cell| cell.trim().to_owned())
}

/// The line between a table's header and its rows.
fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|character| character == '-' || character == ':')
}

/// The names of all functions in Rust and Python.
fn functions(repo: &Repo) -> BTreeSet<&str> {
    let rust = repo.files_ending(".rs").flat_map(|file| names_after(file, "fn "));
    rust.chain(repo.files_ending(".py").flat_map(|file| names_after(file, "def "))).collect()
}

fn names_after<'a>(file: &'a File, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    file.text.split(keyword).skip(1).filter_map(move |rest| rest.split(|character| !is_part(character)).next())
}

const CONTRACT: &str = "docs/nbd.md";

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "| Promise | Tests |\n|---|:--|\n";

    fn found(table: &str) -> Vec<(usize, String)> {
        let repo = Repo::with_files(&[
            (CONTRACT, table),
            ("a/src/b.rs", "fn is_fixed() {}\nasync fn a::<T>() {}\n"),
            ("a/c.py", "def test_it():\n"),
        ]);
        check(&repo).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn tests_that_exist_in_rust_or_python_are_good() {
        assert_eq!(found(&format!("{HEADER}| a \\| b | `is_fixed`, `test_it` |\n| c | `b::is_fixed` |\n")), []);
    }

    #[test]
    fn a_test_that_does_not_exist_is_found_in_its_row() {
        let findings = found(&format!("{HEADER}| a | `is_fixed` |\n| b | `is_fixe` `is_fixed` |\n"));
        assert_eq!(findings, [(4, "there is no test `is_fixe`".to_owned())]);
    }

    #[test]
    fn a_row_without_a_test_is_found() {
        assert_eq!(found(&format!("{HEADER}| `is_fixed` | by hand |\n"))[0].0, 3);
        assert_eq!(found(&format!("{HEADER}| `is_fixed` | |\n"))[0].0, 3);
    }

    #[test]
    fn other_tables_are_not_read_but_one_must_name_tests() {
        let other = "| Error | Number |\n|---|---|\n| EIO | 5 |\n\n";
        assert_eq!(found(&format!("{other}{HEADER}| a | `is_fixed` |\n")), []);
        assert_eq!(found(other).len(), 1);
    }

    #[test]
    fn nothing_is_said_while_there_is_no_contract() {
        assert!(check(&Repo::with_files(&[])).is_empty());
    }
}
