//! `man` writes one page or all of them.

use crate::exporter::{Folder, command, run};

#[tokio::test]
async fn man_writes_one_page_or_all_of_them() {
    let folder = Folder::new();
    let output = folder.path("");
    let ended = run(command(&["man", "--output", output.to_str().unwrap()])).await;
    assert_eq!((ended.status, &*ended.stdout), (Some(0), ""), "{}", ended.stderr);
    for (page, arguments) in [
        ("clerk-exporter.1", &["man"][..]),
        ("clerk-exporter-check.1", &["man", "check"]),
        ("clerk-exporter-users-export.1", &["man", "users", "export"]),
    ] {
        let ended = run(command(arguments)).await;
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout, std::fs::read_to_string(folder.path(page)).unwrap(), "{page}");
    }
    let ended = run(command(&["man", "chek"])).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("users export"), "{}", ended.stderr);
    let ended = run(command(&["man", "--output", folder.path("none").to_str().unwrap()])).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("none"), "{}", ended.stderr);
}
