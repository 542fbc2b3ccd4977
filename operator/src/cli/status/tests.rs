//! The command against a real server in this process.

use super::*;
use crate::bell::Doorbell;
use crate::clock::Clock;
use crate::http;
use crate::model::{OwnerId, ServiceName, Time};
use crate::report::{Report, SourceReport};
use std::io;
use tokio::task::JoinSet;

const PLAIN: Terminal = Terminal { colour: false, interactive: false, width: 100, height: 20 };
const SCREEN: Terminal = Terminal { interactive: true, ..PLAIN };

async fn agent() -> (Report, StatusArgs, JoinSet<()>) {
    let report = Report::new(Clock::manual(Time(1_000_000)), OwnerId::new("shop").unwrap());
    let api = http::Api {
        report: report.clone(),
        bell: Doorbell::new(),
        webhook: None,
        alive_within: Duration::from_secs(60),
    };
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let agent = format!("http://{}/", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let served =
        http::serve(listener, http::router(api), http::Limits::default(), std::future::pending());
    tasks.spawn(served);
    (report, StatusArgs { service: None, watch: false, agent }, tasks)
}

/// Takes what is written until it was enough, then is gone, like `head`.
struct Head<F>(String, F);

impl<F: FnMut(&str) -> bool> Write for Head<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.push_str(std::str::from_utf8(buf).unwrap());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if (self.1)(&self.0) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

async fn soon<T>(f: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), f).await.expect("it never ends")
}

#[tokio::test]
async fn once_as_text_and_json() {
    let (report, args, _tasks) = agent().await;
    report.standby(true);
    let mut out = Vec::new();
    assert_eq!(run(&args, Output::Text, PLAIN, &mut out).await.unwrap(), Exit::Fine);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("owner shop") && text.contains("standing by"), "{text}");
    let mut out = Vec::new();
    run(&args, Output::Json, PLAIN, &mut out).await.unwrap();
    let view: StatusView = serde_json::from_slice(&out).unwrap();
    assert_eq!(view, report.status(None));
    let mut out = Vec::new();
    run(&args, Output::Yaml, PLAIN, &mut out).await.unwrap();
    assert!(serde_yaml::from_slice::<StatusView>(&out).unwrap().agent.standby);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_an_error_with_and_without_watch() {
    let (_report, mut args, _tasks) = agent().await;
    args.service = Some(ServiceName::new("web").unwrap());
    for watch in [false, true] {
        args.watch = watch;
        let e = soon(run(&args, Output::Text, PLAIN, &mut Vec::new())).await.unwrap_err();
        assert_eq!(e.message, "there is no service \"web\"");
    }
}

#[tokio::test]
async fn nobody_answers_and_that_is_said_with_a_way_out() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let args = StatusArgs { service: None, watch: true, agent: format!("http://{free}") };
    let e = soon(run(&args, Output::Text, PLAIN, &mut Vec::new())).await.unwrap_err();
    assert!(e.message.starts_with(&format!("no agent answers at http://{free}: ")), "{e}");
    assert!(e.message.contains("onnection refused"), "{e}");
    assert!(e.hint.unwrap().contains("evenkeel run --git"));
    let args = StatusArgs { agent: "localhost:7070".into(), ..args };
    let e = soon(run(&args, Output::Text, PLAIN, &mut Vec::new())).await.unwrap_err();
    assert!(e.hint.unwrap().contains("http://localhost:7070"));
}

#[tokio::test]
async fn something_else_that_answers_is_not_taken_for_an_agent() {
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let agent = format!("http://{}", listener.local_addr().unwrap());
    let other = axum::Router::new().fallback(|| async { "<html>hello</html>" });
    let mut tasks = JoinSet::new();
    tasks.spawn(http::serve(listener, other, http::Limits::default(), std::future::pending()));
    let args = StatusArgs { service: None, watch: false, agent };
    let e = soon(run(&args, Output::Text, PLAIN, &mut Vec::new())).await.unwrap_err();
    assert!(e.message.contains("is no evenkeel agent"), "{e}");
}

#[tokio::test]
async fn a_pipe_gets_a_line_for_each_thing_that_happens() {
    let (report, mut args, _tasks) = agent().await;
    args.watch = true;
    report.standby(true);
    let mut steps = 0;
    let changes = report.clone();
    let mut out = Head(String::new(), move |text: &str| {
        // Each flush is answered with the next thing to happen.
        steps += 1;
        match steps {
            1 => changes.standby(false),
            2 => changes.source(SourceReport {
                revision: Some(crate::model::Revision("abcdef".into())),
                ..SourceReport::default()
            }),
            _ => {}
        }
        text.contains("abcdef")
    });
    soon(run(&args, Output::Text, PLAIN, &mut out)).await.unwrap();
    let lines: Vec<&str> = out.0.lines().collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    1970-01-01T00:16:40.000Z  standby          active: this agent holds the lock
    1970-01-01T00:16:40.000Z  revision         revision abcdef
    ");
}

#[tokio::test]
async fn a_terminal_is_drawn_over() {
    let (report, mut args, _tasks) = agent().await;
    args.watch = true;
    let mut flushes = 0;
    let mut out = Head(String::new(), move |text: &str| {
        flushes += 1;
        report.standby(flushes % 2 == 1);
        text.contains("standing by")
    });
    soon(run(&args, Output::Text, SCREEN, &mut out)).await.unwrap();
    let first = out.0.split("\x1b[?7h").next().unwrap();
    let lines = first.lines().count();
    assert!(out.0.contains(&format!("\x1b[{lines}A\r\x1b[J")), "{:?}", out.0);
}

#[tokio::test]
async fn programs_get_a_document_a_change() {
    let (report, mut args, _tasks) = agent().await;
    args.watch = true;
    let mut flushes = 0;
    let mut out = Head(String::new(), move |_: &str| {
        flushes += 1;
        report.standby(flushes % 2 == 1);
        flushes == 3
    });
    soon(run(&args, Output::Json, PLAIN, &mut out)).await.unwrap();
    let seen: Vec<bool> = out
        .0
        .lines()
        .map(|l| serde_json::from_str::<StatusView>(l).unwrap().agent.standby)
        .collect();
    assert_eq!(seen, [false, true, false]);
}

#[test]
fn a_low_window_is_not_scrolled() {
    let mut drawn = 0;
    let mut out = Vec::new();
    let tall = "line\n".repeat(50);
    let _ = draw(&mut drawn, &tall, 10, &mut out).unwrap();
    assert_eq!(drawn, 9);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches('\n').count(), 9);
    assert!(text.contains("too low"));
}
