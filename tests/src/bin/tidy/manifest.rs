//! A `Cargo.toml`, read line by line: enough TOML for the checks, with the line numbers that a real parser drops.

/// A `key = value`.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The table that it stands in, such as `workspace.dependencies`.
    pub(crate) section: String,
    pub(crate) key: String,
    /// As written, without comments; several lines become one.
    pub(crate) value: String,
    /// From 1.
    pub(crate) line: usize,
    /// Whether a comment stands directly above it, or above the group of lines that it belongs to.
    pub(crate) is_explained: bool,
}

impl Entry {
    /// Whether this is a dependency, of whatever kind and for whatever target.
    pub(crate) fn is_dependency(&self) -> bool {
        let table = self.section.rsplit('.').next().unwrap_or_default();
        self.section != "workspace.dependencies" && DEPENDENCY_TABLES.contains(&table)
    }

    /// Whether this belongs to a dependency that has a table of its own (`[dependencies.x]`).
    pub(crate) fn is_in_dependency_of_own_table(&self) -> bool {
        let table = self.section.rsplit('.').nth(1).unwrap_or_default();
        DEPENDENCY_TABLES.contains(&table)
    }

    /// Whether the dependency's version cannot change by itself: `=1.2.3`, or a crate of this repository.
    pub(crate) fn is_exact(&self) -> bool {
        let has_path = self.value.starts_with('{') && self.value.contains("path = \"");
        has_path || self.version().is_some_and(is_exact_version)
    }

    /// Whether the value is taken from the workspace.
    pub(crate) fn is_inherited(&self) -> bool {
        self.value.contains("workspace = true") || (self.key.ends_with(".workspace") && self.value == "true")
    }

    fn version(&self) -> Option<&str> {
        let from_quote = match self.value.strip_prefix('{') {
            Some(table) => table.split_once("version = \"")?.1,
            None => self.value.strip_prefix('"')?,
        };
        from_quote.split_once('"').map(|(version, _)| version)
    }
}

/// All entries of a manifest, in order.
pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut section = String::new();
    let mut is_explained = false;
    let mut is_unfinished = false;
    for (line, full) in (1..).zip(text.lines()) {
        let content = without_comment(full).trim();
        if is_unfinished {
            if let Some(entry) = entries.last_mut() {
                entry.value.push_str(content);
                is_unfinished = open_brackets(&entry.value) > 0;
            }
        } else if content.is_empty() {
            is_explained = full.trim_start().starts_with('#');
        } else if let Some(header) = content.strip_prefix('[') {
            section = header.trim_end_matches(']').trim_matches('[').to_owned();
            is_explained = false;
        } else if let Some((key, value)) = content.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            is_unfinished = open_brackets(&value) > 0;
            entries.push(Entry { section: section.clone(), key, value, line, is_explained });
        }
    }
    entries
}

fn is_exact_version(version: &str) -> bool {
    let numbers = version.strip_prefix('=').unwrap_or_default().trim_start();
    numbers.split('.').count() >= 3 && numbers.starts_with(|character: char| character.is_ascii_digit())
}

fn without_comment(line: &str) -> &str {
    outside_strings(line).find(|&(_, character)| character == '#').map_or(line, |(at, _)| &line[..at])
}

fn open_brackets(value: &str) -> i32 {
    let weight = |(_, character)| match character {
        '[' | '{' => 1,
        ']' | '}' => -1,
        _ => 0,
    };
    outside_strings(value).map(weight).sum()
}

/// The characters of `text` that are in no `"…"`, with their positions. The quotes themselves count as outside.
fn outside_strings(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut is_inside = false;
    text.char_indices().filter(move |&(_, character)| {
        is_inside ^= character == '"';
        !is_inside
    })
}

const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_know_their_section_and_line() {
        let entries = entries("[package]\nname = \"a\" # not \"b\"\n\n[dependencies]\nx = { version = \"=1.2.3\" }\n");
        let found: Vec<_> = entries.iter().map(|e| (e.section.as_str(), e.key.as_str(), e.line)).collect();
        assert_eq!(found, [("package", "name", 2), ("dependencies", "x", 5)]);
        assert_eq!(entries[0].value, "\"a\"");
        assert!(!entries[0].is_dependency() && entries[1].is_dependency());
    }

    #[test]
    fn a_value_may_take_several_lines() {
        let entries = entries("x = [\n    \"a=b\", # why\n    \"c]\",\n]\ny = 1\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].value, "[\"a=b\",\"c]\",]");
        assert_eq!(entries[1].line, 5);
    }

    #[test]
    fn a_comment_explains_the_group_below_it() {
        let entries = entries("# Why.\na = 1\nb = 2\n\nc = 3\n# Why.\n[x]\nd = 4\n");
        let explained: Vec<_> = entries.iter().map(|entry| entry.is_explained).collect();
        assert_eq!(explained, [true, true, false, false]);
    }

    #[test]
    fn exact_versions_have_three_numbers_and_an_equals_sign() {
        let is_exact = |value: &str| entries(&format!("a = {value}"))[0].is_exact();
        for value in ["\"=1.2.3\"", "{ version = \"=1.2.3-rc.1\", features = [] }", "{ path = \"types\" }"] {
            assert!(is_exact(value), "{value}");
        }
        for value in ["\"1.2.3\"", "\"=1.2\"", "\"*\"", "{ version = \"^1.2.3\" }", "{ git = \"x\" }", "\"=\""] {
            assert!(!is_exact(value), "{value}");
        }
    }
}
