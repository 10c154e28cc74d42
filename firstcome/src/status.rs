//! `firstcome status`.

use std::process::ExitCode;

use local_stack::{Part, Stack, probe};
use serde::Serialize;

use crate::cli::Status;
use crate::client;
use crate::endpoints::Endpoints;
use crate::home::Home;

#[derive(Serialize)]
struct Report {
    running: bool,
    ready: bool,
    pid: Option<u32>,
    parts: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    address: String,
    pid: Option<u32>,
    ready: bool,
    missing: Option<String>,
}

/// Exit code 0 if everything is ready, else 1.
pub(crate) async fn run(options: &Status) -> anyhow::Result<ExitCode> {
    let home = options.data_dir.home();
    let report = look(&home).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report, &home);
    }
    Ok(if report.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(home: &Home) -> anyhow::Result<Report> {
    let Some(pid) = home.owner() else {
        return Ok(Report { running: false, ready: false, pid: None, parts: Vec::new() });
    };
    let Ok(endpoints) = Endpoints::read(home) else {
        return Ok(Report { running: true, ready: false, pid: Some(pid), parts: Vec::new() });
    };
    let mut parts = Vec::new();
    for part in Part::ALL {
        let address = match part {
            Part::Kafka => endpoints.kafka.clone(),
            Part::Postgres => endpoints.postgres.values().flatten().next().cloned().unwrap_or_default(),
            Part::Redis => endpoints.redis.clone(),
        };
        let missing = probe(part, &address, &endpoints.kafka_security).await.err();
        let shown = address.rsplit_once('@').map_or(address.as_str(), |(_, host)| host);
        let shown = shown.split('/').rfind(|piece| !piece.is_empty() && piece.contains(':')).unwrap_or(shown);
        parts.push(Line {
            name: part.to_string(),
            address: shown.to_owned(),
            pid: Stack::pid_in(home.dir(), part),
            ready: missing.is_none(),
            missing,
        });
    }
    let client = client::new()?;
    for (name, metrics) in &endpoints.metrics {
        let missing = client::ready(&client, metrics).await.err();
        parts.push(Line {
            name: name.clone(),
            address: metrics.clone(),
            pid: home.service_pid(name).alive(),
            ready: missing.is_none(),
            missing,
        });
    }
    let ready = home.ready().alive() == Some(pid) && parts.iter().all(|part| part.ready);
    Ok(Report { running: true, ready, pid: Some(pid), parts })
}

fn print(report: &Report, home: &Home) {
    let Some(pid) = report.pid else {
        println!("nothing is running in {}", home.dir().display());
        return;
    };
    if report.parts.is_empty() {
        println!("process {pid} is starting; its words are in {}", home.log("up").display());
        return;
    }
    println!("process {pid}, data in {}", home.dir().display());
    for part in &report.parts {
        let state = part.missing.as_deref().unwrap_or("ready");
        let own_pid = part.pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
        println!("  {:<22} {:<36} {:<12} {state}", part.name, part.address, own_pid);
    }
}
