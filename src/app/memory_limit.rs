//! How much memory this process may use: the cgroup's limit, or else the machine's memory.

use std::path::Path;

/// The limit in bytes; `None` if nothing tells.
pub fn memory_limit_bytes() -> Option<u64> {
    limit_under(Path::new("/"))
}

fn limit_under(root: &Path) -> Option<u64> {
    let machine = std::fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| mem_total_bytes(&text));
    let cgroup = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(root.join(path)).ok())
        // Version 2 says `max`, version 1 a huge number, when there is no limit.
        .find_map(|text| text.trim().parse::<u64>().ok());
    match (cgroup, machine) {
        (Some(cgroup), Some(machine)) => Some(cgroup.min(machine)),
        (one, other) => one.or(other),
    }
}

fn mem_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(limit_under(dir.path()), None);
        write("proc/meminfo", "MemTotal:     1000 kB\nMemFree: 1 kB\n");
        assert_eq!(limit_under(dir.path()), Some(1_024_000));
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(limit_under(dir.path()), Some(1_024_000));
        write("sys/fs/cgroup/memory.max", "4096\n");
        assert_eq!(limit_under(dir.path()), Some(4096));
    }
}
