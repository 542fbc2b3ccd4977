//! A Marathon by hand: for demos, benches, and to look at with curl.
//!
//! `marathon [--release 1.11] [--listen 127.0.0.1:8080]… [--agent HOST[,name=value…][,engine=ENDPOINT]]… [--containers]
//! [--token TOKEN | --user NAME:PASSWORD]`: each `--listen` is one member. Ends with its standard input, and removes its
//! containers then.
#![allow(clippy::print_stdout, reason = "a command line")]

use std::io;
use std::process::ExitCode;

use evenkeel_tests::marathon::{Agent, Auth, Containers, Options, Release, Run, Server};
use tokio::sync::mpsc::unbounded_channel;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("error: {problem}\nhint: the first lines of tests/src/bin/marathon.rs");
            return ExitCode::FAILURE;
        }
    };
    let server = Server::start(options).await;
    for url in server.urls() {
        println!("{url}");
    }
    // A thread of its own: nobody can be kept from reading.
    let (said, mut lines) = unbounded_channel();
    std::thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).try_for_each(|line| said.send(line))
    });
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => obey(&server, &line).await,
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    server.stop().await;
    ExitCode::SUCCESS
}

/// What can be done to it while it runs: one word and what it is about, a line.
async fn obey(server: &Server, line: &str) {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("silence", host) => server.silence(host),
        ("hear", host) => server.hear(host).await,
        ("hold", app) => server.hold(app),
        ("release", app) => server.release(app),
        ("lead", member) => server.lead(member.parse().ok()),
        ("drop-streams", _) => server.drop_streams(),
        _ => {
            eprintln!(
                "silence HOST, hear HOST, hold APP, release APP, lead [MEMBER], drop-streams"
            );
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut agents = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--containers" {
            options.run = Run::Other(Box::new(|| Box::new(Containers::new())));
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let wrong = || format!("{arg} {value} makes no sense");
        match arg.as_str() {
            "--release" => options.release = Release::parse(&value).ok_or_else(wrong)?,
            "--listen" => options.listen.push(value.parse().map_err(|_| wrong())?),
            "--agent" => agents.push(agent(&value).ok_or_else(wrong)?),
            "--token" => options.auth = Auth::Token(value),
            "--user" => {
                let (name, password) = value.split_once(':').ok_or_else(wrong)?;
                options.auth = Auth::Basic(name.into(), password.into());
            }
            _ => return Err(format!("there is no {arg}")),
        }
    }
    options.members = options.listen.len().max(1);
    if !agents.is_empty() {
        options.agents = agents;
    }
    Ok(options)
}

fn agent(text: &str) -> Option<Agent> {
    let mut parts = text.split(',');
    let mut agent = Agent::new(parts.next().filter(|host| !host.is_empty())?);
    for part in parts {
        let (name, value) = part.split_once('=')?;
        agent = match name {
            "engine" => agent.engine(value),
            name => agent.attribute(name, value),
        };
    }
    Some(agent)
}
