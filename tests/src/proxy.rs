//! Things that stand between a backend and an engine and misbehave when told to.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a proxy does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Hands it on.
    Pass,
    /// Ends every connection, old and new.
    Cut,
    /// Takes it and hands nothing on.
    Stall,
    /// Answers with noise.
    Garble,
}

/// A TCP port in front of the local engine's socket.
pub struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    mode: watch::Sender<Mode>,
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Proxy {
    /// Listens, with TLS when given.
    pub async fn listen(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, seen) = watch::channel(Mode::Pass);
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let of_connections = Arc::downgrade(&tasks);
        tasks.lock().unwrap().spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let (seen, tls) = (seen.clone(), tls.clone());
                let Some(tasks) = of_connections.upgrade() else { return };
                tasks.lock().unwrap().spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(client) = tls.accept(client).await {
                                carry(client, seen).await;
                            }
                        }
                        None => carry(client, seen).await,
                    }
                });
            }
        });
        Self { port, mode, _tasks: tasks }
    }

    /// Changes what it does, for connections that are open too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Where it listens.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

async fn carry(client: impl AsyncRead + AsyncWrite, mut mode: watch::Receiver<Mode>) {
    let Ok(engine) = UnixStream::connect(crate::docker::SOCKET).await else { return };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_engine, mut to_engine) = engine.into_split();
    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Cut => return,
            Mode::Stall => {
                if mode.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Mode::Garble => {
                let _ = to_client.write_all(b"\x00\xff garbage \r\n\r\n{{{\n").await;
                return;
            }
            Mode::Pass => {}
        }
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            n = from_client.read(&mut up) => match n {
                Ok(n) if n > 0 => if to_engine.write_all(&up[..n]).await.is_err() { return },
                _ => return,
            },
            n = from_engine.read(&mut down) => match n {
                Ok(n) if n > 0 => if to_client.write_all(&down[..n]).await.is_err() { return },
                _ => return,
            },
        }
    }
}

/// A port that says one thing to everybody.
pub async fn parrot(says: &'static [u8]) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let Ok((mut client, _)) = listener.accept().await else { return };
            greet(&mut client, says).await;
        }
    });
    (authority, tasks)
}

async fn greet(client: &mut TcpStream, says: &[u8]) {
    let mut head = [0; 1024];
    let _ = client.read(&mut head).await;
    let _ = client.write_all(says).await;
    let _ = client.shutdown().await;
}
