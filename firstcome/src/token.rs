//! `firstcome token`.

use std::process::ExitCode;

use crate::cli::Token;
use crate::keys;

pub(crate) fn run(options: &Token) -> anyhow::Result<ExitCode> {
    let customer = ["customer".to_owned()];
    let roles = if options.roles.is_empty() { customer.as_slice() } else { options.roles.as_slice() };
    let signer = keys::signer(&options.data_dir.home())?;
    println!("{}", signer.sign(options.customer, roles, options.email.as_deref(), options.ttl)?);
    Ok(ExitCode::SUCCESS)
}
