//! What stands between the agent and the engine, and notes when a container is asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use evenkeel_tests::docker::SOCKET;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    creates: Arc<Mutex<Vec<Instant>>>,
    _tasks: JoinSet<()>,
}

impl Socket {
    pub(crate) fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let creates: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = creates.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, noted.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { path: path.to_owned(), creates, _tasks: tasks }
    }

    /// When the first container was asked for since a moment.
    pub(crate) fn first_create(&self, since: Instant) -> Option<Instant> {
        self.creates.lock().unwrap().iter().copied().find(|at| *at >= since)
    }
}

async fn carry(client: UnixStream, creates: Arc<Mutex<Vec<Instant>>>) {
    let Ok(engine) = UnixStream::connect(SOCKET).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let up = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            // A request begins with what was written last: the engine has answered all before it.
            let line = bytes[..n].split(|b| *b == b'\r').next().unwrap_or_default();
            if line.starts_with(b"POST") && line.windows(18).any(|w| w == b"/containers/create") {
                creates.lock().unwrap().push(Instant::now());
            }
            if to_engine.write_all(&bytes[..n]).await.is_err() {
                break;
            }
        }
        let _ = to_engine.shutdown().await;
    };
    let down = async move {
        let _ = tokio::io::copy(&mut from_engine, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}
