//! The generated files are up to date.

#[test]
fn generated_files_are_up_to_date() {
    let files = xtask::generated().unwrap();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let found = std::fs::read_to_string(xtask::root().join(&file.path)).unwrap_or_default();
        assert!(found == file.content, "{} is outdated: run cargo xtask generate", file.path.display());
    }
}
