//! What the project does for itself: set up, build images, generate, lint, test.
//!
//! `cargo xtask` prints the commands. Nothing here is part of what users run.
#![allow(clippy::print_stdout, reason = "it is a command line for the people who build evenkeel")]

mod apiserver;
mod bench;
mod cli;
mod command;
mod demo;
mod http;
mod image;
mod images;
mod interrupt;
mod kubernetes;
mod links;
mod lint;
mod mutants;
mod packages;
mod python;
mod rust_text;
mod setup;
mod tar;
mod test;
mod testbed;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Task;
use crate::tree::Tree;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let task = match cli::parse(&args) {
        Ok(task) => task,
        Err(problem) => {
            eprintln!("error: {problem}\n\n{}", cli::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let tree = Tree::find()?;
    match task {
        Task::Help => println!("{}", cli::USAGE),
        Task::Image { dev } => image::build(&tree, dev)?,
        Task::Images { force } => images::build(&tree, force)?,
        Task::Crd { check } => lint::crd(&tree, check)?,
        Task::Lint => lint::lint(&tree)?,
        Task::Test { cluster: false, filters } => test::test(&tree, &filters)?,
        Task::Test { cluster: true, filters } => test::on_cluster(&tree, &filters)?,
        Task::Promises { cases } => test::promises(&tree, cases)?,
        Task::Mutants => mutants::mutants(&tree)?,
        Task::Bench { quick, rows } => bench::bench(&tree, quick, &rows)?,
        Task::Demo { keep } => demo::demo(&tree, keep)?,
        Task::HostsUp { count } => testbed::up(&tree, count)?,
        Task::KubernetesUp { cluster } => kubernetes::up(&tree, cluster)?,
        Task::KubernetesDown => kubernetes::down(&tree)?,
        Task::HostsDown { only } => testbed::down(only)?,
    }
    Ok(())
}
