//! Tables, written as Markdown that can be read as it is.

use std::fmt;

/// Rows under a head; the first column is text, the others are figures.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    columns: usize,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()], columns: N }
    }

    /// A row; missing cells are empty, and those too many are left out.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A bar would end the cell.
        let mut row: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
        row.resize(self.columns, String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default().max(3)
        };
        let widths: Vec<usize> = (0..self.columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "| {cell:<width$} ")?,
                    _ => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let line = "-".repeat(width + 1);
                    write!(f, "{}", if column == 0 { format!("|{line}-") } else { format!("|{line}:") })?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// Milliseconds as they stand in a table.
pub(crate) fn ms(millis: f64) -> String {
    if millis < 1.0 { format!("{millis:.3}") } else { format!("{millis:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_figures_on_the_right() {
        let mut table = Table::new(["load", "p50"]);
        table.row(["a|b".to_owned(), ms(12.34)]);
        table.row(["short".to_owned()]);
        let expected = "| load  |  p50 |\n|-------|-----:|\n| a\\|b  | 12.3 |\n| short |      |\n";
        assert_eq!(table.to_string(), expected);
        assert_eq!(ms(0.0894), "0.089");
    }
}
