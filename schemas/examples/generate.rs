//! Writes `schemas/generated/`; run by `make schemas`.
#![expect(clippy::expect_used, reason = "a tool for developers: a failure ends it")]

use std::path::Path;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for (name, content) in schemas::generate::files() {
        std::fs::write(folder.join(name), content).expect("the file can be written");
    }
}
