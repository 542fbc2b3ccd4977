//! Writes what is generated from the types beside this crate; `--check` only tells whether it is current.
//! Run by `cargo xtask crd`, which need not compile this crate for that.
#![allow(clippy::print_stdout, reason = "a command line")]

use std::io;
use std::path::Path;
use std::process::ExitCode;

fn main() -> io::Result<ExitCode> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    if std::env::args().nth(1).as_deref() == Some("--check") {
        let stale = evenkeel_crds::stale(directory);
        for path in &stale {
            println!("{}: out of date\nhint: cargo xtask crd", path.display());
        }
        return Ok(ExitCode::from(u8::from(!stale.is_empty())));
    }
    for path in evenkeel_crds::generate(directory)? {
        println!("{}: written", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
