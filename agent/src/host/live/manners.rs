//! Makes a thread yield to everything else on the host.
#![allow(unsafe_code)]

/// `nice` of a thread that scans: others come first, and on an idle host it costs nothing.
const NICE: i32 = 10;
/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7)` of linux/ioprio.h: the last of the ordinary class, so that a busy disk does not starve it.
const IO_PRIORITY: libc::c_int = 2 << 13 | 7;
/// `IOPRIO_WHO_PROCESS` with 0 is the calling thread.
const THIS_THREAD: libc::c_int = 1;

/// Makes the calling thread yield processors and disks to others. Where that is not allowed, the service manager set both for the
/// whole agent.
pub fn yield_to_others() {
    if let Ok(nice) = rustix::process::getpriority_process(None)
        && nice < NICE
    {
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    // SAFETY: ioprio_set(2) takes three numbers; the C library has no wrapper of it.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, THIS_THREAD, 0, IO_PRIORITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_yields() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let of_thread = std::thread::spawn(move || {
            yield_to_others();
            // SAFETY: ioprio_get(2) takes two numbers.
            let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, THIS_THREAD, 0) };
            (nice(), priority)
        });
        assert_eq!(of_thread.join().unwrap(), (before.max(NICE), libc::c_long::from(IO_PRIORITY)));
        assert_eq!(nice(), before);
    }
}
