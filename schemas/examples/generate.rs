//! Writes `schemas/generated/` and `docs/topics.md`; run by `make schemas`.
#![expect(clippy::expect_used, reason = "a tool for developers: a failure ends it")]

use std::path::Path;

fn main() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = package.join("generated");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for (name, content) in schemas::generate::files() {
        std::fs::write(folder.join(name), content).expect("the file can be written");
    }
    std::fs::write(package.join("../docs/topics.md"), schemas::generate::topics_page())
        .expect("the file can be written");
}
