//! `users get`: by given IDs, from any source.

use std::process::Stdio;

use super::{MISSING_USER, World, assert_csv_is, output, read};
use crate::exporter::{Folder, KEY, OTHER_KEY, command, run};

#[tokio::test]
async fn users_get_returns_users_and_lists_missing_ids() {
    let (world, folder) = (World::start().await, Folder::new());
    let truth = world.truth().await;
    let id = |number: u32| world.simulator.user_id(number).unwrap();
    let wanted: Vec<u32> = (0..700).rev().chain([5, 2000]).collect();
    let mut list = format!("# those of May\n\n  {MISSING_USER}  \r\n");
    list.extend(wanted.iter().map(|number| format!("{}\n", id(*number))));
    let ids = folder.write("ids", &list);
    let expected: Vec<_> = (0..700).rev().chain([2000]).map(|number| truth[number].clone()).collect();

    let before = world.simulator.truth().requests.total;
    let ended = run(world.users("get", &["--ids-file", ids.to_str().unwrap()])).await;
    assert_eq!(ended.status, Some(3), "{}", ended.stderr);
    assert!(ended.stdout.lines().eq(&expected));
    assert_eq!(ended.stderr, format!("{MISSING_USER}: no such user\n701 users, 1 missing\n"));
    assert_eq!(
        world.simulator.truth().requests.total - before,
        9,
        "702 ids, and once more the one that a list was without"
    );

    let (path, without) = (folder.path("users.csv"), list.replace(MISSING_USER, ""));
    let ids = folder.write("ids", &without);
    let arguments = ["--format=csv", "--ids-file", ids.to_str().unwrap(), "--output", path.to_str().unwrap()];
    let ended = run(world.users("get", &arguments)).await;
    assert_eq!((ended.status, &*ended.stdout), (Some(0), ""), "{}", ended.stderr);
    assert_csv_is(&read(&path), &expected);
    let ended = run(world.users("get", &arguments)).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("overwrite it with --force"), "{}", ended.stderr);
    assert_eq!(world.refused(), 0);
}

#[tokio::test]
async fn invalid_ids_are_rejected_before_any_request() {
    let (world, folder) = (World::start().await, Folder::new());
    for wrong in ["-user_1", "+user_1", "user_1,user_2", "org_1", KEY] {
        let ids = folder.write("ids", &format!("{MISSING_USER}\n\n{wrong}\n"));
        let ended = run(world.users("get", &["--ids-file", ids.to_str().unwrap()])).await;
        assert_eq!((ended.status, &*ended.stdout), (Some(1), ""));
        assert!(ended.stderr.contains("ids:3") && !ended.stderr.contains("CANARY"), "{}", ended.stderr);
    }
    let ended = run(world.users("get", &["--ids-file", "/does/not/exist"])).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("/does/not/exist"), "{}", ended.stderr);
    assert_eq!(run(world.users("get", &[])).await.status, Some(2));
    assert_eq!(world.simulator.truth().requests.total, 0);
}

#[tokio::test]
async fn ids_as_arguments_come_before_those_of_the_file() {
    let (world, folder) = (World::start().await, Folder::new());
    let truth = world.truth().await;
    let id = |number: u32| world.simulator.user_id(number).unwrap();
    let ids = folder.write("ids", &format!("{}\n{}\n", id(3), id(4)));
    let (first, second) = (id(5), id(3));
    let ended = run(world.users("get", &[&first, &second, &first])).await;
    assert_eq!((ended.status, ended.stdout), (Some(0), format!("{}\n{}\n", truth[5], truth[3])));
    let ended = run(world.users("get", &[&first, &second, "--ids-file", ids.to_str().unwrap()])).await;
    assert_eq!((ended.status, ended.stdout), (Some(0), format!("{}\n{}\n{}\n", truth[5], truth[3], truth[4])));

    let before = world.simulator.truth().requests.total;
    for wrong in ["user-1", "org_1", "-", KEY] {
        let ended = run(world.users("get", &[&first, wrong])).await;
        assert_eq!((ended.status, &*ended.stdout), (Some(2), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains("argument 2") && !ended.stderr.contains("CANARY"), "{}", ended.stderr);
    }
    let ended = run(world.users("get", &[])).await;
    assert!(ended.status == Some(2) && ended.stderr.contains("--ids-file"), "{}", ended.stderr);
    assert_eq!(world.simulator.truth().requests.total, before);
}

#[tokio::test]
async fn ids_come_from_standard_input_too() {
    use tokio::io::AsyncWriteExt;
    let world = World::start().await;
    let mut command = world.users("get", &["--ids-file=-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(world.simulator.user_id(7).unwrap().as_bytes()).await.unwrap();
    drop(stdin);
    let ended = output(child).await;
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.trim_end(), world.truth().await[7]);
}

#[tokio::test]
async fn instance_is_selected_by_name() {
    let (world, folder) = (World::with(3).await, Folder::new());
    folder.write("a", KEY);
    folder.write("b", OTHER_KEY);
    let url = world.web.url();
    let config = folder.write(
        "config.yml",
        &format!(
            "instances:\n- {{ name: a, secret_key_file: a, api_url: '{url}' }}\n\
             - {{ name: b, secret_key_file: b, api_url: '{url}' }}\n"
        ),
    );
    let export = async |arguments: &[&str]| {
        let mut command = command(&["users", "export", "--config.file", config.to_str().unwrap()]);
        command.args(arguments);
        run(command).await
    };
    let ended = export(&[]).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("choose one with --instance: a, b"), "{}", ended.stderr);
    let ended = export(&["--instance=c"]).await;
    assert!(ended.status == Some(1) && ended.stderr.contains("no such instance, but a, b"), "{}", ended.stderr);
    let ended = export(&["--instance=b"]).await;
    assert_eq!((ended.status, ended.stdout.lines().count()), (Some(0), 3), "{}", ended.stderr);
}
