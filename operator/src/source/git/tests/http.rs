//! Over the wire: `git http-backend` behind a small HTTP server on the loopback, and servers
//! that misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::*;

/// Serves the directory of an [`Origin`] until the test process ends.
struct Server {
    url: String,
    /// Method, path and authorization of every request.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `basic` is what the `Authorization` header must hold after `Basic `.
    fn start(root: &Path, basic: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/origin.git", listener.local_addr().unwrap());
        let (root, seen) = (root.to_owned(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, log) = (root.clone(), Arc::clone(&log));
                thread::spawn(move || serve(&stream, &root, basic, &log));
            }
        });
        Self { url, seen }
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(stream: &TcpStream, root: &Path, basic: Option<&str>, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (mut auth, mut length, mut kind, mut encoding) = (None, 0, String::new(), String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => auth = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            "content-type" => kind = value.to_owned(),
            "content-encoding" => encoding = value.to_owned(),
            "transfer-encoding" => panic!("chunked requests are not served"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    log.lock().unwrap().push(format!("{method} {target} {}", auth.as_deref().unwrap_or("-")));
    if basic.is_some_and(|b| auth.as_deref() != Some(&format!("Basic {b}"))) {
        let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                      Content-Length: 0\r\nConnection: close\r\n\r\n";
        return out.write_all(answer.as_bytes()).unwrap();
    }
    let mut cgi = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind)
        .env("HTTP_CONTENT_ENCODING", encoding)
        .env("CONTENT_LENGTH", length.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    cgi.stdin.take().unwrap().write_all(&body).unwrap();
    let answer = cgi.wait_with_output().unwrap().stdout;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let headers = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = headers.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK");
    let body = &answer[end + 4..];
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(body));
}

/// Base64 of `x-access-token:tok`.
const TOKEN: &str = "eC1hY2Nlc3MtdG9rZW46dG9r";

fn commits(git: &Git) -> usize {
    let mirror = git.config.state_dir.join("mirrors").join(format!("{}-0", git.mirror_base()));
    let repo = Repository::open_bare(mirror).unwrap();
    let mut count = 0;
    repo.odb()
        .unwrap()
        .foreach(|id| {
            count += usize::from(repo.find_commit(*id).is_ok());
            true
        })
        .unwrap();
    count
}

#[tokio::test]
async fn the_copy_is_shallow_and_an_unchanged_reference_costs_one_request() {
    let o = Origin::new();
    for i in 0..5 {
        o.commit(&[("a.yaml", &i.to_string())]);
    }
    let server = Server::start(o.dir.path(), None);
    let mut git = o.git(|c| c.url.clone_from(&server.url));
    let tree = git.fetch(None).await.unwrap().unwrap();
    assert_eq!(&*tree.files["a.yaml"], b"4");
    assert_eq!(commits(&git), 1, "the copy holds history");
    server.requests();
    assert_eq!(git.fetch(Some(&tree.revision)).await.unwrap(), None);
    let asked = server.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");

    // Grows by what is new, follows a force-push, and a restart downloads nothing.
    let second = o.commit(&[("a.yaml", "5")]);
    let tree = git.fetch(Some(&tree.revision)).await.unwrap().unwrap();
    assert_eq!(tree.revision, second.to_string());
    let forced = o.commit_tree("refs/heads/main", o.files(&[("b.yaml", "f")]), "forced", &[]);
    let tree = git.fetch(Some(&tree.revision)).await.unwrap().unwrap();
    assert_eq!((tree.revision.clone(), names(&tree)), (forced.to_string(), vec!["b.yaml"]));
    server.requests();
    let again = o.git(|c| c.url.clone_from(&server.url)).fetch(None).await.unwrap().unwrap();
    assert_eq!((again, server.requests().len()), (tree, 1));
}

#[tokio::test]
async fn tags_and_commits_are_found_over_the_wire() {
    let o = Origin::new();
    let first = o.commit(&[("a.yaml", "1")]);
    o.commit(&[("a.yaml", "2")]);
    o.commit(&[("a.yaml", "3")]);
    let by = Signature::now("t", "t@t").unwrap();
    o.repo.tag("v1", &o.repo.find_object(first, None).unwrap(), &by, "t", true).unwrap();
    let server = Server::start(o.dir.path(), None);
    let mut config = o.config();
    config.url.clone_from(&server.url);
    // `http-backend` gives no commit by its id unless told to, so this one takes the long way.
    o.repo
        .reference("refs/tags/v1", o.repo.refname_to_id("refs/tags/v1").unwrap(), true, "")
        .unwrap();
    let middle = o.repo.revparse_single("main~1").unwrap().id();
    for (reference, want) in [
        (Reference::Tag("v1".into()), first),
        (Reference::Commit(middle.to_string()), middle),
        (Reference::Commit(first.to_string()), first),
    ] {
        let mut git = Git::new(GitConfig { reference, ..config.clone() }, clock()).unwrap();
        let tree = git.fetch(None).await.unwrap().unwrap();
        assert_eq!(tree.revision, want.to_string());
        assert_eq!(git.fetch(Some(&tree.revision)).await.unwrap(), None);
    }
    o.repo.config().unwrap().set_bool("uploadpack.allowAnySHA1InWant", true).unwrap();
    config.reference = Reference::Commit(middle.to_string());
    config.state_dir = o.dir.path().join("other");
    let mut git = Git::new(config, clock()).unwrap();
    assert_eq!(&*git.fetch(None).await.unwrap().unwrap().files["a.yaml"], b"2");
    assert_eq!(commits(&git), 1, "a server that gives commits by id is asked for one");
}

#[tokio::test]
async fn a_token_is_sent_and_a_wrong_one_is_a_clear_error() {
    let o = Origin::new();
    o.commit(&[("a.yaml", "1")]);
    let server = Server::start(o.dir.path(), Some(TOKEN));
    let with = |auth: Auth| {
        o.git(|c| {
            c.url.clone_from(&server.url);
            c.auth = auth;
        })
    };
    let token = |t: &str| Auth::Token { user: None, token: Secret::new(t) };
    with(token("tok")).fetch(None).await.unwrap().unwrap();
    let seen = server.requests();
    assert!(seen.iter().any(|r| r.ends_with(&format!("Basic {TOKEN}"))), "{seen:?}");

    let e = with(token("SEKRIT")).fetch(None).await.unwrap_err();
    assert!(matches!(e, FetchError::Denied { .. }), "{e:?}");
    assert!(e.chain().contains("did not take the password of x-access-token"), "{}", e.chain());
    assert!(!format!("{e:?} {}", e.chain()).contains("SEKRIT"));
    assert!(server.requests().len() <= 3, "a refused token is not offered over and over");

    let e = with(Auth::None).fetch(None).await.unwrap_err();
    assert!(e.to_string().ends_with("none are configured"), "{e}");

    let in_url = server.url.replace("http://", "http://x-access-token:tok@");
    o.git(|c| c.url = in_url).fetch(None).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_server_lacks_is_told_apart() {
    let o = Origin::new();
    let server = Server::start(o.dir.path(), None);
    let read = |url: String| async { o.git(|c| c.url = url).fetch(None).await.unwrap_err() };
    let e = read(server.url.clone()).await;
    assert!(matches!(e, FetchError::Empty { .. }), "{e:?}");
    let e = read(server.url.replace("origin", "other")).await;
    assert!(matches!(e, FetchError::NoRepository { .. }), "{e:?}");
    let e = read("http://127.0.0.1:1/x.git".into()).await;
    assert!(matches!(e, FetchError::Unreachable { .. }), "{e:?}");
    assert!(e.chain().contains("http://127.0.0.1:1/x.git"), "{}", e.chain());
}

#[tokio::test]
async fn a_damaged_mirror_heals_by_itself() {
    let o = Origin::new();
    o.commit(&[("a.yaml", "1")]);
    let server = Server::start(o.dir.path(), None);
    let mut git = o.git(|c| c.url.clone_from(&server.url));
    git.fetch(None).await.unwrap();
    let mirror = git.config.state_dir.join("mirrors").join(format!("{}-0", git.mirror_base()));
    for pack in std::fs::read_dir(mirror.join("objects/pack")).unwrap().flatten() {
        std::fs::set_permissions(pack.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        std::fs::write(pack.path(), b"rubbish").unwrap();
    }
    assert_eq!(&*git.fetch(None).await.unwrap().unwrap().files["a.yaml"], b"1");
    std::fs::write(mirror.join("HEAD"), b"rubbish").unwrap();
    std::fs::write(mirror.join("config"), b"[[[").unwrap();
    assert_eq!(&*git.fetch(None).await.unwrap().unwrap().files["a.yaml"], b"1");
}

#[tokio::test]
async fn a_server_that_sends_too_much_is_cut_off() {
    let o = Origin::new();
    let noise: String =
        (0..40_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    o.commit(&[("a.yaml", &noise)]);
    let server = Server::start(o.dir.path(), None);
    let mut git = o.git(|c| {
        c.url.clone_from(&server.url);
        c.limits.max_transfer_bytes = 1000;
    });
    let e = git.fetch(None).await.unwrap_err();
    assert!(matches!(e, FetchError::TooBig { limit: 1000, .. }), "{e:?}");
}

#[tokio::test]
async fn a_silent_server_does_not_hang_the_agent_and_does_no_harm_later() {
    let o = Origin::new();
    o.commit(&[("a.yaml", "1")]);
    // Accepts and never answers, then answers as it should.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let mut git = o.git(|c| {
        c.url = format!("http://{address}/origin.git");
        c.stall = Duration::from_millis(200);
    });
    let e = git.fetch(None).await.unwrap_err();
    assert!(matches!(e, FetchError::Stalled { .. }), "{e:?}");
    assert_eq!(git.running.load(Ordering::Relaxed), 1, "one call is left behind");
    let (held, _) = silent.accept().unwrap();
    drop(silent);
    let listener = TcpListener::bind(address).unwrap();
    let root = o.dir.path().to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(&stream, &root, None, &Mutex::default());
        }
    });
    git.config.stall = Duration::from_secs(20);
    assert_eq!(&*git.fetch(None).await.unwrap().unwrap().files["a.yaml"], b"1");
    // The connection breaks at last: the thread ends and takes its mirror with it.
    drop(held);
    for _ in 0..200 {
        if git.running.load(Ordering::Relaxed) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(git.running.load(Ordering::Relaxed), 0);
    let mirrors = std::fs::read_dir(git.config.state_dir.join("mirrors")).unwrap().flatten();
    let mirrors: Vec<_> = mirrors.map(|m| m.file_name().into_string().unwrap()).collect();
    assert_eq!(mirrors, [format!("{}-1", git.mirror_base())]);
}

/// Answers everything with a redirect to `to`.
fn redirector(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}/origin.git", listener.local_addr().unwrap().port());
    let to = to.to_owned();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut line).unwrap();
            let target = line.split_ascii_whitespace().nth(1).unwrap_or("/");
            let tail = target.strip_prefix("/origin.git").unwrap_or(target).to_owned();
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap() > 2 {
                header.clear();
            }
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: {to}{tail}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[tokio::test]
async fn a_redirect_is_followed_without_credentials_and_never_with_them() {
    let o = Origin::new();
    o.commit(&[("a.yaml", "1")]);
    let open = Server::start(o.dir.path(), None);
    let moved = redirector(&open.url);
    o.git(|c| c.url.clone_from(&moved)).fetch(None).await.unwrap().unwrap();

    let thief = Server::start(o.dir.path(), Some("somebody else's"));
    let moved = redirector(&thief.url);
    let mut git = o.git(|c| {
        c.url = moved;
        c.auth = Auth::Token { user: None, token: Secret::new("tok") };
    });
    let e = git.fetch(None).await.unwrap_err();
    let seen = thief.requests();
    assert!(seen.iter().all(|r| r.ends_with(" -")), "{seen:?}, {}", e.chain());
}
