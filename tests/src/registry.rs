//! A registry of one image that gives it to nobody without a password.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::docker::busybox;

/// A registry of one image, with a password whose base64 has characters that only one alphabet has.
pub struct Registry {
    /// Where it listens.
    pub authority: String,
    /// The digest of its one image, `box:1`.
    pub digest: String,
    /// How often a manifest was given away.
    pub pulls: Arc<AtomicU32>,
    _task: JoinSet<()>,
}

/// The password of `user`.
pub const PASSWORD: &str = "~~~???>>>~?>~?>";

fn sha(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut s, b| {
        write!(s, "{b:02x}").unwrap();
        s
    })
}

impl Registry {
    /// Starts it; `unique` makes its image one that nobody has.
    pub async fn serve(unique: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        busybox(root.path());
        fs::write(root.path().join("unique"), unique).unwrap();
        let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output();
        let layer = tar.unwrap().stdout;
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "1000"]},
            "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": config.len(), "digest": sha(&config),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "size": layer.len(), "digest": sha(&layer),
            }],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = sha(&manifest);
        let blobs = Arc::new(BTreeMap::from([(sha(&layer), layer), (sha(&config), config)]));
        let pulls = Arc::new(AtomicU32::new(0));
        let (of, counted) = (digest.clone(), Arc::clone(&pulls));
        let app = axum::Router::new().fallback(move |request: Request<Body>| {
            let (blobs, manifest, of) = (Arc::clone(&blobs), manifest.clone(), of.clone());
            let counted = Arc::clone(&counted);
            async move {
                // user:PASSWORD
                let known = "Basic dXNlcjp+fn4/Pz8+Pj5+Pz5+Pz4=";
                let given =
                    request.headers().get("authorization").map(axum::http::HeaderValue::as_bytes);
                if given != Some(known.as_bytes()) {
                    let ask = [("www-authenticate", "Basic realm=\"t\"")];
                    return (StatusCode::UNAUTHORIZED, ask, "{}").into_response();
                }
                let path = request.uri().path().to_owned();
                if path == "/v2/" {
                    return "{}".into_response();
                }
                if let Some(what) = path.strip_prefix("/v2/box/manifests/") {
                    if what == "1" || what == of {
                        counted.fetch_add(1, Ordering::Relaxed);
                        let head = [("content-type", kind), ("docker-content-digest", &of)];
                        return (head, manifest).into_response();
                    }
                } else if let Some(blob) =
                    path.strip_prefix("/v2/box/blobs/").and_then(|d| blobs.get(d))
                {
                    return blob.clone().into_response();
                }
                let no = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                let answer: Response = (StatusCode::NOT_FOUND, no).into_response();
                answer
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { authority, digest, pulls, _task: task }
    }
}
