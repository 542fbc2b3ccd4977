//! Measuring: one run, one table, and the same as JSON beside it. A missed target is marked, never hidden.
#![allow(clippy::disallowed_methods, reason = "it dates what it writes")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::apiserver;
use crate::command::{cargo, run};
use crate::images;
use crate::interrupt::Interrupt;
use crate::setup;
use crate::tree::Tree;

/// What can be measured.
pub(crate) const ROWS: [&str; 16] = [
    "scale", "rotation", "heal", "commit", "plan", "idle", "loss", "drop", "burst", "size",
    "objects", "many", "read", "quiet", "kubectl", "marathon",
];
/// Those of `bench-edge`: traffic through balancers.
const EDGE: [&str; 4] = ["loss", "drop", "burst", "size"];
/// Those of `bench-kubernetes`: the controller on an API server.
const KUBERNETES: [&str; 5] = ["objects", "many", "read", "quiet", "kubectl"];

pub(crate) fn bench(tree: &Tree, quick: bool, rows: &[String]) -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let wants = |row: &str| rows.is_empty() || rows.iter().any(|r| r == row);
    let edge: Vec<&str> = EDGE.into_iter().filter(|r| wants(r)).collect();
    let cluster: Vec<&str> = KUBERNETES.into_iter().filter(|r| wants(r)).collect();
    let engine = |r: &&str| {
        !["plan", "marathon"].contains(r)
            && !EDGE.contains(r)
            && !KUBERNETES.contains(r)
            && wants(r)
    };
    let engine: Vec<&str> = ROWS.into_iter().filter(engine).collect();
    // On those of the last four that simulate their hosts nothing runs.
    let agent = !engine.is_empty() || !edge.is_empty() || cluster.contains(&"kubectl");
    if agent {
        images::build(tree, false)?;
    }
    if !cluster.is_empty() {
        apiserver::ensure(tree)?;
    }
    let mut builds = Vec::new();
    if wants("plan") {
        builds.push(&["evenkeel-tests", "--bin", "bench-plan"][..]);
    }
    if !edge.is_empty() {
        builds.push(&["evenkeel-tests", "--bin", "bench-edge"]);
    }
    if wants("marathon") {
        builds.push(&["evenkeel-tests", "--bin", "bench-marathon"]);
    }
    if !cluster.is_empty() {
        builds.push(&["evenkeel-tests", "--bin", "bench-kubernetes"]);
    }
    // One by one: built together, the agent would get what only tests ask of its dependencies.
    if !engine.is_empty() {
        builds.push(&["bench-engine"]);
    }
    if agent || wants("marathon") {
        builds.push(&["evenkeel"]);
    }
    for build in builds {
        let build = cargo().args(["build", "--release", "--locked", "--package"]).args(build);
        build.within(tree.root()).go()?;
    }
    let interrupt = Interrupt::watch()?;
    let release = tree.target().join("release");
    let program = |name: &str| run(&release.join(name).display().to_string());
    let (date, load) = (date()?, load());
    let mut found = Vec::new();
    let mut broken = None;
    if wants("plan") {
        let mut lines = Vec::new();
        stream(program("bench-plan"), |line| lines.push(line))?;
        found.extend(planner(&lines));
    }
    if !engine.is_empty() {
        let measure = program("bench-engine")
            .arg(release.join("evenkeel"))
            .args(quick.then_some("--quick"))
            .args(engine);
        // What was measured before it broke is shown all the same.
        broken = stream(measure, |line| found.push(judged(line))).err();
    }
    for (name, rows) in [("bench-edge", edge), ("bench-kubernetes", cluster)] {
        if rows.is_empty() || broken.is_some() {
            continue;
        }
        let measure = program(name)
            .env("EVENKEEL_BIN", &release.join("evenkeel").display().to_string())
            .args(quick.then_some("--quick"))
            .args(rows);
        broken = stream(measure, |line| found.push(judged(line))).err();
    }
    if wants("marathon") && broken.is_none() {
        let measure = program("bench-marathon")
            .env("EVENKEEL_BIN", &release.join("evenkeel").display().to_string())
            .args(quick.then_some("--quick"));
        broken = stream(measure, |line| found.push(judged(line))).err();
    }
    let report = json!({
        "date": date, "commit": commit(tree)?, "quick": quick, "cores": cores(),
        "loadBefore": load, "loadAfter": self::load(), "rows": found,
    });
    let directory = tree.target().join("bench");
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{date}.json"));
    let text = format!("{report:#}\n");
    fs::write(&file, &text)?;
    fs::write(directory.join("latest.json"), &text)?;
    println!("\n{}", table(&found));
    println!("load average {load} before, {} after, on {} cores", self::load(), cores());
    println!("written to {}", file.display());
    interrupt.check()?;
    if let Some(error) = broken {
        return Err(error);
    }
    let missed = found.iter().filter(|row| row["ok"] == false).count();
    if missed > 0 {
        println!("{missed} targets MISSED");
    }
    Ok(())
}

/// Runs it and takes each line of its output, which is a JSON value, as it comes.
fn stream(program: crate::command::Run, mut take: impl FnMut(Value)) -> Result<()> {
    let mut child = program.into_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("it has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        take(serde_json::from_str(&line).with_context(|| format!("not a row: {line}"))?);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the measurement broke off ({status})");
    }
    Ok(())
}

