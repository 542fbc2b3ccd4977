//! Balancers that run already: HAProxy and nginx that somebody else started, here in containers in the machine's own
//! network, with their configuration on the machine. Any command will do to reload them; here it is `docker kill`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use evenkeel_tests::agent::{Agent, Bed, LONG, Service, TOY_2, free_port, until, waits};
use evenkeel_tests::balancer::BALANCERS;
use evenkeel_tests::docker::TEST;
use evenkeel_tests::load::{Load, Plan, Report, get};
use evenkeel_tests::pki::{asked_by_tls, self_signed};
use evenkeel_tests::traffic::{HOST, Provider};
use tokio::time::Instant;

/// Requests that every stage has at least.
const LEAST: usize = 400;

/// Somebody else's balancer, and an agent that is told of it.
struct Outside {
    load: Option<Load>,
    agent: Agent,
    bed: Bed,
    provider: Provider,
    container: String,
    /// Where it leads to services.
    port: u16,
    /// Where it answers what its own configuration says.
    theirs: u16,
    status: u16,
    web: Service,
    /// More of the provider's section.
    more: String,
    /// More listeners.
    listeners: String,
    reload: String,
}

impl Drop for Outside {
    fn drop(&mut self) {
        docker(&["rm", "--force", &self.container]);
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// What its own configuration says, in a directory that it and the machine know under one name.
fn configure(provider: Provider, dir: &str, theirs: u16) {
    let text = match provider {
        Provider::Haproxy => format!(
            "global
    stats socket {dir}/admin.sock mode 666 level admin expose-fd listeners
    hard-stop-after 20s
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend theirs
    bind 127.0.0.1:{theirs}
    http-request return status 200 content-type text/plain string theirs
"
        ),
        Provider::Nginx => format!(
            "worker_processes 2;
worker_shutdown_timeout 20s;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    server_tokens off;
    include {dir}/conf.d/*.conf;
    server {{ listen 127.0.0.1:{theirs}; location / {{ return 200 theirs; }} }}
}}
"
        ),
    };
    fs::create_dir_all(format!("{dir}/conf.d")).unwrap();
    fs::write(format!("{dir}/main"), text).unwrap();
    fs::write(format!("{dir}/conf.d/edge.conf"), "").unwrap();
}

impl Outside {
    async fn new(provider: Provider) -> Self {
        let bed = Bed::new().await;
        let dir = bed.dir().join("outside").display().to_string();
        fs::create_dir_all(&dir).unwrap();
        let [port, theirs, status] = [free_port(), free_port(), free_port()];
        configure(provider, &dir, theirs);
        let container = format!("{}-outside", bed.owner);
        let (volume, label) = (format!("{dir}:{dir}"), format!("{TEST}={}", bed.owner));
        let (main, ours) = (format!("{dir}/main"), format!("{dir}/conf.d/edge.conf"));
        let mut run = vec!["run", "--detach", "--network", "host", "--name", &container];
        run.extend(["--volume", &volume, "--label", &label, BALANCERS]);
        match provider {
            Provider::Haproxy => run.extend(["haproxy", "-W", "-db", "-f", &main, "-f", &ours]),
            Provider::Nginx => run.extend(["nginx", "-g", "daemon off;", "-c", &main]),
        }
        docker(&run);
        let mut web = bed.service("web", 5).rollout("maxSurge: 1, progressDeadline: 60s");
        web.termination = "drain: 5s, grace: 5s, signal: SIGKILL".into();
        let route =
            format!("routes: [{{loadBalancer: edge, listener: http, host: {HOST}, port: http}}]");
        let web = web.env("TOY_SLOW", "100ms").more(&route);
        let agent = with_secrets(&bed);
        let signal = if provider == Provider::Haproxy { "USR2" } else { "HUP" };
        let reload = format!("[docker, kill, -s, {signal}, {container}]");
        let (more, listeners) = (String::new(), String::new());
        let load = None;
        Self {
            load,
            agent,
            bed,
            provider,
            container,
            port,
            theirs,
            status,
            web,
            more,
            listeners,
            reload,
        }
    }

    fn dir(&self) -> String {
        self.bed.dir().join("outside").display().to_string()
    }

    fn ours(&self) -> String {
        format!("{}/conf.d/edge.conf", self.dir())
    }

    fn text(&self) -> String {
        fs::read_to_string(self.ours()).unwrap()
    }

    /// The balancer's document.
    fn document(&self) -> String {
        let Self { provider, container, port, status, more, listeners, reload, .. } = self;
        let (dir, ours) = (self.dir(), self.ours());
        let how = match provider {
            Provider::Haproxy => format!(
                "runtimeSocket: {dir}/admin.sock, check: [docker, exec, {container}, haproxy, -c, -f, {dir}/main, -f, \
                 \"{{candidate}}\"]"
            ),
            Provider::Nginx => format!(
                "status: \"127.0.0.1:{status}\", check: [docker, exec, {container}, nginx, -t, -c, {dir}/main]"
            ),
        };
        format!(
            "apiVersion: evenkeel.dev/v1alpha1
kind: LoadBalancer
metadata: {{name: edge}}
spec:
  provider: {{{provider}: {{external: [{{configFile: {ours}, reload: {reload}, {how}}}]{more}}}}}
  listeners: [{{name: http, port: {port}}}{listeners}]
"
        )
    }

    /// Commits the balancer and the service as they are now asked for.
    fn commit(&self) -> String {
        self.bed.repo.write("edge.yaml", self.document());
        self.bed.repo.put(&self.web)
    }

    async fn settled(&mut self, commit: &str) {
        self.agent.settled(&self.web.clone(), commit).await;
    }

    async fn says(&self, port: u16, host: &str) -> String {
        match get(at(port), host, "/").await {
            Ok(answer) => format!("{}", answer.status),
            Err(_) => "nobody".into(),
        }
    }

    /// The processes of the balancer that take connections.
    fn workers(&self) -> BTreeSet<String> {
        let all = docker(&["top", &self.container, "-eo", "pid,args"]);
        let worker = |line: &&str| match self.provider {
            Provider::Haproxy => line.contains("haproxy"),
            Provider::Nginx => line.contains("worker process") && !line.contains("shutting down"),
        };
        let pid = |line: &str| Some(line.split_whitespace().next()?.to_owned());
        all.lines().filter(worker).filter_map(pid).collect()
    }

    fn start_load(&mut self) {
        let (at, host) = (vec![at(self.port)], HOST.into());
        self.load = Some(Load::start(Plan { at, host, path: "/".into(), rate: 50, workers: 12 }));
    }

    async fn stage(&self, what: &str, begun: Instant) -> Report {
        let load = self.load.as_ref().unwrap();
        load.more(1).await;
        load.until(LEAST).await;
        let report = load.take();
        eprintln!("{what} ({:.1} s): {report}", begun.elapsed().as_secs_f64());
        report
    }

    /// Not one request is lost, and what is not ours goes on.
    async fn well(&self, what: &str, begun: Instant) {
        let report = self.stage(what, begun).await;
        assert!(report.failures.is_empty(), "{what}: {report}\n{:#?}", report.failures.first());
        assert_eq!(self.says(self.theirs, "theirs").await, "200", "{what}");
    }

    /// Waits until a service says why.
    async fn until_said(&mut self, what: &str) {
        self.agent.until(what, |s| waits(s).contains(what)).await;
    }

    /// Scales, rolls, and loses its agent, under load.
    async fn change_under_load(&mut self) {
        let commit = self.commit();
        self.settled(&commit).await;
        until("requests are led to it", LONG, async || {
            (self.says(self.port, HOST).await == "200").then_some(())
        })
        .await;
        assert!(self.text().starts_with(&format!("# written by evenkeel for {}", self.bed.owner)));
        self.start_load();
        let begun = Instant::now();
        let before = self.workers();
        for replicas in [7, 4, 5] {
            self.web = self.web.replicas(replicas);
            let commit = self.commit();
            self.settled(&commit).await;
        }
        self.well("scaled 5 to 7 to 4 to 5", begun).await;
        if self.provider == Provider::Haproxy {
            assert_eq!(self.workers(), before, "endpoints changed, and HAProxy was reloaded");
        }

        let begun = Instant::now();
        self.web = self.web.image(TOY_2);
        let commit = self.commit();
        self.settled(&commit).await;
        self.well("rolled", begun).await;

        let begun = Instant::now();
        let (before, text) = (self.workers(), self.text());
        self.agent.kill();
        self.load.as_ref().unwrap().more(2).await;
        self.agent = with_secrets(&self.bed);
        self.settled(&commit).await;
        self.load.as_ref().unwrap().more(3).await;
        assert_eq!((self.workers(), self.text()), (before, text), "all was as it should be");
        self.well("agent killed and back", begun).await;
    }

    /// What is refused, or cannot be told, changes nothing.
    async fn refusals(&mut self) {
        let good = (self.reload.clone(), self.more.clone());
        let (before, begun) = (self.workers(), Instant::now());
        let route = |host: &str| {
            format!("routes: [{{loadBalancer: edge, listener: http, host: {host}, port: http}}]")
        };
        // A second service is structure, and the command that brings it into force fails.
        self.reload = "[sh, -c, \"echo it is not my day >&2; exit 3\"]".into();
        let second = self.bed.service("api", 1).more(&route("api-test"));
        // In one commit, or the service would get through before the command fails.
        self.bed.repo.write("edge.yaml", self.document());
        self.bed.repo.put(&second);
        self.until_said("it is not my day").await;
        assert_eq!(self.says(self.port, "api-test").await, "404");
        assert_eq!(self.workers(), before);
        // With the command mended it gets through, less what is refused.
        (self.reload, self.more) = good.clone();
        self.more = ", fragments: {frontend: \"nonsense here;\"}".into();
        self.commit();
        self.until_said("nonsense").await;
        until("the second service is led to", LONG, async || {
            (self.says(self.port, "api-test").await == "200").then_some(())
        })
        .await;
        self.more = good.1;
        let commit = self.commit();
        self.settled(&commit).await;
        // A reload that is still on its way would bring in force whatever is in the file by then.
        self.agent.until("it follows in full", |s| !waits(s).contains("balancer-behind")).await;

        // Somebody takes the file for his own: it stays as he has it, and so does what is in force.
        let text = self.text();
        fs::write(self.ours(), "# mine\n").unwrap();
        let third = self.bed.service("third", 1).more(&route("third-test"));
        self.bed.repo.put(&third);
        self.until_said("was not written by evenkeel").await;
        assert_eq!(self.text(), "# mine\n");
        assert_eq!(self.says(self.port, "api-test").await, "200");
        fs::write(self.ours(), text).unwrap();
        until("the third service is led to", LONG, async || {
            (self.says(self.port, "third-test").await == "200").then_some(())
        })
        .await;
        self.well("refusals", begun).await;
    }

    /// TLS with a certificate that is renewed, one with another's key, and none any more.
    async fn certificates(&mut self) {
        let (begun, port, before) = (Instant::now(), free_port(), self.web.clone());
        let route = |listener: &str| {
            format!("{{loadBalancer: edge, listener: {listener}, host: {HOST}, port: http}}")
        };
        let first = self.renew();
        self.listeners =
            format!(", {{name: https, port: {port}, certificates: [{{name: tls, key: all.pem}}]}}");
        self.web.more.clear();
        self.web = self.web.more(&format!("routes: [{}, {}]", route("http"), route("https")));
        let commit = self.commit();
        self.settled(&commit).await;
        trusts(port, &first).await;
        let second = self.renew();
        trusts(port, &second).await;
        until("the key that was replaced is gone", LONG, async || {
            (self.keys().len() == 1).then_some(())
        })
        .await;

        // With the key of another it is known before any balancer is asked, and the one before goes on.
        let file = self.bed.dir().join("secrets/tls/all.pem");
        let good = fs::read_to_string(&file).unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let (cert, _) = good.split_at(good.find("-----BEGIN PRIVATE KEY").unwrap());
        fs::write(&file, format!("{cert}{other}")).unwrap();
        self.agent
            .until("the wrong key is told", |s| {
                let source = s.source.iter().flat_map(|source| &source.problems);
                source
                    .into_iter()
                    .any(|p| p.message.contains("not the one of its first certificate"))
            })
            .await;
        trusts(port, &second).await;
        assert_eq!(self.says(self.port, HOST).await, "200", "the other listener goes on");
        let third = self.renew();
        trusts(port, &third).await;

        self.listeners.clear();
        self.web = before;
        let commit = self.commit();
        self.settled(&commit).await;
        until("no key is left", LONG, async || self.keys().is_empty().then_some(())).await;
        assert_eq!(self.says(port, HOST).await, "nobody");
        self.well("certificates", begun).await;
    }

    /// A new certificate in the secret, as its clients trust it.
    fn renew(&self) -> String {
        let (cert, key) = self_signed(HOST);
        let dir = self.bed.dir().join("secrets/tls");
        fs::create_dir_all(&dir).unwrap();
        // At once, as whoever renews certificates does.
        fs::write(dir.join(".new"), format!("{cert}{key}")).unwrap();
        fs::rename(dir.join(".new"), dir.join("all.pem")).unwrap();
        cert
    }

    /// The keys beside the configuration.
    fn keys(&self) -> Vec<PathBuf> {
        let Ok(all) = fs::read_dir(format!("{}.certificates", self.ours())) else { return vec![] };
        let paths = all.flatten().map(|entry| entry.path());
        let key = |path: &PathBuf| {
            fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY"))
        };
        paths.filter(key).collect()
    }

    /// It is killed and comes back with what it had.
    async fn killed(&mut self) {
        let load = self.load.take().unwrap().end().await;
        assert!(load.failures.is_empty(), "{load}");
        docker(&["kill", &self.container]);
        // Who is asked for meanwhile gets in once it is back.
        self.web = self.web.replicas(6);
        let commit = self.commit();
        until("six run", LONG, async || (self.bed.of(&self.web).await.len() == 6).then_some(()))
            .await;
        docker(&["start", &self.container]);
        self.settled(&commit).await;
        assert_eq!(self.says(self.port, HOST).await, "200");
        self.bed.nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_haproxy_is_kept_right() {
    let mut outside = Outside::new(Provider::Haproxy).await;
    outside.change_under_load().await;
    outside.refusals().await;
    outside.certificates().await;
    outside.killed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_nginx_is_kept_right() {
    let mut outside = Outside::new(Provider::Nginx).await;
    outside.change_under_load().await;
    outside.refusals().await;
    outside.certificates().await;
    outside.killed().await;
}

fn with_secrets(bed: &Bed) -> Agent {
    let secrets = bed.dir().join("secrets");
    fs::create_dir_all(&secrets).unwrap();
    bed.agent_with(&["--interval", "1s", "--secrets", secrets.to_str().unwrap()])
}

/// Waits until somebody who trusts this certificate alone is answered.
async fn trusts(port: u16, cert: &str) {
    until("it speaks TLS with the certificate", LONG, async || {
        (asked_by_tls(HOST, port, cert).await? == 200).then_some(())
    })
    .await;
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
