//! The toy service: what the tests, the demo and `gitops-example/` run in containers.
//!
//! It says who it is, reports its health, and can be told to misbehave, by the environment or over HTTP.
//! On SIGTERM it stops accepting, finishes what is in flight and exits 0, as a well-behaved service does.

mod behaviour;
mod probe;
mod server;
mod settings;

use std::process::ExitCode;

use crate::settings::Settings;

const USAGE: &str = "\
usage: toy                 serve; settings come from the environment
       toy probe URL       exit 0 if URL answers 2xx within 2 s, else 1

SERVICE, ENVIRONMENT, HOSTNAME, TOY_VERSION   shown by GET /
TOY_PORT=8080               where to listen
TOY_START_DELAY=2s          wait before listening
TOY_SLOW=500ms              answer later
TOY_UNHEALTHY=1             /healthz answers 503
TOY_UNHEALTHY_AFTER=5s      the same, after a while
TOY_CRASH_AFTER=1s          exit 1 after a while
TOY_IGNORE_TERM=1           do not stop when asked to
TOY_LINGER=2s               go on for a while when asked to stop

POST /control?slow=500ms | slow=0 | unhealthy | healthy | crash | exit=0   (joined with &)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => match Settings::read(|name| std::env::var(name).ok()) {
            Ok(settings) => serve(settings),
            Err(problem) => fail(2, &problem),
        },
        ["probe", url] => match probe::probe(url) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => fail(1, &problem),
        },
        _ => fail(2, USAGE),
    }
}

fn serve(settings: Settings) -> ExitCode {
    // One thread: hundreds of these share a machine.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(server::run(settings)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(1, &error.to_string()),
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::from(code)
}
