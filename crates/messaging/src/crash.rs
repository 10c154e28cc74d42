//! Places where a test can have the process die. A release build has none of them.

/// Dies here and now, without a word, if a test asked for it: `FIRSTCOME_CRASH_DIR` names a folder with a file
/// `who.place`. The file is taken away first, so that one process dies once.
#[cfg(debug_assertions)]
pub fn crash_point(who: &str, place: &str) {
    use std::path::PathBuf;
    use std::sync::LazyLock;

    static FOLDER: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("FIRSTCOME_CRASH_DIR").map(PathBuf::from));
    if let Some(folder) = FOLDER.as_ref()
        && std::fs::remove_file(folder.join(format!("{who}.{place}"))).is_ok()
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub const fn crash_point(_who: &str, _place: &str) {}
