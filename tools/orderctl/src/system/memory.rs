//! The memory that a process has taken.

use anyhow::{Context, Result};

/// Returns the peak resident memory of a process since it started, in KiB (`VmHWM` of proc(5)).
///
/// # Errors
/// If the process has ended.
pub fn peak_memory_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find(|line| line.starts_with("VmHWM:")).context("the process has ended")?;
    Ok(line.split_whitespace().nth(1).context("VmHWM has a value")?.parse()?)
}
