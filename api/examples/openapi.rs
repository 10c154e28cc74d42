//! Writes `docs/openapi.json`: `cargo run -p api --example openapi`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    std::fs::write(&file, api::openapi_json()? + "\n")?;
    println!("wrote {}", file.display());
    Ok(())
}
