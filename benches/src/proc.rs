//! What the kernel says of a process.

use std::fs;

use coord_bench_worker::Result;

/// Bytes of memory that it has now.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    Ok(status(pid, "VmRSS:")? * 1024)
}

/// Its threads.
pub(crate) fn threads(pid: u32) -> Result<u64> {
    status(pid, "Threads:")
}

/// How long its threads have run on a core.
pub(crate) fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has ended meanwhile ran for next to nothing.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(sum)
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("the kernel does not say")?;
    Ok(number.parse()?)
}
