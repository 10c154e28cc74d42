//! The development key, made once, and tokens signed with it.

use tool_kit::Signer;

use crate::home::{Home, write_private};

/// Signs with the development key of a data folder; makes it first if there is none.
pub(crate) fn signer(home: &Home) -> anyhow::Result<Signer> {
    ensure(home)?;
    Signer::read(&home.keys())
}

/// Makes a random key unless there is a keys file.
pub(crate) fn ensure(home: &Home) -> anyhow::Result<()> {
    let path = home.keys();
    if path.exists() {
        return Ok(());
    }
    home.make()?;
    write_private(&path, &tool_kit::new_keys_file()?)
}
