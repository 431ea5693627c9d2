//! Idle clients, and clients that read or write slowly, beside others.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use clerk_exporter::gateway::{InstancePolicies, RoutePolicies};

use crate::account::{Outcome, ask_all, read_to_end};
use crate::exporter::within;
use crate::front::Front;
use crate::world::{Clerk, Running};

const OFF: &str = "policies: { retry: off, coalesce: off, cache: off, batch: off, pace: off }";
const ROOMY: &str = "{ requests: 1000000, window: 10s }";

/// Maximum number of open files of this process or a child.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

#[tokio::test]
async fn ten_thousand_idle_clients_do_not_block_others() {
    const WANTED: usize = 10_000;
    // Some are needed for other purposes.
    let count = WANTED.min(open_files().saturating_sub(500));
    assert!(count > 400, "raise the limit of open files: `ulimit -n 20000`");
    let clerk = Clerk::start().await;
    let gateway = Front::start(&clerk.web.url(), ROOMY, OFF).await;
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        idle.push(within("an idle connection", TcpStream::connect(gateway.address)).await.unwrap());
        if number % 1000 == 0 {
            let account = ask_all(gateway.address, (0..10).map(|number| clerk.look_up(number))).await;
            account.holds_only(10, |outcome| *outcome == Outcome::Right, "while they come");
        }
    }
    let account = ask_all(gateway.address, (0..200).map(|number| clerk.look_up(number))).await;
    account.holds_only(200, |outcome| *outcome == Outcome::Right, &format!("beside {count} idle clients"));
    drop(idle);
    ask_all(gateway.address, [clerk.look_up(0)]).await.holds_only(1, |outcome| *outcome == Outcome::Right, "after");
}

#[tokio::test]
async fn slow_clients_do_not_block_others_and_are_served() {
    const SLOW: usize = 20;
    let clerk = Clerk::start().await;
    let plan = InstancePolicies { policies: RoutePolicies::default(), ..InstancePolicies::default() };
    let gateway = Running::start(&clerk.web.url(), plan, None).await;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let list = clerk.list(number);
        let mut reader = TcpStream::connect(gateway.address).await.unwrap();
        reader.write_all(&list.bytes("close")).await.unwrap();
        slow.push((reader, list, Vec::new()));
        let write = clerk.write(number);
        let mut bytes = write.bytes("close");
        let rest = bytes.split_off(bytes.len() - 5);
        let mut writer = TcpStream::connect(gateway.address).await.unwrap();
        writer.write_all(&bytes).await.unwrap();
        slow.push((writer, write, rest));
    }
    let account = ask_all(gateway.address, (0..100).map(|number| clerk.look_up(number))).await;
    account.holds_only(100, |outcome| *outcome == Outcome::Right, "beside slow clients");
    let mut tasks = JoinSet::new();
    for (mut stream, ask, rest) in slow {
        tasks.spawn(async move {
            // One byte at a time.
            for byte in rest {
                stream.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            let outcome = ask.judge(&within("a slow client's answer", read_to_end(&mut stream)).await);
            assert_eq!(outcome, Outcome::Right, "{ask:?}");
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let arrivals = clerk.arrivals();
    assert_eq!(arrivals.iter().filter(|arrival| arrival.starts_with("PATCH")).count(), SLOW);
}
