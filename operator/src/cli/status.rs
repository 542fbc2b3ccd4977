//! `evenkeel status`: asks a running agent, once or again and again.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::args::{Output, StatusArgs};
use super::output::{Reader, Terminal, emit, put};
use super::{CliError, Exit};
use crate::report::text::{render_event, render_service, render_status};
use crate::report::view::{ErrorView, EventsView, ServiceView, StatusView};

/// Largest answer that is read. A status of ten thousand instances is 5 MB.
const ANSWER: usize = 64 << 20;
/// A redraw at least this often, so that ages move.
const TICK: u64 = 2;
/// Wait before an agent that went away is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Runs the command until it is done, the reader goes away, or nobody answers.
pub async fn run(
    args: &StatusArgs,
    output: Output,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let client = Client::new(&args.agent)?;
    let path = match &args.service {
        Some(name) => format!("/api/v1/services/{name}"),
        None => "/api/v1/status".into(),
    };
    // The first answer also tells a name that does not exist, with or without --watch.
    let value = client.get(&path).await?;
    if !args.watch {
        let view = read(&client.base, value.clone())?;
        // What the agent said is passed on whole: it may know more than we do.
        let _ = emit(out, output, &value, || text(args, &view, term))?;
        return Ok(Exit::Fine);
    }
    match (output, term.interactive) {
        (Output::Text, true) => redraw(&client, args, value, term, out).await?,
        (Output::Text, false) => follow(&client, args, value, term, out).await?,
        (Output::Json | Output::Yaml, _) => stream(&client, args, value, output, out).await?,
    }
    Ok(Exit::Fine)
}

fn text(args: &StatusArgs, view: &StatusView, term: Terminal) -> String {
    match &args.service {
        Some(_) => render_service(view, term.width, term.colour),
        None => render_status(view, term.width, term.colour),
    }
}

fn read(base: &str, value: Value) -> Result<StatusView, CliError> {
    serde_json::from_value(value).map_err(|e| not_an_agent(base, &e.to_string()))
}

fn not_an_agent(base: &str, why: &str) -> CliError {
    CliError::new(format!("what answers at {base} is no evenkeel agent: {why}"))
        .hint("say where the agent is with --agent URL")
}

/// The path of the next watch: returns at a change, or after the wait.
fn watch_path(args: &StatusArgs, generation: u64, wait: u64) -> String {
    let mut path = format!("/api/v1/watch?since={generation}&wait={wait}");
    if let Some(name) = &args.service {
        let _ = write!(path, "&service={name}");
    }
    path
}

