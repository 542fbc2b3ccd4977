//! One nginx in a container with its driver, and the instances behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use evenkeel::backend::docker::archive;
use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::edge::nginx::{Rendered, boot, drive};
use evenkeel::edge::{At, File, Link, ViewCell};
use evenkeel::model::{
    Balance, BalancerKind, BalancerView, Certificate, Fragments, InstanceId, Listener,
    ListenerProtocol, Pool, PoolName, Route, Routing, Secret, Seen, Server, ServerState,
    ServiceName, Slot, Table, Target,
};
use evenkeel_tests::conformance::until;
use evenkeel_tests::container::reach;
use evenkeel_tests::docker::{Rig, TEST, h1, serial};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BALANCER: &str = "evenkeel/balancers:1";
const TOY: &str = "evenkeel/toy:1";
const LIMIT: Duration = Duration::from_secs(20);

/// The pool of a service's port 8080.
pub(crate) fn pool(service: &str) -> PoolName {
    PoolName::new(&ServiceName::new(service).unwrap(), 8080, None)
}

pub(crate) fn listener(name: &str, port: u16, protocol: ListenerProtocol) -> Listener {
    Listener { name: name.into(), port, protocol, certificates: Vec::new() }
}

pub(crate) fn route(listener: &str, host: Option<&str>, path: &str, service: &str) -> Route {
    let host = host.map(str::to_owned);
    Route { listener: listener.into(), host, path: path.into(), pool: pool(service) }
}

/// A table that is easy to change.
pub(crate) struct Recipe {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Vec<Route>,
    pub(crate) pools: BTreeMap<PoolName, Pool>,
    pub(crate) fragments: Fragments,
    pub(crate) access_log: bool,
    pub(crate) complete: bool,
    servers: BTreeMap<PoolName, Vec<Server>>,
}

impl Default for Recipe {
    /// A listener `http` that nothing leads from.
    fn default() -> Self {
        Self {
            listeners: vec![listener("http", 80, ListenerProtocol::Http)],
            routes: Vec::new(),
            pools: BTreeMap::new(),
            fragments: Fragments::default(),
            access_log: false,
            complete: true,
            servers: BTreeMap::new(),
        }
    }
}

impl Recipe {
    /// The host `web` leads to the service `web`.
    pub(crate) fn web() -> Self {
        let mut recipe = Self::default();
        recipe.routes.push(route("http", Some("web"), "/", "web"));
        recipe.pool("web");
        recipe
    }

    /// Every kind of thing at once.
    pub(crate) fn everything() -> Self {
        let mut recipe = Self::web();
        let made = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Certificate { name: "tls.pem".into(), pem: Secret::new(&pem) };
        recipe.listeners.push(listener("https", 443, ListenerProtocol::Http));
        recipe.listeners.push(listener("db", 5432, ListenerProtocol::Tcp));
        recipe.listeners.push(listener("dbs", 5433, ListenerProtocol::Tcp));
        recipe.listeners[1].certificates = vec![certificate.clone()];
        recipe.listeners[3].certificates = vec![certificate];
        for service in ["sticky", "nobody", "db", "draining"] {
            recipe.pool(service);
        }
        recipe.pools.get_mut(&pool("sticky")).unwrap().cookie = Some("my.cookie-1".into());
        recipe.pools.get_mut(&pool("db")).unwrap().protocol = ListenerProtocol::Tcp;
        let long = format!("{}.example", "x".repeat(63));
        for (listener, host, path, service) in [
            ("http", None, "/", "web"),
            ("http", Some(long.as_str()), "/a/b/", "sticky"),
            ("http", Some("*.example.com"), "/a,b~c", "nobody"),
            ("https", Some("a.example"), "/", "sticky"),
            ("https", None, "/d", "draining"),
            ("db", None, "/", "db"),
            ("dbs", None, "/", "db"),
        ] {
            recipe.routes.push(route(listener, host, path, service));
        }
        let at = |n: u32| Toy::at(format!("10.9.8.{n}:8080").parse().unwrap());
        for slot in 1..=7 {
            recipe.server("web", slot, &at(slot)).server("sticky", slot, &at(slot));
            recipe.server("db", slot, &at(slot));
        }
        recipe.target("web", 2, Target::Drain).target("sticky", 3, Target::Drain);
        recipe.server("draining", 1, &at(99)).target("draining", 1, Target::Drain);
        recipe.fragments = Fragments {
            global: Some("worker_processes 3;\nevents { worker_connections 64; }".into()),
            defaults: Some("client_max_body_size 1m;\n# a comment\ngzip on;".into()),
            frontend: Some("add_header X-Keel even;\nif ($http_x = \"}\") { return 403; }".into()),
            backend: Some("proxy_read_timeout 7s;\nproxy_set_header X-Keel even;".into()),
        };
        recipe
    }

