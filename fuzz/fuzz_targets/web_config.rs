//! Any text as a web configuration: it is accepted, or rejected with a message that contains none of its secrets.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prometheus_web::WebConfigSource;

/// In memory, if the system has a file system for that.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("web-config-{}.yml", std::process::id()))
});

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).expect("a place for a small file");
    if let Err(error) = WebConfigSource::open(&*FILE) {
        let said = error.to_string();
        assert!(!said.contains("$2y$") && said.len() < 4096 + FILE.as_os_str().len(), "{said}");
    }
});
