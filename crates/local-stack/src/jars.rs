//! Kafka's jars: from `KAFKA_HOME`, or fetched once by Maven from `kafka/pom.xml`, which pins the version.

use std::fs;
use std::path::{Path, PathBuf};

use crate::child::GuardedCommand;
use crate::{Part, Progress, StackError};

/// A class path that starts the broker.
pub(crate) async fn class_path(progress: &Progress) -> Result<String, StackError> {
    if let Some(home) = std::env::var_os("KAFKA_HOME").filter(|home| !home.is_empty()) {
        let libs = Path::new(&home).join("libs");
        if !libs.is_dir() {
            return Err(StackError::BinaryMissing {
                program: libs.display().to_string(),
                hint: "KAFKA_HOME must name an unpacked Kafka 4 distribution",
            });
        }
        return Ok(format!("{}/*", libs.display()));
    }
    let folder = pom_folder()?;
    let pom = folder.join("pom.xml");
    let text = fs::read_to_string(&pom).map_err(StackError::io("read", &pom))?;
    let version = version(&text).unwrap_or("unknown");
    // Named after the pom's content too, so that a changed pom fetches again.
    let jars = folder.join("target").join(format!("kafka-{version}-{:x}", checksum(&text)));
    if !jars.is_dir() {
        progress(Part::Kafka, &format!("fetching Kafka {version} with Maven (once)"));
        fetch(&pom, &jars).await?;
    }
    Ok(format!("{}/*", jars.display()))
}

/// The folder with `pom.xml`: the one named by `FIRSTCOME_KAFKA_POM`, or `kafka/` in or above the working folder or the program's own, or that of the
/// sources this was built from.
fn pom_folder() -> Result<PathBuf, StackError> {
    if let Some(pom) = std::env::var_os("FIRSTCOME_KAFKA_POM") {
        return Ok(PathBuf::from(pom).parent().map(Path::to_owned).unwrap_or_default());
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    [std::env::current_dir().ok(), std::env::current_exe().ok(), Some(sources.to_owned())]
        .into_iter()
        .flatten()
        .flat_map(|start| start.ancestors().map(|dir| dir.join("kafka")).collect::<Vec<_>>())
        .find(|dir| dir.join("pom.xml").is_file())
        .ok_or(StackError::BinaryMissing {
            program: "kafka/pom.xml".to_owned(),
            hint: "run inside a checkout, or set KAFKA_HOME to an unpacked Kafka 4 distribution",
        })
}

/// Fetches into a folder of its own, then renames: a download that was interrupted is never taken for a complete one.
async fn fetch(pom: &Path, jars: &Path) -> Result<(), StackError> {
    let beside = |what: &str| PathBuf::from(format!("{}.{what}", jars.display()));
    let partial = beside(&format!("partial-{}", std::process::id()));
    let log = beside("log");
    let missing = StackError::BinaryMissing {
        program: "mvn".to_owned(),
        hint: "install maven, which fetches Kafka's jars, or set KAFKA_HOME to an unpacked Kafka 4 distribution",
    };
    let (status, said) = GuardedCommand::new("mvn", &log)
        .args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"])
        .arg(pom)
        // Named in full, with its version: then nothing else is fetched, and an error names what could not be.
        .args([
            "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .run_to_end()
        .await
        .map_err(StackError::io("run Maven, which logs to", &log))?;
    if status.code() == Some(127) {
        return Err(missing);
    }
    if !status.success() {
        drop(fs::remove_dir_all(&partial));
        let line = said.lines().find(|line| line.contains("ERROR")).unwrap_or("no output");
        return Err(StackError::Command {
            what: "fetching Kafka's jars with Maven",
            status: status.to_string(),
            last_line: line.rsplit("[ERROR] ").next().unwrap_or(line).to_owned(),
        });
    }
    match fs::rename(&partial, jars) {
        Ok(()) => Ok(()),
        // Another process was faster.
        Err(_) if jars.is_dir() => fs::remove_dir_all(&partial).map_err(StackError::io("remove", partial)),
        Err(error) => Err(StackError::io("rename", partial)(error)),
    }
}

fn version(pom: &str) -> Option<&str> {
    pom.split_once("<kafka.version>")?.1.split_once("</kafka.version>").map(|(version, _)| version)
}

/// FNV-1a: only tells one pom from the next.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_read_from_the_pom_that_pins_it() {
        let pom = include_str!("../../../kafka/pom.xml");
        let version = super::version(pom).unwrap();
        assert!(version.starts_with("4."), "{version}");
    }
}