    pub(crate) fn pool(&mut self, service: &str) -> &mut Self {
        let it = Pool {
            service: ServiceName::new(service).unwrap(),
            port: 8080,
            protocol: ListenerProtocol::Http,
            balance: Balance::Roundrobin,
            cookie: None,
            check: None,
            most: 8,
        };
        self.pools.insert(pool(service), it);
        self
    }

    pub(crate) fn server(&mut self, service: &str, slot: u32, toy: &Toy) -> &mut Self {
        let server = Server {
            instance: InstanceId(toy.id.clone().into()),
            name: format!("{service}_{slot}").into(),
            slot: Slot(slot),
            address: toy.address,
            target: Target::Ready,
            sick: false,
        };
        self.servers.entry(pool(service)).or_default().push(server);
        self
    }

    pub(crate) fn target(&mut self, service: &str, slot: u32, target: Target) -> &mut Self {
        let servers = self.servers.get_mut(&pool(service)).unwrap();
        servers.iter_mut().find(|server| server.slot == Slot(slot)).unwrap().target = target;
        self
    }

    pub(crate) fn without(&mut self, service: &str, slot: u32) -> &mut Self {
        self.servers.get_mut(&pool(service)).unwrap().retain(|server| server.slot != Slot(slot));
        self
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        let routing = Routing {
            kind: BalancerKind::Nginx,
            listeners: self.listeners.clone(),
            routes: self.routes.clone(),
            pools: self.pools.clone(),
            fragments: self.fragments.clone(),
            access_log: self.access_log,
            drain: Duration::from_secs(10),
            external: vec![],
        };
        Arc::new(Table {
            routing: Arc::new(routing),
            servers: self.servers.clone(),
            complete: self.complete,
            held: false,
        })
    }
}

/// A running instance of the toy.
#[derive(Debug, Clone)]
pub(crate) struct Toy {
    pub(crate) address: SocketAddr,
    id: String,
}

impl Toy {
    fn at(address: SocketAddr) -> Self {
        Self { address, id: "0123456789abcdef".into() }
    }

    /// What it calls itself.
    pub(crate) fn instance(&self) -> &str {
        &self.id[..12]
    }
}

/// One nginx with its driver.
pub(crate) struct Edge {
    rig: Rig,
    id: String,
    address: IpAddr,
    agent: Agent,
}

struct Agent {
    orders: watch::Sender<Arc<Table>>,
    view: ViewCell,
    bell: Doorbell,
    tasks: JoinSet<()>,
}

impl Edge {
    /// With the first table.
    pub(crate) async fn new(first: Recipe) -> Self {
        let rig = Rig::new().await;
        rig.watch_local();
        until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
        let boot = boot();
        let body = ContainerCreateBody {
            image: Some(BALANCER.into()),
            entrypoint: Some(boot.command),
            cmd: Some(boot.args),
            stop_signal: Some(boot.stop_signal.into()),
            ..ContainerCreateBody::default()
        };
        let (id, address) = start(&rig, body, &boot.files).await;
        let agent = Agent::start(&rig, &id, &first);
        let edge = Self { rig, id, address, agent };
        edge.until("it listens", |view| view.listening).await;
        edge
    }

    /// The agent ends and another begins, which is told the same.
    pub(crate) async fn restart_agent(self) -> Self {
        let Self { rig, id, address, mut agent } = self;
        agent.tasks.shutdown().await;
        let table = agent.orders.borrow().clone();
        let agent = Agent::with(&rig, &id, table);
        Self { rig, id, address, agent }
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.at(80)
    }

    /// An instance of a service that answers.
    pub(crate) async fn toy(&self, service: &str) -> Toy {
        self.slow_toy(service, "0").await
    }

    pub(crate) async fn slow_toy(&self, service: &str, slow: &str) -> Toy {
        let body = ContainerCreateBody {
            image: Some(TOY.into()),
            env: Some(vec![format!("SERVICE={service}"), format!("TOY_SLOW={slow}")]),
            ..ContainerCreateBody::default()
        };
        let (id, address) = start(&self.rig, body, &[]).await;
        let address = SocketAddr::new(address, 8080);
        let wait = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("the toy listens");
        Toy { address, id }
    }

    /// Its container dies, and its address with it.
    pub(crate) async fn kill(&self, toy: &Toy) {
        self.rig.docker.kill_container(&toy.id, None).await.unwrap();
    }

