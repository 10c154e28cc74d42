//! What a figure was seen on: the machine, and what each process used, from `/proc`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use local_stack::PidFile;
use serde::Serialize;

/// The unit of `/proc/PID/stat`, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A machine.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Of the repository in whose folder this runs, with `-dirty` if something was changed.
    commit: String,
    /// Processes that wanted a core, on average over the last minute, before anything was started here.
    load_average: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let first = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
        };
        let memory_kib = first("/proc/meminfo", "MemTotal").split(' ').next().and_then(|n| n.parse().ok());
        let commit = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = commit.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor: first("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib.unwrap_or(0_u64) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: commit.map_or_else(
                || "unknown".to_owned(),
                |text| String::from_utf8_lossy(&text).trim().to_owned(),
            ),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, memory_mib, kernel, commit, load_average } = self;
        write!(
            f,
            "{cores} cores of {processor}, {memory_mib} MiB, Linux {kernel}, commit {commit}; load average before: \
             {load_average}"
        )
    }
}

/// What was used up to a moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sample {
    /// Seconds of CPU by process.
    cpu_s: BTreeMap<String, f64>,
    /// Seconds of CPU of PostgreSQL's processes by what they are for: see [`purpose`].
    postgres_s: BTreeMap<String, f64>,
    /// MiB by process; shared pages count in parts.
    memory_mib: BTreeMap<String, f64>,
    /// Seconds that all cores were idle, and that there were.
    idle_s: f64,
    all_s: f64,
}

/// What was used between two moments.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Usage {
    /// Seconds of CPU by process; `load` is this program, `others` what does not belong here.
    pub(crate) cpu_s: BTreeMap<String, f64>,
    /// Seconds of CPU of PostgreSQL's processes by database, `autovacuum`, and `own` for all its others. A process that ended meanwhile counts
    /// as `own`, with all that it ever used: so does most of autovacuum's work, whose processes are short.
    pub(crate) postgres_s: BTreeMap<String, f64>,
    /// MiB at the end.
    pub(crate) memory_mib: BTreeMap<String, f64>,
    /// Of all cores' time, the share that was idle.
    pub(crate) idle: f64,
}

/// The processes of a system, by the names of its `run/NAME.pid`.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    named: BTreeMap<String, u32>,
}

impl Processes {
    /// Of the system in that folder, and this one. Servers of somebody else's have no such file and are not seen.
    pub(crate) fn of(home: &Path) -> Self {
        let mut named = BTreeMap::from([("load".to_owned(), std::process::id())]);
        for entry in fs::read_dir(home.join("run")).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_pid_file = path.extension().is_some_and(|extension| extension == "pid");
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            if let Some(pid) = is_pid_file.then(|| PidFile::new(&path).alive()).flatten() {
                // `firstcome up` itself: the services, unless they are processes of their own.
                let name = if name == "ready" { "services" } else { name };
                named.insert(name.to_owned(), pid);
            }
        }
        Self { named }
    }

    /// Its names, this program aside, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.named.keys().filter(|name| *name != "load").cloned().collect()
    }

    /// One of them.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.named.get(name).copied()
    }

    /// Up to now, without memory: while load flows, walking through that would disturb it.
    pub(crate) fn begin(&self) -> Sample {
        self.sample(|_pid| 0)
    }

    /// Between `before` and now.
    pub(crate) fn end(&self, before: &Sample) -> Usage {
        self.sample(resident_kib).since(before)
    }

    fn sample(&self, memory_of: impl Fn(u32) -> u64) -> Sample {
        let all = all_processes();
        let (mut children, mut sample) = (HashMap::<u32, Vec<u32>>::new(), Sample::default());
        for (pid, stat) in &all {
            children.entry(stat.parent).or_default().push(*pid);
        }
        let named: HashSet<u32> = self.named.values().copied().collect();
        for (name, root) in &self.named {
            let (mut ticks, mut memory_kib, mut open) = (0, 0, vec![*root]);
            while let Some(pid) = open.pop() {
                let Some(stat) = all.get(&pid) else { continue };
                ticks += stat.ticks;
                if name == "postgres" {
                    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    *sample.postgres_s.entry(purpose(&command)).or_default() += seconds(stat.ticks);
                }
                memory_kib += memory_of(pid);
                // A child that has a name counts there.
                let below = children.get(&pid).into_iter().flatten().copied();
                open.extend(below.filter(|child| !named.contains(child)));
            }
            sample.cpu_s.insert(name.clone(), seconds(ticks));
            sample.memory_mib.insert(name.clone(), seconds(memory_kib) * TICKS_PER_SECOND / 1024.0);
        }
        (sample.idle_s, sample.all_s) =
            whole_machine(&fs::read_to_string("/proc/stat").unwrap_or_default()).unwrap_or_default();
        sample
    }
}

