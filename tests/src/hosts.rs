//! The three Docker hosts that `cargo xtask testbed hosts up 3` makes on this machine, for one test at a time.
//!
//! Whoever has them finds them whole: connected, with an engine that answers, and with nothing of a test that is gone.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bollard::Docker;
use futures::future::join_all;
use tokio::time::timeout;

use crate::agent::{Bed, Seen, TOY, asked};
use crate::docker::{Age, sweep_at, sweep_dead};

/// This machine, as the hosts reach it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where the testbed keeps what it needs.
const ROOT: &str = "/var/lib/evenkeel-testbed";
/// An engine that does not answer within this is none.
const ANSWERS: Duration = Duration::from_secs(5);

/// One host.
pub struct Host {
    /// `h1`, …: what documents call it.
    pub name: String,
    /// Where its published ports are.
    pub ip: IpAddr,
    /// Its engine.
    pub docker: Docker,
}

/// All three, with nobody else at them.
pub struct Hosts {
    /// `h1`, `h2`, `h3`.
    pub all: [Host; 3],
    owner: String,
    shared: PathBuf,
    _alone: File,
}

impl Hosts {
    /// Waits until no other test has them, and makes them whole; what `bed` leaves on them is swept at the end.
    pub async fn claim(bed: &Bed) -> Self {
        let there = Path::new(ROOT).is_dir();
        assert!(there, "there are no hosts; make them with `cargo xtask testbed hosts up 3`");
        let file = File::create(Path::new(ROOT).join("tests.lock")).expect("root makes the hosts");
        let alone = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        let shared = Path::new(ROOT).join("shared").join(&bed.owner);
        let all = [1, 2, 3].map(Host::new);
        let hosts = Self { all, owner: bed.owner.clone(), shared, _alone: alone.unwrap().unwrap() };
        hosts.mend();
        if !hosts.whole().await {
            hosts.revive();
            assert!(hosts.whole().await, "the hosts do not come up");
        }
        for host in &hosts.all {
            sweep_dead(&host.docker, Age::Any).await;
        }
        hosts.refresh();
        hosts
    }

    /// Starts engines that were killed once more, now that they have no containers: what they took over is not free
    /// again for them when it is gone, first of all published ports.
    fn refresh(&self) {
        let stale: Vec<&Host> = self.all.iter().filter(|h| h.scar().exists()).collect();
        for host in &stale {
            if let Some(engine) = host.engine() {
                run("kill", &["-KILL", &engine]);
            }
        }
        if !stale.is_empty() {
            self.revive();
        }
        for host in stale {
            fs::remove_file(host.scar()).unwrap();
        }
    }

    /// Whether all engines answer and have the images.
    async fn whole(&self) -> bool {
        let each = self.all.iter().map(|h| timeout(ANSWERS, h.docker.inspect_image(TOY)));
        join_all(each).await.into_iter().all(|answer| matches!(answer, Ok(Ok(_))))
    }

    /// Connects whoever was cut off.
    pub fn mend(&self) {
        self.all.iter().for_each(Host::mend);
    }

    /// Starts every engine that was killed. Containers that outlived theirs are taken over.
    pub fn revive(&self) {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut up = Command::new(cargo);
        up.args(["xtask", "testbed", "hosts", "up", "3"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        let out = up.output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
    }

    /// The host of this name.
    pub fn get(&self, name: &str) -> &Host {
        self.all.iter().find(|h| h.name == name).expect("h1 to h3")
    }

    /// A directory that is the same one on every host.
    pub fn shared(&self) -> &Path {
        fs::create_dir_all(&self.shared).unwrap();
        &self.shared
    }

    /// Every container of a service on hosts whose engine answers, each with its host.
    pub async fn of(&self, service: &str) -> Vec<(&Host, Seen)> {
        let each = self.all.iter().map(|host| timeout(ANSWERS, host.of(&self.owner, service)));
        let found = join_all(each).await.into_iter().zip(&self.all);
        found
            .flat_map(|(all, host)| all.unwrap_or_default().into_iter().map(move |c| (host, c)))
            .collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.mend();
        // Where that fails, and after a test that was killed, the next one does it.
        let peace = !std::thread::panicking();
        if peace && self.all.iter().any(|host| host.engine().is_none()) {
            self.revive();
        }
        for host in &self.all {
            sweep_at(Some(&host.endpoint()), &self.owner);
        }
        if peace {
            self.refresh();
        }
        let _ = fs::remove_dir_all(&self.shared);
    }
}

impl Host {
    fn new(n: u8) -> Self {
        let ip = IpAddr::from([10, 77, 0, 10 + n]);
        let at = format!("http://{ip}:2375");
        let docker = Docker::connect_with_http(&at, 120, bollard::API_DEFAULT_VERSION).unwrap();
        Self { name: format!("h{n}"), ip, docker }
    }

    /// How its engine is reached.
    pub fn endpoint(&self) -> String {
        format!("tcp://{}:2375", self.ip)
    }

    /// The network interface in front of it, its namespace and its directory are called so.
    fn link(&self) -> String {
        format!("ek-{}", self.name)
    }

    async fn of(&self, owner: &str, service: &str) -> Vec<Seen> {
        let all = asked(&self.docker, owner).await.unwrap_or_default();
        all.into_iter().filter(|c| c.service == service).collect()
    }

    /// From now on it reaches nobody and nobody reaches it; it runs on.
    pub fn cut(&self) {
        run("ip", &["link", "set", &self.link(), "down"]);
    }

    /// The opposite.
    pub fn mend(&self) {
        run("ip", &["link", "set", &self.link(), "up"]);
    }

    /// What a program says that runs within its network.
    pub fn inside(&self, program: &str, args: &[&str]) -> String {
        let namespace = format!("--net=/run/netns/{}", self.link());
        run("nsenter", &[&[namespace.as_str(), program], args].concat())
    }

    /// Whether an address is its own now.
    pub fn has(&self, address: &str) -> bool {
        self.inside("ip", &["-4", "-o", "address"]).contains(&format!(" {address}/"))
    }

    /// The process of its engine, while it lives.
    fn engine(&self) -> Option<String> {
        let directory = Path::new(ROOT).join(self.link());
        let pid = fs::read_to_string(directory.join("pid")).ok()?.trim().to_owned();
        let line = fs::read(Path::new("/proc").join(&pid).join("cmdline")).ok()?;
        let ours = String::from_utf8_lossy(&line).contains(directory.to_str()?);
        ours.then_some(pid)
    }

    /// Says that its engine was killed.
    fn scar(&self) -> PathBuf {
        Path::new(ROOT).join(self.link()).join("was-killed")
    }

    /// SIGKILL to its engine. Containers run on.
    pub fn kill_engine(&self) {
        File::create(self.scar()).unwrap();
        run("kill", &["-KILL", &self.engine().expect("its engine runs")]);
    }

    /// Its power fails: the engine and every container are gone at once, without a word to anybody.
    pub async fn die(&self) {
        let mut pids = Vec::new();
        for c in self.docker.list_containers(None).await.unwrap() {
            let found = self.docker.inspect_container(&c.id.unwrap(), None).await.unwrap();
            pids.extend(found.state.and_then(|s| s.pid).map(|pid| pid.to_string()));
        }
        self.cut();
        self.kill_engine();
        let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
        if !pids.is_empty() {
            run("kill", &[&["-KILL"], &*pids].concat());
        }
    }
}

fn text(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|said| String::from_utf8_lossy(said)).concat()
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", text(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
