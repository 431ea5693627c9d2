//! Which files `users export --resume` considers complete.

use super::{World, read};
use crate::exporter::{Folder, run};

#[tokio::test]
async fn only_whole_export_without_checkpoint_is_complete() {
    let (world, folder) = (World::with(1200).await, Folder::new());
    for format in ["jsonl", "csv"] {
        let path = folder.path("users");
        let arguments = ["--format", format, "--output", path.to_str().unwrap(), "--resume"];
        let ended = run(world.export(&arguments)).await;
        assert_eq!(ended.status, Some(0), "{}", ended.stderr);
        let whole = read(&path);
        let resumed = async |content: &str| {
            std::fs::write(&path, content).unwrap();
            let ended = run(world.export(&arguments)).await;
            assert_eq!(read(&path), content, "the file is unchanged");
            (ended.status, ended.stderr)
        };
        let (status, said) = resumed(&whole).await;
        assert!(status == Some(0) && said.contains("complete"), "{said}");
        // The checkpoint was removed, or the file is not an export.
        let part = whole.lines().take(700).map(|line| format!("{line}\n")).collect::<String>();
        let other_format = if format == "csv" { "{\"id\":\"user_1\",\"created_at\":1}\n" } else { "id,external_id\n" };
        for content in [&part, &whole[..whole.len() - 1], &whole[..whole.len() - 20], other_format, "notes\n", "\n"] {
            let (status, said) = resumed(content).await;
            assert!(status == Some(1) && said.contains("start again with --force"), "{said}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