impl Sample {
    fn since(&self, before: &Self) -> Usage {
        let used = |now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>| -> BTreeMap<String, f64> {
            let of = |name: &String| before.get(name).copied().unwrap_or_default();
            now.iter().map(|(name, now)| (name.clone(), (now - of(name)).max(0.0))).collect()
        };
        let mut cpu_s = used(&self.cpu_s, &before.cpu_s);
        let (idle_s, all_s) = (self.idle_s - before.idle_s, self.all_s - before.all_s);
        let ours: f64 = cpu_s.values().sum();
        cpu_s.insert("others".to_owned(), (all_s - idle_s - ours).max(0.0));
        let idle = if all_s > 0.0 { idle_s / all_s } else { 0.0 };
        let postgres_s = used(&self.postgres_s, &before.postgres_s);
        Usage { cpu_s, postgres_s, memory_mib: self.memory_mib.clone(), idle }
    }
}

impl Usage {
    /// Seconds of CPU of the system: neither the load's nor others'.
    pub(crate) fn of_system_s(&self) -> f64 {
        let is_system = |name: &&String| !matches!(name.as_str(), "load" | "others");
        self.cpu_s.iter().filter(|(name, _)| is_system(name)).map(|(_, seconds)| seconds).sum()
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu: Vec<String> = self.cpu_s.iter().map(|(name, s)| format!("{name} {s:.1}")).collect();
        let memory: Vec<String> =
            self.memory_mib.iter().map(|(name, mib)| format!("{name} {mib:.0}")).collect();
        writeln!(f, "CPU, s: {}; idle {:.0} %", cpu.join(", "), self.idle * 100.0)?;
        write!(f, "memory, MiB: {}", memory.join(", "))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own, and those of children that it has waited for.
    ticks: u64,
}

fn all_processes() -> HashMap<u32, Stat> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(stat) = parse_stat(&stat) {
            all.insert(pid, stat);
        }
    }
    all
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The program's name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    // Field 3, the state, is the first here; the parent is field 4, and times are fields 14 to 17.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}

/// What a process of PostgreSQL is for, by the title it gives itself: a database, `autovacuum`, or `own`.
fn purpose(command: &str) -> String {
    let mut words = command.split([' ', '\0']).filter(|word| !word.is_empty());
    let purpose = match (words.next(), words.next(), words.next(), words.next()) {
        (Some("postgres:"), Some("autovacuum"), ..) => "autovacuum",
        // User, database, and where the connection comes from.
        (Some("postgres:"), Some(_), Some(database), Some(from)) if from.contains('(') => database,
        _ => "own",
    };
    purpose.to_owned()
}

/// KiB, with pages that are shared counted in parts; where that can't be read, as if they were not.
fn resident_kib(pid: u32) -> u64 {
    let of = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    of("smaps_rollup", "Pss:").or_else(|| of("status", "VmRSS:")).unwrap_or_default()
}

/// Idle and all seconds of all cores.
fn whole_machine(stat: &str) -> Option<(f64, f64)> {
    let ticks: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).take(8).map_while(|text| text.parse().ok()).collect();
    let [_user, _nice, _system, idle, io_wait, ..] = ticks.as_slice() else { return None };
    Some((seconds(idle + io_wait), seconds(ticks.iter().sum())))
}

fn seconds(ticks: u64) -> f64 {
    // Exact up to two thousand years.
    f64::from(u32::try_from(ticks / 100).unwrap_or(u32::MAX))
        + f64::from(u32::try_from(ticks % 100).unwrap_or_default()) / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let text = "42 (a) b) c) S 7 1 1 0 -1 4194560 100 0 0 0 250 50 3 4 20 0 1 0 99 1000 10";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, ticks: 307 }));
        assert_eq!(parse_stat("gone"), None);
    }

    #[test]
    fn a_process_of_postgresql_is_named_by_its_database() {
        assert_eq!(purpose("postgres: firstcome api 127.0.0.1(40392) idle\0\0\0"), "api");
        assert_eq!(purpose("postgres: autovacuum worker payment\0"), "autovacuum");
        assert_eq!(purpose("postgres: autovacuum launcher \0"), "autovacuum");
        assert_eq!(purpose("postgres: walwriter \0"), "own");
        assert_eq!(purpose("/usr/lib/postgresql/15/bin/postgres\0-D\0/data"), "own");
        assert_eq!(purpose(""), "own");
    }

    #[test]
    fn idle_is_what_the_first_line_says() {
        let text = "cpu  100 0 200 600 100 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(whole_machine(text), Some((7.0, 10.0)));
    }

    #[test]
    fn what_others_used_is_the_rest() {
        let sample = |ours: f64, idle_s: f64, all_s: f64| Sample {
            cpu_s: BTreeMap::from([("load".to_owned(), ours)]),
            postgres_s: BTreeMap::new(),
            memory_mib: BTreeMap::new(),
            idle_s,
            all_s,
        };
        let usage = sample(3.0, 15.0, 30.0).since(&sample(1.0, 10.0, 20.0));
        assert!((usage.idle - 0.5).abs() < 1e-9);
        assert!((usage.cpu_s["load"] - 2.0).abs() < 1e-9);
        assert!((usage.cpu_s["others"] - 3.0).abs() < 1e-9);
    }
}
