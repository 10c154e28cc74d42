//! `graph`: Mermaid.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::Graph;
use crate::failure::{Failure, Verdict};
use crate::servers::Servers;
use crate::show;
use crate::terminal::{Terminal, plain, span};

#[derive(Serialize)]
struct Drawn {
    mermaid: String,
}

pub(crate) async fn run(servers: &Servers, options: &Graph, terminal: &Terminal) -> Result<Verdict, Failure> {
    let mermaid = match options.order {
        None => saga::mermaid(),
        Some(order) => {
            let (present, history, _reader) = show::find(servers, order).await?;
            path(&show::timeline(&present, &history), present.saga.is_final())
        }
    };
    if terminal.json {
        terminal.json(&Drawn { mermaid })?;
    } else {
        terminal.line(mermaid.trim_end());
    }
    Ok(Verdict::Fine)
}

/// The states an order went through, each arrow with the input behind it and how long the state before it lasted.
fn path(timeline: &[show::TimelineEntry], is_final: bool) -> String {
    let mut out = String::from("stateDiagram-v2\n");
    let mut before: Option<(&'static str, domain_types::Timestamp)> = None;
    for entry in timeline {
        let state = entry.state.as_str();
        match before {
            None => {
                let _ = writeln!(out, "    [*] --> {state}: {}", plain(&entry.rule));
            }
            Some((from, since)) if from != state => {
                let lasted = span(entry.at.since(since));
                let _ = writeln!(out, "    {from} --> {state}: {} after {lasted}", plain(&entry.rule));
            }
            Some(_) => continue,
        }
        before = Some((state, entry.at));
    }
    if let (true, Some((state, _))) = (is_final, before) {
        let _ = writeln!(out, "    {state} --> [*]");
    }
    out
}
