//! Settings: a file, then the environment.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Why settings can't be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can't be read.
    #[error("settings file {path} can't be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("settings file {path} is not valid TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A variable names a value below another variable's.
    #[error("environment variable {0} does not fit beside the others")]
    Environment(String),
    /// A name is unknown, a value is missing or has the wrong type.
    #[error("settings are wrong")]
    Content(#[source] toml::de::Error),
}

/// Reads settings from `file`, if given, and over it from variables `PREFIX__FIELD` and `PREFIX__FIELD__SUBFIELD`.
/// A variable's text is taken as a number or a boolean if it is one; put it in double quotes to keep it text.
///
/// # Errors
/// See [`SettingsError`].
pub fn load_settings<T: DeserializeOwned>(file: Option<&Path>, prefix: &str) -> Result<T, SettingsError> {
    let mut table = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
            text.parse::<Table>().map_err(|source| SettingsError::Syntax { path: path.to_owned(), source })?
        }
        None => Table::new(),
    };
    let start = format!("{prefix}__");
    for (name, text) in std::env::vars() {
        if let Some(path) = name.strip_prefix(&start) {
            let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            insert(&mut table, &path, scalar(&text)).ok_or(SettingsError::Environment(name))?;
        }
    }
    Value::Table(table).try_into().map_err(SettingsError::Content)
}

fn insert(table: &mut Table, path: &[String], value: Value) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return Some(());
    }
    let below = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    insert(below.as_table_mut()?, rest, value)
}

fn scalar(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match parsed {
        Some(
            value @ (Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::String(_)
            | Value::Array(_)),
        ) => value,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_numbers_booleans_or_text() {
        assert_eq!(scalar("5"), Value::Integer(5));
        assert_eq!(scalar("true"), Value::Boolean(true));
        assert_eq!(scalar("127.0.0.1:9092"), Value::String("127.0.0.1:9092".into()));
        assert_eq!(scalar("\"5\""), Value::String("5".into()));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            #[expect(dead_code, reason = "only its name matters")]
            known: Option<u8>,
        }
        let file = std::env::temp_dir().join(format!("firstcome-settings-{}.toml", std::process::id()));
        std::fs::write(&file, "unknown = 1\n").unwrap();
        let loaded = load_settings::<Settings>(Some(&file), "NO_SUCH_PREFIX");
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(loaded, Err(SettingsError::Content(_))), "{loaded:?}");
    }
}
