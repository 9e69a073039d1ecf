//! Gives freed memory back, so that a look's peak is not what the agent holds at rest.
#![allow(unsafe_code)]

/// Returns memory that is no longer used to the system, where the allocator can.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number, touches only free memory and is MT-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}
