//! A balancer in a container, driven as the agent drives it, with toys behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use evenkeel::backend::docker::archive;
use evenkeel::bell::Doorbell;
use evenkeel::clock::Clock;
use evenkeel::edge::{At, Boot, Container, Link, ViewCell};
use evenkeel::model::{
    Balance, BalancerKind, BalancerView, Fragments, InstanceId, Listener, ListenerProtocol, Pool,
    PoolName, Probe, ProbeKind, Route, Routing, Seen, Server, ServerState, ServerView, ServiceName,
    Slot, Table, Target,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::agent::{LONG, until};
use crate::container::reach;
use crate::docker::{Rig, TEST, h1, serial};

/// The programs that balance.
pub const BALANCERS: &str = "evenkeel/balancers:1";
/// What is behind them.
pub const TOY: &str = "evenkeel/toy:1";

/// One balancer and its driver.
pub struct Balancer {
    /// The engine, and what removes it all at the end.
    pub rig: Rig,
    /// The balancer's container.
    pub id: String,
    /// The same, as the driver has it.
    pub container: Arc<dyn Container>,
    /// Its address.
    pub ip: String,
    /// What it is told.
    pub orders: watch::Sender<Arc<Table>>,
    view: ViewCell,
    driver: JoinSet<()>,
}

/// A table without anything.
pub fn nothing(kind: BalancerKind) -> Table {
    let routing = Routing {
        kind,
        listeners: vec![],
        routes: vec![],
        pools: BTreeMap::new(),
        fragments: Fragments::default(),
        access_log: false,
        drain: Duration::from_secs(10),
        external: vec![],
    };
    Table { routing: Arc::new(routing), servers: BTreeMap::new(), complete: true, held: false }
}

/// A pool of HTTP on port 8080, checked quickly.
pub fn web(table: &mut Table, service: &str, most: u32) -> PoolName {
    let name = ServiceName::new(service).unwrap();
    let pool = PoolName::new(&name, 8080, None);
    let check = Probe {
        kind: ProbeKind::Http { path: "/healthz".into() },
        port: 8080,
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(2),
        failure_threshold: 2,
        start_period: Duration::ZERO,
    };
    let what = Pool {
        service: name,
        port: 8080,
        protocol: ListenerProtocol::Http,
        balance: Balance::Roundrobin,
        cookie: None,
        check: Some(check),
        most,
    };
    Arc::make_mut(&mut table.routing).pools.insert(pool.clone(), what);
    pool
}

/// A listener of HTTP.
pub fn listen(table: &mut Table, name: &str, port: u16) {
    Arc::make_mut(&mut table.routing).listeners.push(Listener {
        name: name.into(),
        port,
        protocol: ListenerProtocol::Http,
        certificates: vec![],
    });
}

/// A rule.
pub fn route(table: &mut Table, listener: &str, host: Option<&str>, path: &str, pool: &PoolName) {
    Arc::make_mut(&mut table.routing).routes.push(Route {
        listener: listener.into(),
        host: host.map(String::from),
        path: path.into(),
        pool: pool.clone(),
    });
}

/// Who is in a pool: slots, addresses and targets.
pub fn serve(table: &mut Table, pool: &PoolName, all: &[(u32, SocketAddr, Target)]) {
    let server = |(slot, address, target): &(u32, SocketAddr, Target)| Server {
        instance: InstanceId(format!("i{address}").into()),
        name: format!("{pool}_{slot}").into(),
        slot: Slot(*slot),
        address: *address,
        target: *target,
        sick: false,
    };
    table.servers.insert(pool.clone(), all.iter().map(server).collect());
}

impl Balancer {
    /// Starts a container with `boot`; nobody drives it yet.
    pub async fn start(boot: Boot) -> Self {
        let rig = Rig::new().await;
        rig.watch_local();
        until("the host answers", LONG, async || rig.backend.engine(&h1()).map(drop)).await;
        let Boot { command, args, files, stop_signal } = boot;
        let body = ContainerCreateBody {
            image: Some(BALANCERS.into()),
            entrypoint: Some(command),
            cmd: Some(args),
            stop_signal: Some(stop_signal.into()),
            labels: Some([(TEST.to_owned(), rig.owner.to_string())].into()),
            ..ContainerCreateBody::default()
        };
        let name = format!("{}-lb", rig.owner);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let id = rig.docker.create_container(Some(options), body).await.unwrap().id;
        let to = UploadToContainerOptionsBuilder::default().path("/").build();
        let files = bollard::body_full(archive(&files).unwrap());
        rig.docker.upload_to_container(&id, Some(to), files).await.unwrap();
        rig.docker.start_container(&id, None).await.unwrap();
        let ip = address(&rig, &id).await;
        let container = reach(&rig, &id);
        let view = never();
        let (orders, _) = watch::channel(Arc::new(nothing(BalancerKind::Haproxy)));
        Self { rig, id, container, ip, orders, view, driver: JoinSet::new() }
    }

    /// Has it driven, from now on by this driver only.
    pub async fn drive<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        table: &Table,
        drive: impl FnOnce(Link) -> F,
    ) {
        self.driver.shutdown().await;
        let (orders, received) = watch::channel(Arc::new(table.clone()));
        self.orders = orders;
        self.view = never();
        self.driver.spawn(drive(Link {
            at: At::Container(Arc::clone(&self.container)),
            orders: received,
            view: self.view.clone(),
            clock: Clock::real(),
        }));
    }

    /// Says what it should do.
    pub fn order(&self, table: &Table) {
        self.orders.send_replace(Arc::new(table.clone()));
    }

    /// What it has in force.
    pub fn view(&self) -> Arc<BalancerView> {
        self.view.get()
    }

    /// Waits for a view.
    pub async fn until(
        &self,
        what: &str,
        test: impl Fn(&BalancerView) -> bool,
    ) -> Arc<BalancerView> {
        let wait = async {
            loop {
                let view = self.view();
                if test(&view) {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let found = tokio::time::timeout(LONG / 3, wait).await;
        found.unwrap_or_else(|_| panic!("in vain: {what}\n{:#?}", self.view()))
    }

    /// Waits until it has a table in force as it was told, every ready server up.
    pub async fn follows(&self, table: &Table) -> Arc<BalancerView> {
        self.until("it follows", |view| follows(view, table)).await
    }

    /// Starts `n` toys of a service; returns where they are.
    pub async fn toys(&self, service: &str, n: u32) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for _ in 0..n {
            let body = ContainerCreateBody {
                image: Some(TOY.into()),
                env: Some(vec![format!("SERVICE={service}")]),
                labels: Some([(TEST.to_owned(), self.rig.owner.to_string())].into()),
                ..ContainerCreateBody::default()
            };
            let name = format!("{}-{service}-{}", self.rig.owner, serial());
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let id = self.rig.docker.create_container(Some(options), body).await.unwrap().id;
            self.rig.docker.start_container(&id, None).await.unwrap();
            let at: SocketAddr = format!("{}:8080", address(&self.rig, &id).await).parse().unwrap();
            until("a toy answers", LONG, async || TcpStream::connect(at).await.ok()).await;
            all.push(at);
        }
        all
    }

    /// One request on a connection of its own.
    pub async fn get(&self, port: u16, host: &str, path: &str) -> Option<(u16, String)> {
        let stream = TcpStream::connect((self.ip.as_str(), port)).await.ok()?;
        let mut client = Client { stream, ends: false };
        let answer = tokio::time::timeout(Duration::from_secs(30), client.get(host, path)).await;
        answer.ok().flatten()
    }

    /// The service whose toy answers.
    pub async fn who(&self, port: u16, host: &str, path: &str) -> String {
        match self.get(port, host, path).await {
            Some((200, body)) => {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                body["service"].as_str().unwrap().to_owned()
            }
            Some((code, _)) => code.to_string(),
            None => "nobody".into(),
        }
    }
}

/// Whether a view shows all of a table, and nothing else.
pub fn follows(view: &BalancerView, table: &Table) -> bool {
    let as_wanted = |(pool, server): (&PoolName, &Server)| {
        let state = view.servers.get(&(pool.clone(), server.address)).map(|v| v.state);
        match server.target {
            Target::Ready => state == Some(ServerState::Up),
            Target::Drain => state == Some(ServerState::Draining),
        }
    };
    let mut all = table.servers.iter().flat_map(|(p, all)| all.iter().map(move |s| (p, s)));
    let count = table.servers.values().map(Vec::len).sum::<usize>();
    view.seen == Seen::Now
        && view.listening
        && view.pools.iter().eq(table.routing.pools.keys())
        && view.servers.len() == count
        && all.all(as_wanted)
}

/// The one view of an address.
pub fn of(view: &BalancerView, pool: &PoolName, address: SocketAddr) -> Option<ServerView> {
    view.servers.get(&(pool.clone(), address)).copied()
}

fn never() -> ViewCell {
    ViewCell::new(BalancerView::never(Clock::real().now()), Doorbell::new())
}

async fn address(rig: &Rig, id: &str) -> String {
    let found = rig.docker.inspect_container(id, None).await.unwrap();
    let networks = found.network_settings.unwrap().networks.unwrap();
    networks.into_values().find_map(|n| n.ip_address.filter(|ip| !ip.is_empty())).unwrap()
}

/// A connection that is kept.
pub struct Client<S> {
    /// The connection.
    pub stream: S,
    /// Whether the last answer said that there is no other on this connection.
    pub ends: bool,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    /// One request; `None` when the connection is closed before its answer is complete.
    pub async fn get(&mut self, host: &str, path: &str) -> Option<(u16, String)> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.ok()?;
        let mut got = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&got).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let lower = head.to_lowercase();
                let length = lower.lines().find_map(|l| l.strip_prefix("content-length: "));
                let length: usize = length.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
                if body.len() >= length {
                    self.ends = lower.lines().any(|l| l == "connection: close");
                    return Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()));
                }
            }
            if self.stream.read_buf(&mut got).await.ok()? == 0 {
                return None;
            }
        }
    }
}
