//! `cargo xtask testbed kubernetes`: an API server that outlives us.
#![allow(clippy::print_stdout, reason = "a command line")]

use std::process::ExitCode;

use evenkeel_tests::kube::{ApiServer, testbed};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("up") => println!("{}", ApiServer::stay(&testbed()).display()),
        Some("down") => ApiServer::end(&testbed()),
        _ => {
            eprintln!("error: it is started by `cargo xtask testbed kubernetes up` and `down`");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
