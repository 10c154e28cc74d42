//! The committed document is what the code says.

#[test]
fn docs_saga_md_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/saga.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == saga::documentation(),
        "docs/saga.md is not current; run `cargo run -p saga --example docs`"
    );
}

#[test]
fn every_public_state_is_in_the_diagram_and_every_non_final_one_has_a_way_out() {
    let diagram = saga::mermaid();
    for state in schemas::OrderState::ALL {
        if state != schemas::OrderState::Accepted {
            assert!(diagram.contains(&format!(" {} --> ", state.as_str())), "{state:?} has no way out");
            assert!(diagram.contains(&format!("--> {}", state.as_str())), "{state:?} is never reached");
        }
    }
}
