//! The Java runtime that Kafka needs.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::StackError;

/// What Kafka 4 asks for.
const OLDEST: u32 = 17;

const HINT: &str = "install a Java runtime (default-jre-headless) or set JAVA_HOME";

/// Finds `java` by `JAVA_HOME`, then `PATH`, and checks its version.
pub(crate) async fn find() -> Result<PathBuf, StackError> {
    let java = match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Path::new(&home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let name = java.display().to_string();
    let output = Command::new(&java)
        .arg("-version")
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|_source| StackError::BinaryMissing { program: name.clone(), hint: HINT })?;
    let text = String::from_utf8_lossy(&output.stderr);
    match major_version(&text) {
        Some(version) if version >= OLDEST => Ok(java),
        Some(version) => Err(StackError::WrongJava { java: name, found: format!("version {version}") }),
        None => {
            let found = text.lines().next().unwrap_or("nothing").to_owned();
            Err(StackError::WrongJava { java: name, found })
        }
    }
}

/// `openjdk version "17.0.15" ...` is 17, `java version "1.8.0_402"` is 8.
fn major_version(text: &str) -> Option<u32> {
    let quoted = text.lines().find(|line| line.contains("version"))?.split('"').nth(1)?;
    let mut numbers = quoted.split(['.', '-', '+', '_']);
    let first: u32 = numbers.next()?.parse().ok()?;
    if first == 1 { numbers.next()?.parse().ok() } else { Some(first) }
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn versions_are_read_in_every_spelling() {
        assert_eq!(major_version("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(major_version("java version \"1.8.0_402\""), Some(8));
        assert_eq!(major_version("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(major_version("openjdk version \"22-ea\" 2024"), Some(22));
        assert_eq!(
            major_version("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"11.0.2\""),
            Some(11)
        );
        assert_eq!(major_version("no idea"), None);
    }
}
