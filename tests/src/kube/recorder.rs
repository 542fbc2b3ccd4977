//! Stands between a client and an API server: writes down every request, and answers some of them itself.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::ApiServer;

/// The longest head of a request.
const HEAD: usize = 64 << 10;

/// One request, as a role grants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// Empty for the core.
    pub group: String,
    /// With its subresource behind a slash, as `scalingservices/status`.
    pub resource: String,
    /// Empty where it is in none, or asked for in all.
    pub namespace: String,
    /// Empty where none is named.
    pub name: String,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace: _, name: _ } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")
    }
}

impl Asked {
    /// What a request asks for; `None` where it is of no resource, as `/readyz`.
    fn read(method: &str, target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let (group, rest) = match parts[..] {
            ["api", _version, ref rest @ ..] => ("", rest),
            ["apis", group, _version, ref rest @ ..] => (group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        let (resource, name, sub) = match rest {
            [resource] => (*resource, "", ""),
            [resource, name] => (*resource, *name, ""),
            [resource, name, sub, ..] => (*resource, *name, *sub),
            [] => return None,
        };
        let watch = query.split('&').any(|q| q == "watch=true" || q == "watch=1");
        let verb = match (method, name.is_empty()) {
            ("GET", true) if watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => return None,
        };
        let slash = if sub.is_empty() { "" } else { "/" };
        Some(Self {
            verb: verb.into(),
            group: group.into(),
            resource: format!("{resource}{slash}{sub}"),
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The server answers it.
    Pass,
    /// It is answered with this code, after which the client is to wait for so many seconds.
    Answer(u16, u32),
    /// It is taken, and never answered.
    Hang,
}

type Judge = Box<dyn Fn(&Asked) -> Fate + Send>;

/// What has been asked, in order, and how to judge what comes.
struct Shared {
    asked: Mutex<Vec<Asked>>,
    judge: Mutex<Judge>,
}

/// A plain port in front of an API server.
pub struct Recorder {
    /// A kubeconfig that leads through it.
    pub kubeconfig: PathBuf,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Recorder {
    /// Listens in front of a server.
    pub async fn before(server: &ApiServer) -> Self {
        let config = server.run(&["config", "view", "--raw", "--flatten", "-o", "json"]);
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let cluster = &mut config["clusters"][0]["cluster"];
        let pem = cluster["certificate-authority-data"].take();
        let pem = BASE64_STANDARD.decode(pem.as_str().unwrap()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots);
        let tls = TlsConnector::from(Arc::new(tls.with_no_client_auth()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        cluster["server"] = format!("http://{address}").into();
        cluster.as_object_mut().unwrap().remove("certificate-authority-data");
        let kubeconfig = server.kubeconfig().with_file_name(format!("recorder-{}", address.port()));
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            judge: Mutex::new(Box::new(|_| Fate::Pass)),
        });
        let (of_tasks, upstream) = (shared.clone(), server.address());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (shared, tls, upstream) = (of_tasks.clone(), tls.clone(), upstream.clone());
                connections.spawn(async move {
                    // What breaks off is the client's to notice.
                    let _ = carry(client, &shared, &tls, &upstream).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { kubeconfig, shared, _tasks: tasks }
    }

    /// All that was asked for until now, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The different things that were asked for, as `patch scalingservices/status.evenkeel.dev`.
    pub fn kinds(&self) -> BTreeSet<String> {
        self.asked().iter().map(ToString::to_string).collect()
    }

    /// How many changes were asked for.
    pub fn changes(&self) -> usize {
        let reads = ["get", "list", "watch"];
        self.asked().iter().filter(|a| !reads.contains(&a.verb.as_str())).count()
    }

    /// Judges requests from now on.
    pub fn judge(&self, judge: impl Fn(&Asked) -> Fate + Send + 'static) {
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }
}

/// One connection carries one request: both sides are told to close it after that.
async fn carry(
    mut client: TcpStream,
    shared: &Shared,
    tls: &TlsConnector,
    upstream: &str,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if head.len() > HEAD || client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let mut words = text.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fate = match Asked::read(method, target) {
        Some(asked) => {
            let fate = (shared.judge.lock().unwrap())(&asked);
            shared.asked.lock().unwrap().push(asked);
            fate
        }
        None => Fate::Pass,
    };
    match fate {
        Fate::Pass => {}
        Fate::Hang => {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await?;
            return Ok(());
        }
        Fate::Answer(code, after) => {
            let body = serde_json::json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
                "message": format!("refused with {code} by the test"),
                "reason": if code == 410 { "Expired" } else { "TooManyRequests" },
            })
            .to_string();
            let answer = format!(
                "HTTP/1.1 {code} No\r\nContent-Type: application/json\r\nRetry-After: {after}\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(answer.as_bytes()).await?;
            return client.shutdown().await;
        }
    }
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut server = tls.connect(name, TcpStream::connect(upstream).await?).await?;
    let (first, others) = text.split_once("\r\n").unwrap_or((&text, ""));
    let kept = others.split("\r\n").filter(|l| !l.to_lowercase().starts_with("connection:"));
    let kept: Vec<&str> = kept.collect();
    let new = format!("{first}\r\nConnection: close\r\n{}\r\n\r\n", kept.join("\r\n"));
    server.write_all(new.as_bytes()).await?;
    server.write_all(&head[end + 4..]).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