/// Adds to a row whether it is within its target.
fn judged(mut row: Value) -> Value {
    let which = row["judged"].as_str().unwrap_or_default().to_owned();
    let target = row["target"].as_f64();
    if let (Some(target), Some(row)) = (target, row.as_object_mut()) {
        let value = row.get(&which).and_then(Value::as_f64);
        row.insert("ok".into(), value.is_some_and(|v| v <= target).into());
    }
    row
}

/// The planner's rows, with the targets that each size has.
fn planner(lines: &[Value]) -> Vec<Value> {
    let mut rows = Vec::new();
    for line in lines {
        let (services, hosts) = (line["services"].as_u64(), line["hosts"].as_u64());
        let first = (services, hosts) == (Some(1000), Some(100));
        let largest = (services, hosts) == (Some(10_000), Some(5000));
        let targets = |small: Option<u32>, large: u32| if largest { Some(large) } else { small };
        for (key, name, unit, target) in [
            ("from_nothing_ms", "placed from nothing", "ms", targets(first.then_some(50), 1000)),
            ("steady_ms", "steady", "ms", targets(None, 100)),
            ("lost_host_ms", "a lost host", "ms", targets(None, 100)),
            ("peak_mib", "memory at most", "MiB", targets(None, 476)),
        ] {
            let what =
                format!("{} instances on {} hosts: {name}", line["instances"], line["hosts"]);
            rows.push(judged(
                json!({"row": "plan", "what": what, "value": line[key], "unit": unit,
                "target": target, "judged": "value"}),
            ));
        }
    }
    rows
}

fn table(rows: &[Value]) -> String {
    let mut lines = vec![["ROW", "WHAT", "MEASURED", "RATIO", "TARGET", ""].map(str::to_owned)];
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| row[key].as_f64().map(short);
        let unit = text("unit");
        let with_unit = |n: String| format!("{n} {unit}").trim_end().to_owned();
        let target = number("target").map(|target| match row["judged"].as_str() {
            Some("ratio") => format!("<= {target}"),
            _ => format!("<= {}", with_unit(target)),
        });
        let verdict = match (row["ok"].as_bool(), text("note")) {
            (Some(true), note) => format!("ok {note}").trim_end().to_owned(),
            (Some(false), note) => format!("MISSED {note}").trim_end().to_owned(),
            (None, note) => note,
        };
        lines.push([
            text("row"),
            text("what"),
            number("value").map_or_else(|| "-".into(), with_unit),
            number("ratio").unwrap_or_default(),
            target.unwrap_or_default(),
            verdict,
        ]);
    }
    let width = |n: usize| lines.iter().map(|l| l[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for [row, what, value, ratio, target, verdict] in &lines {
        let line = format!(
            "{row:0$}  {what:1$}  {value:>2$}  {ratio:>3$}  {target:4$}  {verdict}",
            widths[0], widths[1], widths[2], widths[3], widths[4]
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

fn date() -> Result<String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    // Its words for a moment are the standard library's gap.
    run("date").args(["-u", "-d", &format!("@{since}"), "+%Y-%m-%dT%H-%M-%SZ"]).read()
}

fn commit(tree: &Tree) -> Result<String> {
    run("git").args(["describe", "--always", "--dirty"]).within(tree.root()).read()
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_judged_by_what_they_say() {
        let ratio = json!({"value": 900, "ratio": 1.2, "target": 1.15, "judged": "ratio"});
        assert_eq!(judged(ratio)["ok"], false);
        let value = json!({"value": 50.0, "target": 50, "judged": "value"});
        assert_eq!(judged(value)["ok"], true);
        assert_eq!(judged(json!({"value": 0, "target": 0, "judged": "value"}))["ok"], true);
        assert!(judged(json!({"value": 9}))["ok"].is_null());
        assert_eq!(judged(json!({"target": 1, "judged": "value"}))["ok"], false, "not measured");
    }

    #[test]
    fn only_some_sizes_have_targets() {
        let line = |services, hosts| {
            json!({"services": services, "hosts": hosts, "instances": services * 10,
                "from_nothing_ms": 60.0, "steady_ms": 2.0, "lost_host_ms": 3.0, "peak_mib": 30})
        };
        let rows = planner(&[line(100, 50), line(1000, 100), line(10_000, 5000)]);
        let ok: Vec<_> = rows.iter().map(|r| r["ok"].as_bool()).collect();
        let (none, yes) = (None, Some(true));
        let want = [none, none, none, none, Some(false), none, none, none, yes, yes, yes, yes];
        assert_eq!(ok, want);
    }

    #[test]
    fn the_table_marks_what_was_missed() {
        let rows = [
            json!({"row": "scale", "what": "evenkeel", "value": 5012.3, "unit": "ms", "ratio": 1.204,
                "target": 1.15, "judged": "ratio", "ok": false}),
            json!({"row": "scale", "what": "Swarm", "note": "not measured: none"}),
            json!({"row": "idle", "what": "calls", "value": 0, "unit": "", "target": 0, "ok": true}),
            json!({"row": "loss", "what": "kill", "value": 0, "target": 0, "ok": true, "note": "3 again"}),
        ];
        assert_eq!(
            table(&rows),
            "ROW    WHAT      MEASURED  RATIO  TARGET\n\
             scale  evenkeel   5012 ms   1.20  <= 1.15  MISSED\n\
             scale  Swarm            -                  not measured: none\n\
             idle   calls            0         <= 0     ok\n\
             loss   kill             0         <= 0     ok 3 again\n"
        );
    }

    #[test]
    fn numbers_are_short() {
        let texts = [1234.5, 99.94, 5.0, 1.149, 0.031].map(short);
        assert_eq!(texts, ["1234", "99.9", "5", "1.15", "0.03"]);
    }
}