/// On a terminal: the same place is drawn again.
async fn redraw(
    client: &Client,
    args: &StatusArgs,
    first: Value,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut view = read(&client.base, first)?;
    let mut drawn = 0;
    let mut trouble = None;
    loop {
        let mut picture = text(args, &view, term);
        if let Some(e) = &trouble {
            let _ = write!(picture, "\n{e}; trying again\n");
        }
        if draw(&mut drawn, &picture, term.height, out)? == Reader::Gone {
            return Ok(());
        }
        match client.get(&watch_path(args, view.agent.generation, TICK)).await {
            Ok(value) => {
                view = read(&client.base, value)?;
                trouble = None;
            }
            Err(e) => {
                trouble = Some(e.message);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Puts a picture over the last one. What does not fit is left out at the bottom: a screen that
/// scrolls cannot be drawn over.
fn draw(
    drawn: &mut usize,
    picture: &str,
    height: usize,
    out: &mut dyn Write,
) -> Result<Reader, CliError> {
    let most = height.saturating_sub(1).max(1);
    let mut lines: Vec<&str> = picture.lines().collect();
    if lines.len() > most {
        lines.truncate(most - 1);
        lines.push("… (the window is too low for the rest)");
    }
    let mut text = String::new();
    if *drawn > 0 {
        let _ = write!(text, "\x1b[{drawn}A\r\x1b[J");
    }
    // No wrapping meanwhile: a wrapped line is two, and counting would go wrong.
    text.push_str("\x1b[?7l");
    for line in &lines {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("\x1b[?7h");
    *drawn = lines.len();
    put(out, &text)
}

/// Into a file or a pipe: how each service stands now, then a line for each thing that happens.
async fn follow(
    client: &Client,
    args: &StatusArgs,
    first: Value,
    term: Terminal,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let view = read(&client.base, first)?;
    let mut generation = view.agent.generation;
    let mut since = view.events.last().map_or(0, |e| e.seq);
    let at = view.agent.now;
    let mut now = String::new();
    for s in &view.services {
        let _ = writeln!(now, "{at}  {}", standing(s));
    }
    if put(out, &now)? == Reader::Gone {
        return Ok(());
    }
    let of = args.service.as_ref().map(|s| format!("&service={s}")).unwrap_or_default();
    loop {
        let next = async {
            let value = client.get(&watch_path(args, generation, 25)).await?;
            let events = client.get(&format!("/api/v1/events?since={since}{of}")).await?;
            let events: EventsView = serde_json::from_value(events)
                .map_err(|e| not_an_agent(&client.base, &e.to_string()))?;
            Ok::<_, CliError>((read(&client.base, value)?, events))
        };
        match next.await {
            Ok((view, events)) => {
                generation = view.agent.generation;
                since = events.next;
                let lines: String =
                    events.events.iter().map(|e| render_event(e, term.colour)).collect();
                if put(out, &lines)? == Reader::Gone {
                    return Ok(());
                }
            }
            Err(e) => {
                tracing::warn!("{e}; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn standing(s: &ServiceView) -> String {
    let text = format!(
        "{:16} {}: {} desired, {} up to date, {} ready, {} available",
        s.phase.word(),
        s.name,
        s.desired,
        s.updated,
        s.ready,
        s.available
    );
    crate::report::redact::clean(&text)
}

/// For programs: a document for each change.
async fn stream(
    client: &Client,
    args: &StatusArgs,
    first: Value,
    output: Output,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let mut value = first;
    let mut last = None;
    loop {
        let generation = value["agent"]["generation"].as_u64().unwrap_or(0);
        if last != Some(generation) {
            let text = match output {
                Output::Yaml => {
                    format!("---\n{}", serde_yaml::to_string(&value).unwrap_or_default())
                }
                Output::Text | Output::Json => format!("{value}\n"),
            };
            if put(out, &text)? == Reader::Gone {
                return Ok(());
            }
            last = Some(generation);
        }
        match client.get(&watch_path(args, generation, 25)).await {
            Ok(next) => value = next,
            Err(e) => {
                tracing::warn!("{e}; trying again");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Talks to one agent.
struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    fn new(base: &str) -> Result<Self, CliError> {
        let base = base.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(CliError::new(format!("--agent {base} is no URL"))
                .hint(format!("did you mean http://{base}?")));
        }
        let http = reqwest::Client::builder()
            // An agent on this machine is not asked through a proxy.
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            // The longest watch and a margin.
            .timeout(Duration::from_secs(40))
            .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| {
                CliError::new(format!("set up the client: {}", crate::error::causes(&e)))
            })?;
        Ok(Self { http, base })
    }

    async fn get(&self, path: &str) -> Result<Value, CliError> {
        let url = format!("{}{path}", self.base);
        let mut answer = self.http.get(&url).send().await.map_err(|e| self.silent(e))?;
        let code = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.silent(e))? {
            if body.len() + chunk.len() > ANSWER {
                return Err(not_an_agent(&self.base, "its answer has no end"));
            }
            body.extend_from_slice(&chunk);
        }
        if code.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|e| not_an_agent(&self.base, &e.to_string()));
        }
        match serde_json::from_slice::<ErrorView>(&body) {
            Ok(e) if !e.error.is_empty() => Err(CliError { message: e.error, hint: e.hint }),
            _ => Err(not_an_agent(&self.base, &format!("it says {code}"))),
        }
    }

    fn silent(&self, e: reqwest::Error) -> CliError {
        // The last cause says it; those before it only say that there is one.
        let mut cause: &dyn std::error::Error = &e.without_url();
        while let Some(next) = cause.source() {
            cause = next;
        }
        CliError::new(format!("no agent answers at {}: {cause}", self.base)).hint(
            "start one with `evenkeel run --git URL` or `evenkeel run --dir PATH`, or say where it \
             is with --agent URL",
        )
    }
}

#[cfg(test)]
mod tests;
