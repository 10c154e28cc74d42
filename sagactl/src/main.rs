//! `sagactl`, see the package's README.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagactl::main()
}
