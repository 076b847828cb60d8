//! A Rust file, taken apart into what goes into the program and what tests it.

/// A Rust file's two parts.
pub(crate) struct Source<'a> {
    /// The lines outside test modules, with their numbers from 1.
    pub(crate) production: Vec<(usize, &'a str)>,
    /// The test modules that stand in the file itself.
    pub(crate) test_modules: Vec<TestModule>,
}

/// A `#[cfg(test)] mod … { … }`.
pub(crate) struct TestModule {
    /// The number of its first line, from 1.
    pub(crate) line: usize,
    /// How many lines it has, from its attribute to its brace.
    pub(crate) length: usize,
}

impl<'a> Source<'a> {
    /// Takes `text` apart. A test module ends at the brace below its first line's column, as rustfmt puts it.
    pub(crate) fn parse(text: &'a str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut source = Self { production: Vec::new(), test_modules: Vec::new() };
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            match test_module_length(&lines[at..]) {
                None => {
                    source.production.push((at + 1, line));
                    at += 1;
                }
                Some((length, is_inline)) => {
                    if is_inline {
                        source.test_modules.push(TestModule { line: at + 1, length });
                    }
                    at += length;
                }
            }
        }
        source
    }
}

/// Whether the file at `path` is all test: its size is judged more mildly.
pub(crate) fn is_test_file(path: &str) -> bool {
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    name == "tests.rs"
        || name.ends_with("_tests.rs")
        || directories.split('/').any(|directory| directory == "tests" || directory == "benches")
}

/// If a test module begins at the first of `lines`: how many lines it has, and whether they stand here (`{`) or in a
/// file of their own (`;`).
fn test_module_length(lines: &[&str]) -> Option<(usize, bool)> {
    let first = lines.first()?;
    let attribute = first.trim_start();
    if !attribute.starts_with("#[cfg(test)]") && !attribute.starts_with("#[cfg(all(test,") {
        return None;
    }
    let item = lines.iter().position(|line| !line.trim_start().starts_with("#["))?;
    let declaration = lines[item].trim();
    if !declaration.split_whitespace().take(2).any(|word| word == "mod") {
        return None;
    }
    if declaration.ends_with(';') {
        return Some((item + 1, false));
    }
    let indentation = &first[..first.len() - attribute.len()];
    let is_end = |line: &&str| line.strip_prefix(indentation) == Some("}");
    let end = lines[item..].iter().position(is_end).map_or(lines.len(), |offset| item + offset + 1);
    Some((end, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_is_not_production_and_what_follows_it_is() {
        let source = Source::parse("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n");
        assert_eq!(source.production, [(1, "fn a() {}"), (7, "fn c() {}")]);
        assert_eq!(source.test_modules.len(), 1);
        assert_eq!((source.test_modules[0].line, source.test_modules[0].length), (2, 5));
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_counts_nowhere() {
        let source = Source::parse("#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests;\nfn a() {}\n");
        assert_eq!(source.production, [(4, "fn a() {}")]);
        assert!(source.test_modules.is_empty());
    }

    #[test]
    fn a_function_that_only_tests_call_is_production() {
        let source = Source::parse("    #[cfg(test)]\n    pub(crate) fn a() {}\n");
        assert_eq!(source.production.len(), 2);
    }

    #[test]
    fn test_files_are_known_by_their_name_or_their_directory() {
        for path in ["tests/src/lib.rs", "a/tests/b.rs", "benches/src/x.rs", "a/src/map/tests.rs", "a/src/map_tests.rs"]
        {
            assert!(is_test_file(path), "{path}");
        }
        for path in ["a/src/lib.rs", "a/src/contests.rs", "a/src/test.rs"] {
            assert!(!is_test_file(path), "{path}");
        }
    }
}
