//! The committed documents are those that the types give.

use std::path::Path;

#[test]
fn the_generated_documents_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated");
    for (name, content) in schemas::generate::files() {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(committed == content, "schemas/generated/{name} is not current: run `make schemas`");
    }
}

#[test]
fn the_page_about_topics_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/topics.md");
    let committed = std::fs::read_to_string(page).unwrap_or_default();
    assert!(
        committed == schemas::generate::topics_page(),
        "docs/topics.md is not current: run `make schemas`"
    );
}
