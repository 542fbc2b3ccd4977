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
    let log =
        telemetry::init(&cli.global.log, cli.global.log_format, stderr_colour(cli.global.color));
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
        Command::Run(_) => missing("run"),
        Command::Plan(_) => missing("plan"),
        Command::Check(_) => missing("check"),
        Command::Render(_) => missing("render"),
        Command::Crd(_) => missing("crd"),
        Command::Schema(_) => missing("schema"),
    }
}

fn missing(name: &str) -> Result<Exit, CliError> {
    Err(CliError::new(format!("this build has no `{name}` yet")))
}

fn failed(e: &CliError, colour: bool) -> ExitCode {
    let mut err = std::io::stderr();
    let _ = put(&mut err, &render_error(&e.message, e.hint.as_deref(), colour));
    let _ = err.flush();
    Exit::Problem.into()
}
