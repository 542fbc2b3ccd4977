//! The agent and the command line.

use std::io::Write;
use std::process::ExitCode;

use evenkeel::cli::args::When;
use evenkeel::cli::output::{put, stderr_colour};
use evenkeel::cli::{self, Cli, CliError, Command, Exit, ReadError, Terminal};
use evenkeel::report::text::render_error;
use evenkeel::telemetry;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(ReadError::Words(e)) => {
            // Help and the version are no error. Everything else is 1: 2 means that `plan` has steps.
            let _ = e.print();
            return if e.use_stderr() { Exit::Problem } else { Exit::Fine }.into();
        }
        Err(ReadError::Other(e)) => return failed(&e, stderr_colour(When::Auto)),
    };
    let colour = stderr_colour(cli.global.color);
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(e) => failed(&e, colour),
    }
}

fn run(cli: &Cli) -> Result<Exit, CliError> {
    let usual = if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" };
    let filter = cli.global.log.as_deref().unwrap_or(usual);
    let log = telemetry::init(filter, cli.global.log_format, stderr_colour(cli.global.color));
    log.map_err(|e| CliError { message: e.to_string(), hint: e.hint().map(Into::into) })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(format!("start the runtime: {e}")))?;
    runtime.block_on(dispatch(cli))
}

async fn dispatch(cli: &Cli) -> Result<Exit, CliError> {
    let term = Terminal::stdout(cli.global.color);
    let mut out = std::io::stdout();
    match &cli.command {
        Command::Status(args) => cli::status::run(args, cli.global.output, term, &mut out).await,
        Command::Completions(args) => {
            let _ = cli::completions(args, &mut out)?;
            Ok(Exit::Fine)
        }
        Command::Run(args) => cli::agent::run(args).await,
        Command::Plan(args) => {
            cli::offline::plan_once(args, cli.global.output, term, &mut out).await
        }
        Command::Check(args) => cli::offline::check(args, cli.global.output, term, &mut out),
        Command::Render(args) => cli::offline::render(args, cli.global.output, term, &mut out),
        Command::Import(args) => {
            let mut err = std::io::stderr();
            cli::import::run(args, cli.global.output, &mut out, &mut err).await
        }
        Command::Crd(_) => cli::offline::crd(&mut out),
        Command::Schema(args) => cli::offline::schema(args, &mut out),
    }
}

fn failed(e: &CliError, colour: bool) -> ExitCode {
    let mut err = std::io::stderr();
    let _ = put(&mut err, &render_error(&e.message, e.hint.as_deref(), colour));
    let _ = err.flush();
    Exit::Problem.into()
}
