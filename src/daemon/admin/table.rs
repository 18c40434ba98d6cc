//! Replies for people: aligned columns, and pairs of names and values.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// A column: its title, and where its values are in a record (as `/PerSecondEventRate/Max`).
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) pointer: &'static str,
}

/// Short for the tables' definitions.
pub(super) const fn column(title: &'static str, pointer: &'static str) -> Column {
    Column { title, pointer }
}

/// A row for each record. Columns that no record fills are left out.
pub(super) fn records(columns: &[Column], records: &[Value]) -> String {
    let filled =
        |column: &&Column| records.iter().any(|record| !cell(record, column.pointer).is_empty());
    let columns: Vec<&Column> = columns.iter().filter(filled).collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.title));
    for record in records {
        table.add_row(columns.iter().map(|column| cell(record, column.pointer)));
    }
    for (index, column) in columns.iter().enumerate() {
        let numbers = records
            .iter()
            .filter_map(|record| record.pointer(column.pointer))
            .all(|value| value.is_number() || value.is_null());
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if numbers {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

/// A line for each field of an object; objects in it with their path.
pub(super) fn fields(value: &Value) -> String {
    let mut lines = Vec::new();
    collect("", value, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line =
        |(name, text): &(String, String)| format!("{name:width$}  {text}").trim_end().to_owned();
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn collect(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    let below = |name: &str| {
        if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                collect(&below(name), value, lines);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                collect(&below(&index.to_string()), item, lines);
            }
        }
        value => lines.push((path.to_owned(), plain(value))),
    }
}

fn cell(record: &Value, pointer: &str) -> String {
    record.pointer(pointer).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        // What a host says of itself must not move the cursor of a terminal.
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

/// To standard output. Who closes the pipe has read enough.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_stand_in_columns() {
        let columns = [column("HOST", "/Host"), column("SEQ", "/Rate/Max"), column("WHY", "/Why")];
        let rows = [
            json!({ "Host": "a.example", "Rate": { "Max": 5 } }),
            json!({ "Host": "b", "Rate": { "Max": 1234 }, "Why": null }),
        ];
        let lines: Vec<String> = records(&columns, &rows).lines().map(str::to_owned).collect();
        assert_eq!(lines, ["HOST        SEQ", "a.example     5", "b          1234"]);
    }

    #[test]
    fn fields_stand_on_lines_with_their_paths() {
        let value =
            json!({ "a": { "b": true, "c": [1, 2] }, "d": [{ "e": "x\u{1b}y" }], "f": null });
        assert_eq!(fields(&value), "a.b    yes\na.c    1, 2\nd.0.e  x y\nf");
    }
}
