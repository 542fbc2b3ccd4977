//! The agent, whole, over hosts that are simulated: all that it is to do it does in time only.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use evenkeel::bell::Doorbell;
use evenkeel::cli::ports::{Ask, Ports};
use evenkeel::cli::{Cli, Command, agent};
use evenkeel::fake::backend::FakeBackend;
use evenkeel::reconcile::NoEdge;
use evenkeel::telemetry;

/// What it is told on standard input: another pass over everything, now.
pub(crate) const RING: &str = "ring";

/// Runs with the words of `evenkeel`.
pub(crate) async fn agent(words: &[String]) -> ExitCode {
    let cli = match Cli::read(words) {
        Ok(cli) => cli,
        Err(e) => panic!("{e:?}"),
    };
    let Command::Run(args) = &cli.command else { panic!("only run can be simulated") };
    telemetry::init("info", cli.global.log_format, false).unwrap();
    let bells: Arc<Mutex<Vec<Doorbell>>> = Arc::default();
    let rung = bells.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == RING {
                rung.lock().unwrap().iter().for_each(Doorbell::ring);
            }
        }
    });
    let make = move |ask: &Ask<'_>| {
        bells.lock().unwrap().push(ask.bell.clone());
        let backend = Arc::new(FakeBackend::new(ask.bell.clone(), ask.clock.clone()));
        let lives = backend.clone();
        tokio::spawn(async move { lives.live().await });
        Ports { backend, edges: Arc::new(NoEdge), problems: Box::new(BTreeMap::new) }
    };
    match agent::run_on(args, Box::new(make)).await {
        Ok(exit) => exit.into(),
        Err(e) => panic!("{e}"),
    }
}