    pub(crate) fn publish(&self, recipe: &Recipe) {
        self.agent.orders.send_replace(recipe.table());
    }

    pub(crate) fn view(&self) -> Arc<BalancerView> {
        self.agent.view.get()
    }

    /// Publishes, and waits until all of it is in force.
    pub(crate) async fn follow(&self, recipe: &Recipe) -> BalancerView {
        self.publish(recipe);
        let wanted: BTreeSet<(PoolName, SocketAddr, ServerState)> = recipe
            .servers
            .iter()
            .flat_map(|(pool, servers)| servers.iter().map(|s| (pool.clone(), s.address, state(s))))
            .collect();
        let what = format!("in force: {wanted:?}");
        let follows = |view: &BalancerView| {
            let servers = view.servers.iter().map(|((p, at), s)| (p.clone(), *at, s.state));
            view.listening
                && recipe.pools.keys().all(|pool| view.pools.contains(pool))
                && servers.collect::<BTreeSet<_>>() == wanted
        };
        let view = self.until(&what, follows).await;
        BalancerView::clone(&view)
    }

    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&BalancerView) -> bool,
    ) -> Arc<BalancerView> {
        let wait = async {
            loop {
                let view = self.view();
                if wanted(&view) {
                    return view;
                }
                self.agent.bell.rung().await;
            }
        };
        let view = tokio::time::timeout(LIMIT, wait).await;
        view.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.view()))
    }

    /// What a shell command in the balancer's container says.
    pub(crate) async fn run(&self, script: &str) -> String {
        let container = reach(&self.rig, &self.id);
        container.exec(&["bash", "-c", script]).await.unwrap().text
    }

    /// Repeats a command until what it says is as wanted.
    pub(crate) async fn until_run(&self, what: &str, script: &str, wanted: impl Fn(&str) -> bool) {
        let wait = async { while !wanted(&self.run(script).await) {} };
        assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "never: {what}");
    }

    /// What nginx has against a configuration; nothing, if it takes it.
    pub(crate) async fn check(&self, rendered: &Rendered) -> String {
        let mut files: Vec<File> = rendered.certificates.iter().map(|(_, f)| f.clone()).collect();
        let content = rendered.text.clone().into_bytes();
        files.push(File { path: "/tmp/check.conf".into(), content, mode: 0o644 });
        reach(&self.rig, &self.id).put(&files).await.unwrap();
        self.run("nginx -t -q -c /tmp/check.conf 2>&1").await
    }
}

impl Agent {
    fn start(rig: &Rig, id: &str, first: &Recipe) -> Self {
        Self::with(rig, id, first.table())
    }

    fn with(rig: &Rig, id: &str, table: Arc<Table>) -> Self {
        let (orders, receiver) = watch::channel(table);
        let (bell, clock) = (Doorbell::new(), Clock::real());
        let view = ViewCell::new(BalancerView::never(clock.now()), bell.clone());
        let container = reach(rig, id);
        let link =
            Link { at: At::Container(container), orders: receiver, view: view.clone(), clock };
        let mut tasks = JoinSet::new();
        tasks.spawn(drive(link));
        Self { orders, view, bell, tasks }
    }
}

fn state(server: &Server) -> ServerState {
    match server.target {
        Target::Ready => ServerState::Up,
        Target::Drain => ServerState::Draining,
    }
}

/// Makes and starts a container with files in it; tells its id and its address.
async fn start(rig: &Rig, body: ContainerCreateBody, files: &[File]) -> (String, IpAddr) {
    let image = body.image.clone().unwrap_or_default();
    let body = ContainerCreateBody {
        labels: Some([(TEST.to_owned(), rig.owner.to_string())].into()),
        host_config: Some(HostConfig {
            tmpfs: Some([("/var/log/evenkeel".to_owned(), String::new())].into()),
            ..HostConfig::default()
        }),
        ..body
    };
    let name = format!("{}-{}", rig.owner, serial());
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let made = rig.docker.create_container(Some(options), body).await;
    let made = made.unwrap_or_else(|e| panic!("{image}: {e}; `cargo xtask images` makes it"));
    if !files.is_empty() {
        let to = UploadToContainerOptionsBuilder::default().path("/").build();
        let body = bollard::body_full(archive(files).unwrap());
        rig.docker.upload_to_container(&made.id, Some(to), body).await.unwrap();
    }
    rig.docker.start_container(&made.id, None).await.unwrap();
    let seen = rig.docker.inspect_container(&made.id, None).await.unwrap();
    let networks = seen.network_settings.unwrap().networks.unwrap();
    let address = networks.values().next().unwrap().ip_address.clone().unwrap();
    (made.id, address.parse().unwrap())
}
