//! Where the demo plays: a directory with the repository and the agent's state, and the engine's containers, networks
//! and volumes that carry its owner in a label or in their name.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::agent::Agent;
use super::clients::{Clients, Counts};
use super::page;
use super::screen::{self, Screen};
use super::status::{Instance, Status};
use super::sweep;
use crate::command::{Run, run};
use crate::http;
use crate::interrupt::Interrupt;
use crate::tree::Tree;

/// A chapter that takes longer has failed; on an idle machine the longest takes 15 s.
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at the agent.
const BEAT: Duration = Duration::from_millis(100);
/// Where the page publishes the first balancer and the first user interface of Consul.
const DOOR: u16 = 8181;
const UI: u16 = 8501;
pub(super) const BALANCERS: u16 = 3;
pub(super) const CONSULS: u16 = 5;

/// So many ports in a row from here, or further up where somebody has one of them.
fn free(first: u16, count: u16) -> Result<u16> {
    let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    let mut from = (first..first + 1000).step_by(20);
    let found = from.find(|from| (*from..from + count).all(is_free));
    found.with_context(|| format!("no {count} ports from {first} on are free"))
}

pub(super) struct Stage<'a> {
    tree: &'a Tree,
    interrupt: &'a Interrupt,
    screen: Screen,
    directory: PathBuf,
    owner: String,
    /// Put behind the names of services where their plain names are taken.
    suffix: String,
    secret: String,
    documents: Vec<(String, String)>,
    door: u16,
    ui: u16,
    agent: Option<Agent>,
    clients: Option<Clients>,
    /// What was counted before the chapter.
    before: Counts,
    chapter: u32,
    commit: String,
    begun: Instant,
    first: Instant,
    times: Vec<(String, Duration)>,
}

