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

/// How long its threads, also those that have ended, have run on a core.
#[allow(unsafe_code, reason = "the clock of another process has no safe form")]
pub(crate) fn cpu_nanos(pid: u32) -> Result<u64> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both calls write to the values that they are given, and fail for a process that does not exist.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.try_into()?, &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    if failed {
        return Err(format!("process {pid} has no clock").into());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("the kernel does not say")?;
    Ok(number.parse()?)
}
