//! `firstcome down` and `firstcome reset`.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use local_stack::Signal;

use crate::cli::Reset;
use crate::home::Home;

/// Services and servers each have 20 s of their own.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Stops the running system and waits for its end. Nothing running is fine.
pub(crate) async fn down(home: &Home) -> anyhow::Result<ExitCode> {
    let Some(pid) = home.owner() else {
        println!("nothing is running in {}", home.dir().display());
        return Ok(ExitCode::SUCCESS);
    };
    anyhow::ensure!(
        pid != 0,
        "something runs in {}, but does not say which process it is",
        home.dir().display()
    );
    Signal::Terminate.send(pid)?;
    let began = Instant::now();
    let mut killed = false;
    while home.owner() == Some(pid) {
        if began.elapsed() > END_WITHIN && !killed {
            eprintln!("process {pid} did not end within {} s, killing it", END_WITHIN.as_secs());
            // Its children end with it.
            Signal::Kill.send(pid)?;
            killed = true;
        }
        anyhow::ensure!(began.elapsed() < END_WITHIN * 2, "process {pid} can't be ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("stopped; the data is kept in {}", home.dir().display());
    Ok(ExitCode::SUCCESS)
}

/// Deletes the data folder of a stopped system.
pub(crate) async fn reset(options: &Reset) -> anyhow::Result<ExitCode> {
    let home = options.data_dir.home();
    let dir = home.dir();
    if !dir.exists() {
        println!("there is nothing in {}", dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    // Whatever else stands there is not ours to delete.
    anyhow::ensure!(
        dir.join("run").is_dir(),
        "{} does not look like a data folder of firstcome",
        dir.display()
    );
    if let Some(pid) = home.owner() {
        anyhow::bail!("it is running (process {pid}); stop it first with `firstcome down`");
    }
    if !options.yes && !confirmed(dir)? {
        println!("nothing was deleted");
        return Ok(ExitCode::FAILURE);
    }
    // PostgreSQL's data is elsewhere when its user can't reach the folder.
    if let Ok(elsewhere) = fs::read_to_string(home.run("postgres.home")) {
        let elsewhere = Path::new(elsewhere.trim());
        if elsewhere.starts_with("/var/lib/firstcome/") && elsewhere.exists() {
            fs::remove_dir_all(elsewhere)
                .with_context(|| format!("cannot delete {}", elsewhere.display()))?;
        }
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot delete {}", dir.display()))?;
    println!("deleted {}", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn confirmed(dir: &Path) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "this deletes all data; say --yes");
    print!("Delete everything in {}? [y/N] ", dir.display());
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
