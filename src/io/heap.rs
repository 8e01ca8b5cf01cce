//! How the C library's allocator gives memory back. Left alone, glibc raises its threshold for blocks of their own mapping to
//! the size of the largest such block freed so far (32 MiB at most): later blocks of that size come from its heaps, where one
//! small allocation behind them keeps them resident. See mallopt(3), `M_MMAP_THRESHOLD`.

/// Blocks from this size on are mapped each on its own, and go back to the kernel when freed. The data path's buffers are
/// pooled mappings of ours (`io::buffers`), so what this touches is control work: group metadata, compaction, large replies.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: libc::c_int = 256 * 1024;
/// Free memory at a heap's end that goes back to the kernel.
#[cfg(target_env = "gnu")]
const TRIM_BYTES: libc::c_int = 1024 * 1024;

/// Sets fixed thresholds. Called once, before there are threads.
pub fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets the allocator's parameters.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_BYTES);
    }
}
