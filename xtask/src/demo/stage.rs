//! Where the demo plays: a directory with the repository and the agent's state, and the engine's containers
//! that carry its owner.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::agent::Agent;
use super::status::{Instance, Status};
use crate::command::{Run, run};
use crate::http;
use crate::interrupt::Interrupt;
use crate::tree::Tree;

/// A chapter that takes longer has failed; on an idle machine the longest takes 10 s.
const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks at the agent.
const BEAT: Duration = Duration::from_millis(50);
const DIRECTORY: &str = "evenkeel-demo-";
const OWNER: &str = "demo-";
/// Its presence says that the agent was left running on purpose.
const KEPT: &str = "kept";
/// The toy's own.
const PORT: u16 = 8080;
/// Where `gitops-example/` publishes its load balancer.
const DOOR: u16 = 8181;

/// The port, or another where somebody has it.
fn free(port: u16) -> Result<u16> {
    let listen = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let listener = listen(port).or_else(|_| listen(0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

pub(super) struct Stage<'a> {
    tree: &'a Tree,
    interrupt: &'a Interrupt,
    directory: PathBuf,
    owner: String,
    /// Put behind the names of services where their plain names are taken.
    suffix: String,
    secret: String,
    agent: Option<Agent>,
    chapter: u32,
    commit: String,
    begun: Instant,
    first: Instant,
    times: Vec<(String, Duration)>,
}

impl<'a> Stage<'a> {
    /// The repository, from `gitops-example/` as it is.
    pub(super) fn set(tree: &'a Tree, interrupt: &'a Interrupt) -> Result<Self> {
        let pid = std::process::id();
        let directory = std::env::temp_dir().join(format!("{DIRECTORY}{pid}"));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let now = Instant::now();
        let mut stage = Self {
            tree,
            interrupt,
            directory,
            owner: format!("{OWNER}{pid}"),
            suffix: String::new(),
            secret: format!("demo-{pid}-secret"),
            agent: None,
            chapter: 0,
            commit: String::new(),
            begun: now,
            first: now,
            times: Vec::new(),
        };
        if let Err(error) = stage.furnish() {
            let _ = fs::remove_dir_all(&stage.directory);
            return Err(error);
        }
        Ok(stage)
    }

    fn furnish(&mut self) -> Result<()> {
        let taken = run("docker")
            .args(["ps", "--all", "--quiet", "--filter", "name=^/?(edge|web-test|web-production)_"])
            .read()?;
        if !taken.is_empty() {
            self.suffix = format!("-{}", std::process::id());
        }
        let example = self.tree.root().join("gitops-example");
        let door = free(DOOR)?;
        for path in self.tree.paths()? {
            let Some(path) = path.strip_prefix("gitops-example/") else { continue };
            let text = fs::read_to_string(example.join(path))?;
            let mut text = text.replace(&format!("publish: {DOOR}"), &format!("publish: {door}"));
            for name in
                ["name: web-test", "name: web-production", "name: edge", "loadBalancer: edge"]
            {
                text = text.replace(name, &format!("{name}{}", self.suffix));
            }
            let to = self.repository().join(path);
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            fs::write(&to, on_engine(&text, std::env::var("DOCKER_HOST").ok().as_deref()))?;
        }
        fs::write(self.directory.join("webhook-secret"), &self.secret)?;
        self.git(["init", "--quiet", "--initial-branch=main"]).read()?;
        for (name, value) in [
            ("user.name", "demo"),
            ("user.email", "demo@example.com"),
            ("commit.gpgsign", "false"),
            ("core.hooksPath", ".git/hooks"),
        ] {
            self.git(["config", name, value]).read()?;
        }
        Ok(())
    }

    fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    fn git<const N: usize>(&self, args: [&str; N]) -> Run {
        run("git").arg("-C").arg(self.repository()).args(args)
    }

    /// A service's name here.
    pub(super) fn service(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    pub(super) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n== {}. {title}", self.chapter);
        self.begun = Instant::now();
        self.times.push((title.to_owned(), Duration::ZERO));
    }

    /// Changes a file; what it replaces must be in it.
    pub(super) fn edit(&self, path: &str, from: &str, to: &str) -> Result<()> {
        let file = self.repository().join(path);
        let text = fs::read_to_string(&file)?;
        if !text.contains(from) {
            bail!("{path} does not say {from:?}");
        }
        Ok(fs::write(&file, text.replacen(from, to, 1))?)
    }

    /// Commits and shows what changed.
    pub(super) fn commit(&mut self, message: &str) -> Result<()> {
        self.git(["add", "--all"]).read()?;
        self.git(["commit", "--quiet", "--message", message]).read()?;
        self.commit = self.git(["rev-parse", "HEAD"]).read()?;
        let short = self.commit.get(..10).unwrap_or_default();
        println!("   $ git commit -m '{message}'    {short}");
        let diff = self.git(["show", "--format=", "--unified=0", "--no-color"]).read()?;
        for line in changed_lines(&diff) {
            println!("     {line}");
        }
        self.begun = Instant::now();
        Ok(())
    }

    /// Commits, and rings as a git server would.
    pub(super) fn push(&mut self, message: &str) -> Result<()> {
        self.commit(message)?;
        let secret = self.secret.clone();
        self.agent()?.ring(&secret)
    }

    fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("the agent was not started")
    }

    fn source(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        vec![
            "--git".into(),
            text(&self.repository()),
            "--owner".into(),
            self.owner.clone(),
            "--state-dir".into(),
            text(&self.directory.join("state")),
        ]
    }

    fn binary(&self) -> PathBuf {
        self.tree.target().join("debug/evenkeel")
    }

    pub(super) fn start_agent(&mut self) -> Result<()> {
        let secret = self.directory.join("webhook-secret").display().to_string();
        let mut args = self.source();
        args.extend(["--interval", "2s", "--webhook-secret-file"].map(str::to_owned));
        args.push(secret);
        let agent = Agent::start(&self.binary(), &args, &self.directory.join("agent.log"))?;
        println!("   $ evenkeel run --git … --owner {} --listen {}", self.owner, agent.api);
        fs::write(self.directory.join("agent.pid"), agent.pid().to_string())?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Shows what the agent does until `reached` at the newest commit, then its table.
    pub(super) fn settle(&mut self, reached: impl Fn(&Status) -> bool) -> Result<Status> {
        let (begun, commit, interrupt) = (self.begun, self.commit.clone(), self.interrupt);
        let agent = self.agent()?;
        let tell = |agent: &mut Agent| {
            for line in agent.news() {
                println!("   {:6.2} s  {line}", begun.elapsed().as_secs_f64());
            }
        };
        let status = loop {
            interrupt.check()?;
            agent.alive()?;
            let status = agent.status().filter(|s| s.at(&commit) && reached(s));
            tell(agent);
            if let Some(status) = status {
                break status;
            }
            if begun.elapsed() > DEADLINE {
                bail!("not reached within {} s", DEADLINE.as_secs());
            }
            sleep(BEAT);
        };
        let took = begun.elapsed();
        println!("   settled after {:.1} s", took.as_secs_f64());
        if let Some((_, time)) = self.times.last_mut() {
            *time = took;
        }
        self.table()?;
        Ok(status)
    }

    fn table(&mut self) -> Result<()> {
        let api = self.agent()?.api;
        let status = run(&self.binary().display().to_string())
            .args(["status", "--color", "never", "--agent", &format!("http://{api}")])
            .read()?;
        for line in services(&status) {
            println!("   {line}");
        }
        Ok(())
    }

    /// Asks every instance of a service who it is; all must be of `version`.
    pub(super) fn ask(&self, service: &str, count: usize, version: &str) -> Result<()> {
        let format = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let ids = run("docker")
            .args(["ps", "--quiet", "--no-trunc"])
            .args(["--filter", &format!("label=evenkeel.dev/owner={}", self.owner)])
            .args(["--filter", &format!("label=evenkeel.dev/service={service}")])
            .read()?;
        let inspected = run("docker").args(["inspect", "--format", format]).args(ids.lines());
        let mut answers = Vec::new();
        for line in inspected.read()?.lines() {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default().trim_start_matches('/');
            let ip: IpAddr = words.next().and_then(|w| w.parse().ok()).context("no address")?;
            let answer = http::get(SocketAddr::new(ip, PORT), "/")?;
            let body: serde_json::Value = serde_json::from_str(&answer.body)?;
            if body["version"] != version {
                bail!("{name} answers {}, not version {version}", answer.body.trim());
            }
            answers.push(format!("   $ curl http://{ip}:{PORT}/    {}", answer.body.trim()));
        }
        if answers.len() != count {
            bail!("{} instances of {service} answer, not {count}", answers.len());
        }
        println!("{}", answers[0]);
        println!("   all {count} of {service} answer as version {version}");
        Ok(())
    }

    pub(super) fn kill(&mut self, victim: &Instance) -> Result<()> {
        println!("   $ docker kill {}", victim.name);
        self.begun = Instant::now();
        run("docker").args(["kill", &victim.id]).read().map(drop)
    }

    /// The dry run of the same source ends with 0: nothing to do.
    pub(super) fn plans_nothing(&self) -> Result<()> {
        let plan = run(&self.binary().display().to_string()).arg("plan").args(self.source());
        let said = plan.read().context("the dry run has something to do")?;
        // Its counts are those of a first look, before any instance was probed: only the verdict is shown.
        println!("   $ evenkeel plan --git …    {}", said.lines().last().unwrap_or_default());
        Ok(())
    }

    pub(super) fn show_log(&self) {
        if let Some(agent) = &self.agent {
            println!("\nthe end of the agent's log:\n{}", agent.last_words(60));
        }
    }

    /// Leaves it running, and says what to try.
    pub(super) fn leave(&mut self) {
        self.summary();
        let Some(agent) = self.agent.take() else { return };
        let _ = fs::write(self.directory.join(KEPT), "");
        let (repository, binary) = (self.repository(), self.binary());
        let production = self.service("web-production");
        println!(
            "\nIt goes on running. Try:
  cd {repository}
  sed -i 's/replicas: 10/replicas: 3/' production/web.yaml && git commit -am 'Production: 3'
  sed -i 's/toy:2/toy:broken/' test/web.yaml && git commit -am 'A bad release'    # rolled back within a minute
  docker kill {production}_1
  {evenkeel} status --watch --agent http://{api}

End it with:
  kill {pid}; docker rm --force $(docker ps --all --quiet --filter label=evenkeel.dev/owner={owner}); rm -r {directory}",
            repository = repository.display(),
            evenkeel = binary.display(),
            api = agent.api,
            pid = agent.pid(),
            owner = self.owner,
            directory = self.directory.display(),
        );
    }

    /// Takes everything down.
    pub(super) fn strike(mut self) -> Result<()> {
        let stopped = self.agent.as_mut().map_or(Ok(()), Agent::stop);
        let removed = remove_containers(&self.owner);
        let cleared = fs::remove_dir_all(&self.directory).context("cannot remove the directory");
        stopped?;
        let removed = removed?;
        cleared?;
        self.summary();
        println!("cleaned up: the agent, its directory and {removed} containers");
        Ok(())
    }

    fn summary(&self) {
        println!();
        for (title, time) in self.times.iter().filter(|(_, time)| !time.is_zero()) {
            println!("{:6.1} s  {title}", time.as_secs_f64());
        }
        println!("{:6.1} s  altogether", self.first.elapsed().as_secs_f64());
    }
}

fn remove_containers(owner: &str) -> Result<usize> {
    let filter = format!("label=evenkeel.dev/owner={owner}");
    let ids = run("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).read()?;
    let ids: Vec<&str> = ids.lines().collect();
    if !ids.is_empty() {
        run("docker").args(["rm", "--force", "--volumes"]).args(&ids).read()?;
    }
    Ok(ids.len())
}

/// Takes down what a demo that was killed has left, and nothing that still plays or was kept.
pub(super) fn sweep_left() -> Result<()> {
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
        remove_containers(&format!("{OWNER}{pid}"))?;
        fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

/// The example names the local engine; the one that the environment names is meant.
fn on_engine(text: &str, docker_host: Option<&str>) -> String {
    match docker_host.filter(|host| !host.is_empty()) {
        Some(host) => text.replace("unix:///var/run/docker.sock", host),
        None => text.to_owned(),
    }
}

/// What was added and removed; of files that are new as a whole, their names.
fn changed_lines(diff: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut new = false;
    for line in diff.lines() {
        if line.starts_with("diff ") || line.starts_with("index ") {
            new = false;
        } else if line.starts_with("--- ") {
            new = line == "--- /dev/null";
        } else if let Some(path) = line.strip_prefix("+++ b/") {
            lines.push(if new { format!("new: {path}") } else { format!("{path}:") });
        } else if !new && (line.starts_with('+') || line.starts_with('-')) {
            let (sign, rest) = line.split_at(1);
            lines.push(format!("  {sign} {}", rest.trim_start()));
        }
    }
    lines
}

/// The table of services within what `evenkeel status` prints.
fn services(status: &str) -> impl Iterator<Item = &str> {
    status.lines().skip_while(|l| !l.starts_with("NAME")).take_while(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_without_the_rest_of_a_diff() {
        let diff = "diff --git a/x.yaml b/x.yaml\nindex 1..2 100644\n--- a/x.yaml\n+++ b/x.yaml\n\
                    @@ -7 +7 @@ spec:\n-  replicas: 4\n+  replicas: 10\n";
        assert_eq!(changed_lines(diff), ["x.yaml:", "  - replicas: 4", "  + replicas: 10"]);
        let new = "diff --git a/y b/y\nnew file mode 100644\nindex 0..1\n--- /dev/null\n+++ b/y\n\
                   @@ -0,0 +1 @@\n+a: b\n";
        assert_eq!(changed_lines(new), ["new: y"]);
    }

    #[test]
    fn the_engine_of_the_environment_is_used() {
        let text = "endpoint: unix:///var/run/docker.sock";
        assert_eq!(on_engine(text, None), text);
        assert_eq!(on_engine(text, Some("")), text);
        assert_eq!(on_engine(text, Some("tcp://h:2375")), "endpoint: tcp://h:2375");
    }

    #[test]
    fn only_the_services_of_a_status_are_shown() {
        let status = "evenkeel 0\n\nNAME  FLEET\nweb   shop\n\nHOST\nlocal\n";
        assert_eq!(services(status).collect::<Vec<_>>(), ["NAME  FLEET", "web   shop"]);
    }
}