impl<'a> Stage<'a> {
    /// The repository, still empty.
    pub(super) fn set(tree: &'a Tree, interrupt: &'a Interrupt) -> Result<Self> {
        let pid = std::process::id();
        let directory = sweep::directory(pid);
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let now = Instant::now();
        let mut stage = Self {
            tree,
            interrupt,
            screen: Screen::new(),
            directory,
            owner: sweep::owner(pid),
            suffix: String::new(),
            secret: format!("demo-{pid}-secret"),
            documents: Vec::new(),
            door: free(DOOR, BALANCERS + 2)?,
            ui: free(UI, CONSULS)?,
            agent: None,
            clients: None,
            before: Counts::default(),
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
            .args(["ps", "--all", "--quiet", "--filter", "name=^/?(haproxy|server|admin)_"])
            .read()?;
        if !taken.is_empty() {
            self.suffix = format!("-{}", std::process::id());
        }
        let page = fs::read_to_string(self.tree.root().join(page::PAGE))?;
        self.documents = page::documents(&page)?;
        fs::create_dir(self.repository())?;
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

    /// Writes a document of the page into the repository, with names, ports and volumes that nothing else has.
    pub(super) fn write(&self, file: &str, more: &[(&str, &str)]) -> Result<()> {
        let found = self.documents.iter().find(|(name, _)| name == file);
        let (_, text) = found.with_context(|| format!("{} has no {file}", page::PAGE))?;
        let (suffix, owner) = (&self.suffix, &self.owner);
        let mut changes = vec![
            ("fleet: shop".to_owned(), format!("fleet: {owner}")),
            ("simple-network".to_owned(), format!("{owner}-net")),
            ("loadBalancer: haproxy".to_owned(), format!("loadBalancer: haproxy{suffix}")),
        ];
        match file {
            "shop.yaml" => changes.extend([
                ("metadata: {name: shop}".to_owned(), format!("metadata: {{name: {owner}}}")),
                ("name: haproxy}".to_owned(), format!("name: haproxy{suffix}}}")),
                ("name: server}".to_owned(), format!("name: server{suffix}}}")),
                ("volume: haproxy-logs".to_owned(), format!("volume: {owner}-logs")),
                (format!("publish: {DOOR}"), format!("publish: {}", self.door)),
                (format!("ui: {UI}"), format!("ui: {}", self.ui)),
            ]),
            _ => changes.push(("name: admin}".to_owned(), format!("name: admin{suffix}}}"))),
        }
        changes.extend(more.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())));
        let text = page::rewritten(text, &changes)?;
        let engine = std::env::var("DOCKER_HOST").ok();
        fs::write(self.repository().join(file), on_engine(&text, engine.as_deref()))?;
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

    /// The name of the servers of the fleet's Consul.
    pub(super) fn consul(&self) -> String {
        format!("{}-consul", self.owner)
    }

    pub(super) fn say(&mut self, line: &str) {
        self.screen.say(line);
    }

    pub(super) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let line = format!("\n== {}. {title}", self.chapter);
        self.say(&line);
        self.begun = Instant::now();
        self.before = self.counts();
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
        let short = self.commit.get(..10).unwrap_or_default().to_owned();
        self.say(&format!("   $ git commit -m '{message}'    {short}"));
        let diff = self.git(["show", "--format=", "--unified=0", "--no-color"]).read()?;
        for line in changed_lines(&diff) {
            self.say(&format!("     {line}"));
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

    fn binary(&self, name: &str) -> PathBuf {
        self.tree.target().join("debug").join(name)
    }

    pub(super) fn start_agent(&mut self) -> Result<()> {
        let secret = self.directory.join("webhook-secret").display().to_string();
        let mut args = self.source();
        args.extend(["--interval", "2s", "--webhook-secret-file"].map(str::to_owned));
        args.push(secret);
        let log = self.directory.join("agent.log");
        let agent = Agent::start(&self.binary("evenkeel"), &args, &log)?;
        let line =
            format!("   $ evenkeel run --git … --owner {} --listen {}", self.owner, agent.api);
        self.say(&line);
        fs::write(self.directory.join("agent.pid"), agent.pid().to_string())?;
        self.agent = Some(agent);
        Ok(())
    }

    /// From now on the balancers are asked.
    pub(super) fn start_clients(&mut self) -> Result<()> {
        let ports: Vec<u16> = (self.door..self.door + BALANCERS).collect();
        let clients = Clients::start(&self.binary("clients"), "shop.example", &ports)?;
        self.clients = Some(clients);
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.clients.as_ref().map(Clients::counts).unwrap_or_default()
    }

    /// What was counted since the chapter began.
    pub(super) fn of_chapter(&self) -> Counts {
        self.counts().since(&self.before)
    }

    /// For how long the chapter lasts.
    pub(super) fn lasts(&self) -> Duration {
        self.begun.elapsed()
    }

    fn traffic(&self) -> Vec<String> {
        let Some(clients) = &self.clients else { return Vec::new() };
        let all = clients.counts();
        let total = format!(
            "   {:3}/s  {} answered  {} failed",
            clients.rate(),
            all.answered,
            all.failures.len()
        );
        let mut lines = vec![total];
        lines.extend(all.since(&self.before).lines());
        lines
    }

    /// Shows what the agent does and what the clients get until `reached` says so; `what` is said when it does not.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        mut reached: impl FnMut(&Self, Option<&Status>) -> Option<T>,
    ) -> Result<T> {
        let waiting = Instant::now();
        loop {
            self.interrupt.check()?;
            if let Some(clients) = &mut self.clients {
                clients.alive()?;
            }
            let agent = self.agent()?;
            agent.alive()?;
            let (status, news) = (agent.status(), agent.news());
            for line in news {
                let line = format!("   {:6.2} s  {line}", self.begun.elapsed().as_secs_f64());
                self.say(&line);
            }
            if let Some(found) = reached(self, status.as_ref()) {
                self.screen.clear();
                return Ok(found);
            }
            if waiting.elapsed() > DEADLINE {
                bail!("not within {} s: {what}", DEADLINE.as_secs());
            }
            let lines = self.traffic();
            self.screen.now(&lines);
            sleep(BEAT);
        }
    }

    /// Waits for `reached` at the newest commit, then shows the table and what the clients got meanwhile.
    pub(super) fn settle(&mut self, reached: impl Fn(&Status) -> bool) -> Result<Status> {
        let commit = self.commit.clone();
        let status = self.until("everything is as the newest commit says", |_, status| {
            status.filter(|s| s.at(&commit) && reached(s)).cloned()
        })?;
        let took = self.begun.elapsed();
        self.say(&format!("   settled after {:.1} s", took.as_secs_f64()));
        if let Some((_, time)) = self.times.last_mut() {
            *time = took;
        }
        self.table()?;
        let lines = self.traffic();
        self.screen.keep(&lines);
        Ok(status)
    }

    fn table(&mut self) -> Result<()> {
        let api = self.agent()?.api;
        let status = run(&self.binary("evenkeel").display().to_string())
            .args(["status", "--color", "never", "--agent", &format!("http://{api}")])
            .read()?;
        for line in services(&status) {
            self.say(&screen::cut(&format!("   {line}")));
        }
        Ok(())
    }

    /// Asks Consul, at one of its servers; `None` when it does not answer with 200.
    pub(super) fn ask_consul(&self, path: &str) -> Option<Value> {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ui));
        let answer = http::get(to, path).ok().filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }

    /// Waits until Consul gives its clients so many of a service, all of them healthy.
    pub(super) fn registered(&mut self, service: &str, count: usize) -> Result<()> {
        let path = format!("/v1/health/service/{service}?passing=1");
        let what = format!("Consul has {count} of {service}");
        self.until(&what, |stage, _| {
            let all = stage.ask_consul(&path)?;
            (all.as_array()?.len() == count).then_some(())
        })?;
        let ui = self.ui;
        self.say(&format!("   $ curl 'http://127.0.0.1:{ui}{path}'    {count} of {service}"));
        Ok(())
    }

    /// Asks for a host name; the service and the version that answer.
    pub(super) fn ask(&mut self, port: u16, host: &str) -> Result<(String, String)> {
        let port = self.door + port;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let answer = http::get_of(at, host, "/")?;
        let said = answer.body.trim();
        self.say(&format!("   $ curl --header 'Host: {host}' http://127.0.0.1:{port}/    {said}"));
        let body: Value = serde_json::from_str(said)?;
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        Ok((text("service"), text("version")))
    }

    /// The last lines of the access logs, one of each balancer.
    pub(super) fn access_logs(&mut self) -> Result<usize> {
        let volume = format!("{}-logs:/logs:ro", self.owner);
        let said = run("docker")
            .args(["run", "--rm", "--label", &format!("evenkeel.dev/owner={}", self.owner)])
            .args(["--volume", &volume, "evenkeel/balancers:1", "sh", "-c"])
            .arg("tail -qn 1 /logs/*.log")
            .read()?;
        for line in said.lines() {
            self.say(&format!("   {line}"));
        }
        Ok(said.lines().filter(|line| line.contains(" 200 ")).count())
    }

    pub(super) fn kill(&mut self, victims: &[&Instance]) -> Result<()> {
        let names: Vec<&str> = victims.iter().map(|v| v.name.as_str()).collect();
        self.say(&format!("   $ docker kill {}", names.join(" ")));
        self.begun = Instant::now();
        run("docker").arg("kill").args(victims.iter().map(|v| &v.id)).read()?;
        if let Some(clients) = &mut self.clients {
            clients.killed();
        }
        Ok(())
    }

    /// The dry run of the same source ends with 0: nothing to do.
    pub(super) fn plans_nothing(&mut self) -> Result<()> {
        let binary = self.binary("evenkeel").display().to_string();
        let said = run(&binary).arg("plan").args(self.source()).read();
        let said = said.context("the dry run has something to do")?;
        // Its counts are those of a first look, before any instance was probed: only the verdict is shown.
        let verdict = said.lines().last().unwrap_or_default();
        self.say(&format!("   $ evenkeel plan --git …    {verdict}"));
        Ok(())
    }

    /// The clients go; all that they counted.
    pub(super) fn stop_clients(&mut self) -> Result<Counts> {
        self.screen.clear();
        let mut clients = self.clients.take().context("there were no clients")?;
        clients.stop()
    }

    pub(super) fn show_log(&mut self) {
        self.screen.clear();
        if let Some(agent) = &self.agent {
            println!("\nthe end of the agent's log:\n{}", agent.last_words(60));
        }
    }

    /// Leaves it running, and says what to try.
    pub(super) fn leave(&mut self) {
        self.summary();
        let Some(agent) = self.agent.take() else { return };
        let _ = fs::write(self.directory.join(sweep::KEPT), "");
        println!(
            "\nIt goes on running. Try:
  cd {repository}
  sed -i '/name: server/,$ s/replicas: 3/replicas: 10/' shop.yaml && git commit -am 'Ten servers'
  sed -i 's/toy:2/toy:broken/' shop.yaml && git commit -am 'A bad release'    # rolled back within seconds
  docker kill {server}_1
  curl http://127.0.0.1:{door}/            # Consul's user interface is at http://127.0.0.1:{ui}/ui/
  {evenkeel} status --watch --agent http://{api}

End it with:
  kill {pid}
  docker rm --force $(docker ps --all --quiet --filter label=evenkeel.dev/owner={owner})
  docker network rm {owner}-net; docker volume rm $(docker volume ls --quiet --filter name={owner}-)
  rm -r {directory}",
            repository = self.repository().display(),
            server = self.service("server"),
            door = self.door,
            ui = self.ui,
            evenkeel = self.binary("evenkeel").display(),
            api = agent.api,
            pid = agent.pid(),
            owner = self.owner,
            directory = self.directory.display(),
        );
    }

    /// Takes everything down.
    pub(super) fn strike(mut self) -> Result<()> {
        self.screen.clear();
        drop(self.clients.take());
        let stopped = self.agent.as_mut().map_or(Ok(()), Agent::stop);
        let removed = sweep::remove(&self.owner);
        let cleared = fs::remove_dir_all(&self.directory).context("cannot remove the directory");
        stopped?;
        let removed = removed?;
        cleared?;
        self.summary();
        println!("cleaned up: the agent, its directory and {removed}");
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

/// The page names the local engine; the one that the environment names is meant.
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

    #[test]
    fn ports_in_a_row_are_found_beside_those_that_are_taken() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        if port < 60_000 {
            assert_ne!(free(port, 3).unwrap(), port);
        }
    }
}
