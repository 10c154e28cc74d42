//! Writes `docs/saga.md`: `cargo run -p saga --example docs`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/saga.md");
    std::fs::write(path, saga::documentation())
}
