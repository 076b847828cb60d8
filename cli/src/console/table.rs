//! Text in aligned columns.

use std::fmt;

/// A table for people, with a header. A column is aligned to the right where its header begins with `>`.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: impl Into<Vec<&'static str>>) -> Self {
        Self { header: header.into(), rows: Vec::new() }
    }

    /// Whether it has a header only.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One more row, as wide as the header.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.header.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles: Vec<&str> = self.header.iter().map(|title| title.trim_start_matches('>')).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..titles.len()).map(width).collect();
        let line = |cells: &[&str]| {
            let mut text = String::new();
            for ((cell, &width), title) in cells.iter().zip(&widths).zip(&self.header) {
                let cell = if title.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                text.push_str(&cell);
                text.push_str(GAP);
            }
            text.trim_end().to_owned()
        };
        f.write_str(&line(&titles))?;
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            write!(f, "\n{}", line(&cells))?;
        }
        Ok(())
    }
}

/// What is known about one thing, a line for each: names in front, values aligned.
pub(crate) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub(crate) fn new(facts: impl Into<Vec<(&'static str, String)>>) -> Self {
        Self(facts.into())
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let lines: Vec<String> = self.0.iter().map(|(name, value)| format!("{name:<width$}{GAP}{value}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Between two columns.
const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", ">SIZE", "STATE"]);
        table.row(["web-1".to_owned(), "20 GiB".to_owned(), "ready".to_owned()]);
        table.row(["b".to_owned(), "4 KiB".to_owned(), "importing".to_owned()]);
        assert_eq!(table.to_string(), "NAME     SIZE  STATE\nweb-1  20 GiB  ready\nb       4 KiB  importing");
        assert_eq!(Table::new(["NAME", "STATE"]).to_string(), "NAME  STATE");
    }

    #[test]
    fn facts_are_aligned() {
        let facts = Facts::new([("size", "1 GiB".to_owned()), ("durability", "local".to_owned())]);
        assert_eq!(facts.to_string(), "size        1 GiB\ndurability  local");
    }
}
