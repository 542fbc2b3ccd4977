//! Taking a demo down, also one that was killed: nothing of it is left, and nothing else is touched.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::command::run;

const DIRECTORY: &str = "evenkeel-demo-";
const OWNER: &str = "demo-";
/// Its presence says that the agent was left running on purpose.
pub(super) const KEPT: &str = "kept";

/// The directory of a demo.
pub(super) fn directory(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{DIRECTORY}{pid}"))
}

/// The owner of a demo, which its fleet, network and volumes are called after.
pub(super) fn owner(pid: u32) -> String {
    format!("{OWNER}{pid}")
}

/// Removes what carries an owner; says what it was.
pub(super) fn remove(owner: &str) -> Result<String> {
    let list = |args: &[&str]| -> Result<Vec<String>> {
        let said = run("docker").args(args).read()?;
        Ok(said.lines().map(str::to_owned).collect())
    };
    let label = format!("label=evenkeel.dev/owner={owner}");
    let containers = list(&["ps", "--all", "--quiet", "--filter", &label])?;
    if !containers.is_empty() {
        run("docker").args(["rm", "--force", "--volumes"]).args(&containers).read()?;
    }
    // The engine looks for a part of the name.
    let named = format!("name={owner}");
    let its = |name: &String| belongs(name, owner);
    let volumes = list(&["volume", "ls", "--quiet", "--filter", &named])?;
    let volumes: Vec<String> = volumes.into_iter().filter(its).collect();
    if !volumes.is_empty() {
        run("docker").args(["volume", "rm"]).args(&volumes).read()?;
    }
    let networks = list(&["network", "ls", "--format", "{{.Name}}", "--filter", &named])?;
    let networks: Vec<String> = networks.into_iter().filter(its).collect();
    if !networks.is_empty() {
        run("docker").args(["network", "rm"]).args(&networks).read()?;
    }
    let [c, v, n] = [containers, volumes, networks].map(|all| all.len());
    Ok(format!("{c} containers, {v} volumes and {n} networks"))
}

/// `OWNER-…` and `evenkeel-OWNER-…`, and not those of `OWNER1`.
fn belongs(name: &str, owner: &str) -> bool {
    let name = name.strip_prefix("evenkeel-").unwrap_or(name);
    name.strip_prefix(owner).is_some_and(|rest| rest.starts_with('-'))
}

/// Takes down what a demo that was killed has left, and nothing that still plays or was kept.
pub(super) fn left() -> Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix(DIRECTORY)) else { continue };
        let Ok(pid) = pid.parse::<u32>() else { continue };
        let directory = entry.path();
        // A process of that directory, not one that got its number later.
        let runs = |pid: &str, word: &str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(word)
        };
        let agent = fs::read_to_string(directory.join("agent.pid")).unwrap_or_default();
        let acts = !agent.is_empty() && runs(&agent, &directory.display().to_string());
        if runs(&pid.to_string(), "xtask") || (acts && directory.join(KEPT).exists()) {
            continue;
        }
        println!("a demo that was killed left {}: taken down", directory.display());
        if acts {
            run("kill").args(["-9", &agent]).read()?;
        }
        remove(&owner(pid))?;
        fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_is_removed() {
        assert!(belongs("demo-12-logs", "demo-12"));
        assert!(belongs("evenkeel-demo-12-consul-1", "demo-12"));
        assert!(!belongs("demo-123-logs", "demo-12"));
        assert!(!belongs("my-demo-12-logs", "demo-12"));
    }
}
