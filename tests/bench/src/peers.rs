//! What else starts fifty containers on an engine: shown beside evenkeel, where it is on the machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::engine::{Engine, OWNER, millis};
use crate::{IMAGE, now, until};

/// Milliseconds, or why there are none.
pub(crate) type Outcome = Result<f64, String>;

fn quiet(program: &str, args: &[&str]) -> Result<String, String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out = out.map_err(|e| format!("{program}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("{program}: {}", said.lines().last().unwrap_or("failed")))
}

/// `docker-compose up --scale`, the plugin or the program of old.
pub(crate) fn compose(within: &Path, owner: &str, count: u32) -> Outcome {
    let plugin = quiet("docker", &["compose", "version"]).is_ok();
    let (program, first) =
        if plugin { ("docker", &["compose"][..]) } else { ("docker-compose", &[][..]) };
    quiet(program, &[first, &["version"]].concat())?;
    let file = within.join(format!("{owner}-compose.yaml"));
    let text = format!(
        "version: '2.4'\nservices:\n  web:\n    image: {IMAGE}\n    mem_limit: 32m\n    network_mode: bridge\n    \
         labels: {{{OWNER}: {owner}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let scale = format!("web={count}");
    let base = [first, &["--project-name", owner, "--file", &file]].concat();
    let begun = now();
    let up = quiet(program, &[&base[..], &["up", "-d", "--scale", &scale]].concat());
    let took = millis(now() - begun);
    let down = quiet(program, &[&base[..], &["down", "--timeout", "0"]].concat());
    up?;
    down.map(|_| took)
}

/// `docker run -d` in a loop, as a script does it.
pub(crate) async fn one_by_one(engine: &Engine, owner: &str, count: u32) -> Outcome {
    let label = format!("{OWNER}={owner}");
    let begun = now();
    let mut failed = None;
    for _ in 0..count {
        let run =
            ["run", "--detach", "--label", &label, "--memory", "32m", "--pull", "never", IMAGE];
        if let Err(error) = quiet("docker", &run) {
            failed = Some(error);
            break;
        }
    }
    let took = millis(now() - begun);
    engine.remove((OWNER, owner)).await;
    failed.map_or(Ok(took), Err)
}

/// A service of a Swarm of this machine alone, which is made and left again.
pub(crate) async fn swarm(engine: &Engine, owner: &str, count: u32) -> Outcome {
    let state = quiet("docker", &["info", "--format", "{{.Swarm.LocalNodeState}}"])?;
    if state != "inactive" {
        return Err(format!("the engine's Swarm is {state}, and stays so"));
    }
    quiet("docker", &["swarm", "init", "--advertise-addr", "127.0.0.1"])?;
    let label = format!("{OWNER}={owner}");
    let replicas = count.to_string();
    let begun = now();
    let created = quiet(
        "docker",
        &[
            "service",
            "create",
            "--detach",
            "--quiet",
            "--name",
            owner,
            "--replicas",
            &replicas,
            "--no-resolve-image",
            "--container-label",
            &label,
            "--limit-memory",
            "32m",
            IMAGE,
        ],
    );
    let took = match created {
        Ok(_) => Ok(engine.all_started((OWNER, owner), begun, count as usize).await),
        Err(error) => Err(error),
    };
    let _ = quiet("docker", &["service", "rm", owner]);
    until(Duration::from_secs(120), || async { engine.ids((OWNER, owner)).await.is_empty() }).await;
    let left = quiet("docker", &["swarm", "leave", "--force"]);
    engine.remove((OWNER, owner)).await;
    left?;
    took
}
